/** The reference of the interface as a page. */
import { createHash } from 'node:crypto';
import t from 'tap';
import { describeRoutes } from '../../../origin/api/openapi.js';
import { originRoutes, type RouteDeps } from '../../../origin/api/routes.js';
import { WEBHOOKS } from '../../../origin/api/webhooks.js';
import { wellKnownSection } from '../../../origin/api/well-known.js';
import { referencePage } from '../../../src/dev/reference.js';
import { configured } from '../../kit/deps.js';

void t.test('the reference has every operation and schema, and loads and runs nothing', (t) => {
  const rows = originRoutes({ baseUri: '', config: { wellKnown: configured(wellKnownSection) } } as RouteDeps);
  const document = describeRoutes(rows, 'https://media.example', WEBHOOKS) as {
    paths: Record<string, Record<string, { operationId: string }>>;
    components: { schemas: object };
  };
  const { html, policy } = referencePage(document);
  for (const methods of Object.values(document.paths)) {
    for (const [method, { operationId }] of Object.entries(methods)) {
      const isShown = html.includes(`id="${operationId}"`);
      t.equal(isShown, !(method === 'head' && 'get' in methods), operationId);
    }
  }
  for (const { operationId } of WEBHOOKS) t.match(html, `id="${operationId}"`);
  for (const name of Object.keys(document.components.schemas)) t.match(html, `id="schema-${name}"`);
  for (const [, anchor] of html.matchAll(/href="#([^"]+)"/g))
    t.ok(html.includes(`id="${String(anchor)}"`), String(anchor));
  t.notMatch(html, /<script|<link|<img|src=|@import|url\(/);
  const style = /<style>([^<]*)<\/style>/.exec(html)?.[1] ?? '';
  t.match(policy, `style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'`);
  t.end();
});

void t.test('nothing in a description becomes markup', (t) => {
  const evil = '"><script>alert(1)</script>';
  const { html } = referencePage({
    info: { title: evil, description: evil },
    paths: {
      [evil]: {
        post: {
          operationId: evil,
          summary: evil,
          security: [{ [evil]: [] }, {}],
          parameters: [{ name: evil, in: evil, description: `\`${evil}\`` }],
          requestBody: { description: evil, content: { [evil]: { schema: { $ref: `#/${evil}` } } } },
          responses: { [evil]: { description: evil, headers: { [evil]: {} } } },
        },
      },
    },
    components: { schemas: { [evil]: { description: evil } } },
  });
  t.notMatch(html, /<script/);
  for (const nothing of [null, [], 'x', { paths: [], components: 7 }]) t.match(referencePage(nothing).html, /<main>/);
  t.end();
});
