/** `check` and `config` on the command line: what is said of a file, on any machine, and what can be reached. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { edgeSection } from '../../../edge/config.js';
import { checkEdgeLive } from '../../../edge/live-check.js';
import { entry as edge } from '../../../edge/main.js';
import { originSection } from '../../../origin/config.js';
import { checkOriginLive } from '../../../origin/live-check.js';
import { entry as origin } from '../../../origin/main.js';
import { accessSection } from '../../../src/access/config.js';
import { systemClock } from '../../../src/clock.js';
import { runCheck } from '../../../src/commands/check.js';
import { showConfig } from '../../../src/commands/show-config.js';
import { allPaths, declaredAt } from '../../../src/config/declared.js';
import { fileKey } from '../../../src/config/field.js';
import { livingConfig } from '../../../src/config/living.js';
import { parseConfig, type Sections } from '../../../src/config/load.js';
import type { LogConfig } from '../../../src/log.js';
import { createReload } from '../../../src/reload.js';
import { openAuthService, TEST_SECRET } from '../../kit/auth-service.js';
import { testDeps } from '../../kit/deps.js';
import { ownPort } from '../../kit/ports.js';

const TEXTS = { preamble: [], firstHelp: '', firstKeys: [] };

function printing() {
  const out: string[] = [];
  const err: string[] = [];
  return { out, err, print: (line: string) => void out.push(line), printError: (line: string) => void err.push(line) };
}

void t.test('a file is checked as one process reads it, and without the secrets of its machine', async (t) => {
  const folder = t.testdir({
    'config.yaml':
      'access: { edge_secret: "env:NOT_HERE_1", links: { secrets: [{ kid: a, secret: "file:./not/here" }] } }\norigin:\n  upload: { sice_max: 1MB }\n  meta: { postgres: { url: "env:NOT_HERE_2" } }\n',
  });
  const path = join(folder, 'config.yaml');
  const check = async (entries: Parameters<typeof runCheck>[0], withoutSecrets: boolean) => {
    const { out, err, ...words } = printing();
    return { code: await runCheck(entries, { path, withoutSecrets, live: false, ...words }), out, err: err.join('\n') };
  };
  const all = await check([origin, edge], false);
  t.equal(all.code, 2);
  t.match(all.err, /NOT_HERE_1 is not set/);
  t.match(
    all.err,
    /line 3, column 13: origin\.upload: `sice_max` is not a key of this section; did you mean `size_max`\?/,
  );
  t.match(await check([edge], true), { code: 0, out: [`${path}: no faults`] }, 'the edge has no fault of its own');
  const bare = await check([origin], true);
  t.equal(bare.code, 2);
  t.equal(bare.err.split('\n').length, 2, bare.err);
});

void t.test('what counts is printed with where it comes from, and an unknown key is refused', async (t) => {
  const { out, err, ...words } = printing();
  const show = (explain: string | undefined, effective: boolean) =>
    showConfig([origin, edge], TEXTS, { path: undefined, explain, effective, ...words });
  t.equal(show('edge.rules', false), 0);
  t.match(out.join(''), /A running process applies a change at once/);
  t.equal(show('edge.cache.memory.siz', false), 2);
  t.match(err.join(''), /did you mean edge\.cache\.memory\.size/);
  t.equal(show(undefined, false), 0);
  t.match(out.at(-1), /^log:$/m);
});

async function openReady(t: Test, status: number): Promise<string> {
  const server = createServer((_request, response) => response.writeHead(status).end()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.teardown(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

void t.test('what a configuration names is tried, and what fails is said with its reason', async (t) => {
  const folder = t.testdir();
  const auth = await openAuthService(systemClock);
  t.teardown(() => auth.close());
  const { log } = testDeps();
  const printed: string[] = [];
  const tools = {
    clock: systemClock,
    log,
    signal: new AbortController().signal,
    print: (line: string) => void printed.push(line),
    complain: (line: string) => void printed.push(line),
    progress: () => undefined,
  };
  const settings = (issuer: object, url: string) => {
    const sections = { access: accessSection, origin: originSection, edge: edgeSection };
    const document = {
      access: { issuers: [issuer], keys: { folder: null } },
      origin: {
        blobs: { folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') },
        meta: { folder: join(folder, 'meta') },
      },
      edge: { upstream: { url } },
    };
    const read = parseConfig(JSON.stringify(document), sections, { env: () => TEST_SECRET, file: () => TEST_SECRET });
    if (read.kind === 'faulty') throw new Error(JSON.stringify(read.faults));
    return read.config;
  };
  const right = settings({ issuer: auth.issuer, jwks_url: auth.jwksUrl }, await openReady(t, 200));
  t.equal(await checkOriginLive(right, tools), 0);
  t.equal(await checkEdgeLive(right.access, right.edge, tools), 0);
  t.equal(printed.filter((line) => line.startsWith('ok ')).length, 5, printed.join('\n'));
  printed.length = 0;
  const port = await ownPort();
  const wrong = settings({ issuer: `http://127.0.0.1:${port}` }, await openReady(t, 503));
  t.equal(await checkOriginLive(wrong, tools), 1);
  t.equal(await checkEdgeLive(wrong.access, wrong.edge, tools), 1);
  t.match(printed.join('\n'), new RegExp(`failed {2}Authentication Service http://127\\.0\\.0\\.1:${port}: `));
  t.match(printed.at(-1), /^failed {2}origin .*: it answers \/readyz with 503$/);
  t.equal(await checkEdgeLive(null, { ...wrong.edge, access: 'off' }, tools), 1);
});

/**
 * Every key that is declared `live`, and where it is read when it is used, or handed over. Who adds one says so here, after
 * looking that nothing keeps a copy of its value. Ends in `*`: the whole section.
 */
const LIVE_KEYS = [
  // Each line of the log asks for them; the level is handed over (src/reload.ts).
  'log.level',
  'log.requests',
  // Handed over (origin/origin.ts, edge/edge.ts).
  'access.edge_secret',
  'access.edge_secrets_accepted',
  'access.links.secrets',
  // Read for each upload; what /.well-known says is rendered again.
  'origin.upload.size_max',
  'origin.upload.types',
  'origin.upload.uploads_max',
  'origin.upload.in_hand_max',
  'origin.upload.uploads_per_subject_max',
  'origin.upload.in_hand_per_subject_max',
  'origin.upload.free_min',
  'origin.upload.idle',
  'origin.upload.grace',
  'origin.upload.rate_min',
  'origin.upload.expires_in_max',
  'origin.upload.retry_after',
  'origin.upload.form.*',
  'origin.quota.*',
  // Read for each answer, each request and each event.
  'origin.download.*',
  'origin.rate_limits.*',
  'origin.webhooks.secrets',
  'origin.webhooks.every',
  'origin.webhooks.at_once',
  'origin.webhooks.timeout',
  'origin.webhooks.retry',
  'origin.webhooks.retry_max',
  'origin.webhooks.give_up',
  'origin.webhooks.keep_dead',
  // Handed over (edge/cache/open.ts), except for limits that are read for each response.
  'edge.cache.memory.*',
  'edge.cache.disk.size',
  'edge.cache.disk.max_object',
  'edge.cache.disk.policy',
  'edge.cache.disk.admission',
  'edge.cache.disk.stores_max',
  'edge.cache.disk.fill_room',
  'edge.cache.disk.min_free',
  'edge.cache.policies.*',
  // Read for each request.
  'edge.ranges_max',
  'edge.fill.*',
  'edge.warm.*',
  'edge.rules',
  'edge.rate_limits.enabled',
];

void t.test(
  'a reload applies the keys that are declared live, and names each other key as one that needs a restart',
  (t) => {
    const listed = (path: string): boolean =>
      LIVE_KEYS.some((each) => each === path || (each.endsWith('*') && path.startsWith(each.slice(0, -1))));
    for (const { name, sections } of [origin, edge]) {
      const read = parseConfig('', sections, { env: () => TEST_SECRET, file: () => TEST_SECRET });
      if (read.kind === 'faulty') throw new Error(JSON.stringify(read.faults));
      const started = read.config as { readonly log: LogConfig };
      for (const path of allPaths(sections)) {
        const declared = declaredAt(sections, path);
        if (declared?.kind !== 'leaf') continue;
        const living = livingConfig(sections, started);
        const changed = withChanged(sections, started, path);
        const source = {
          path: undefined,
          sections,
          files: () => [],
          read: () => ({ kind: 'loaded', config: changed }) as const,
        };
        const steps = createReload({ source, started, living, clock: systemClock, log: testDeps().log });
        const outcome = steps.commit();
        const applies = declared.live === true;
        t.equal(applies, listed(path), `${path} is ${applies ? 'live, so it stands in this list' : 'not live'}`);
        t.match(outcome, { kind: 'applied', changed: applies, needRestart: applies ? [] : [path] }, `${name}: ${path}`);
        t.strictSame(living.config, applies ? changed : started, `${name}: what its components read of ${path}`);
      }
    }
    t.end();
  },
);

/** A copy in which this key alone has another value. */
function withChanged<C>(sections: Sections, config: C, path: string): C {
  const copy = structuredClone(config);
  const [top = '', ...keys] = path.split('.');
  let section = sections[top];
  let group = (copy as Record<string, unknown>)[top] as Record<string, unknown>;
  if (section?.deferred === true) group = group['value'] as Record<string, unknown>;
  for (const key of keys) {
    const [name = '', field] =
      Object.entries(section?.fields ?? {}).find(([each, of]) => fileKey(each, of) === key) ?? [];
    if (field?.kind === 'section') {
      section = field;
      group = group[name] as Record<string, unknown>;
    } else group[name] = path.endsWith('level') ? 'debug' : ['another value'];
  }
  return copy;
}
