/** The page for people in development: who gets its files and tokens, and that an edge without `dev` has none. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { pageOf } from '../../../edge/page.js';
import { openPage } from '../../../src/dev/page.js';
import { PAGE_ADDRESS } from '../../../src/dev/page-address.js';
import { BASE_URI, baseUriOfEdge, withBaseUri } from '../../../src/dev/service-address.js';
import { ManualClock } from '../../kit/clock.js';
import { sendRequest } from '../../kit/http/request.js';

void t.test('in development the service is where the edge of the file listens, unless the file says where', (t) => {
  const edge = (listen: string): string => `edge: { listen: { ${listen} } }`;
  const rows: readonly (readonly [text: string, address: string | undefined])[] = [
    [edge('port: 8090'), 'http://127.0.0.1:8090'],
    [edge('port: 8090, host: "0.0.0.0"'), 'http://127.0.0.1:8090'],
    [edge('port: 8090, host: "::1"'), 'http://[::1]:8090'],
    [edge('port: 8090, host: 192.0.2.1, tls: { certificate_file: a.pem, key_file: a.key }'), 'https://192.0.2.1:8090'],
    [edge('port: 8090, tls: { certificate_file: null }'), 'http://127.0.0.1:8090'],
    [`origin: { base_uri: "https://media.example" }\n${edge('port: 8090')}`, undefined],
    [`origin: { base_uri: "http://127.0.0.1:8080" }\n${edge('port: 8090')}`, 'http://127.0.0.1:8090'],
    [edge('port: 0'), undefined],
    [edge('host: localhost'), undefined],
    ['', undefined],
    [readFileSync('config.yaml', 'utf8'), 'http://127.0.0.1:8080'],
    ['edge: [', undefined],
  ];
  for (const [text, address] of rows) t.equal(baseUriOfEdge(text), address, text);
  const config = { origin: { baseUri: 'https://media.example', other: 1 } };
  t.same(withBaseUri(config, {}), config);
  t.same(withBaseUri(config, { [BASE_URI]: 'http://127.0.0.1:8090' }).origin, {
    baseUri: 'http://127.0.0.1:8090',
    other: 1,
  });
  t.end();
});

void t.test('the page for people', async (t) => {
  const edge = createServer((_request, response) => {
    const paths = { '/things': { get: { operationId: 'getThings' } } };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ info: {}, paths }));
  });
  await new Promise<void>((resolve) => edge.listen(0, '127.0.0.1', resolve));
  t.teardown(() => edge.close());
  const page = await openPage({
    edge: () => `http://127.0.0.1:${(edge.address() as AddressInfo).port}`,
    issueToken: (subject, admin) => Promise.resolve(`${subject} ${admin ? 'admin' : 'user'}`),
    clock: new ManualClock(),
  });
  t.teardown(() => page.close());
  const url = page.urls['page'] ?? '';
  const post = (path: string, body: string, headers: Readonly<Record<string, string>> = {}) =>
    sendRequest(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: Buffer.from(body),
    });

  await t.test('its document and all that it loads are there, under a strict policy', async (t) => {
    const paths = ['/', '/page/chat.css', '/page/dev/chat/main.js', '/page/client/client.js', '/page/tus.js'];
    for (const path of paths) {
      const { status, headers } = await sendRequest(url + path);
      t.equal(status, 200, path);
      t.match(headers['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self';/);
    }
    for (const path of ['/page/client/../cli.js', '/page/cli.js', '/page/dev/page.js', '/page/dev/chat/x.ts', '/other'])
      t.equal((await sendRequest(url + path)).status, 404, path);
  });

  await t.test('the reference is made of what the service says of itself', async (t) => {
    const { status, headers, bytes } = await sendRequest(`${url}/docs`);
    t.equal(status, 200);
    t.match(headers['content-security-policy'], /^default-src 'none'; style-src 'sha256-[^']+';/);
    t.match(bytes.toString(), /<section id="getThings">/);
  });

  await t.test('it gives tokens to itself, and to no other site', async (t) => {
    const good = await post('/page/token', '{"subject":"ada","admin":true}');
    t.match(good.bytes.toString(), /"ada admin"/);
    const ada = '{"subject":"ada"}';
    t.equal((await post('/page/token', ada, { origin: url })).status, 200);
    t.equal((await post('/page/token', ada, { origin: 'http://evil.test' })).status, 403);
    t.equal((await post('/page/token', ada, { host: 'evil.test' })).status, 403, 'a name that leads here');
    t.equal((await post('/page/token', ada, { 'content-type': 'text/plain' })).status, 400, 'without a preflight');
    for (const body of ['', '[', 'null', '{}', '{"subject":"../x"}', `{"subject":"${'a'.repeat(70_000)}"}`])
      t.equal((await post('/page/token', body)).status, 400, body.slice(0, 20));
  });

  await t.test('what was said is numbered', async (t) => {
    for (const text of ['one', 'two']) await post('/page/messages', JSON.stringify({ author: 'ada', text }));
    const { messages } = (await (await fetch(`${url}/page/messages?after=1`)).json()) as { messages: unknown[] };
    t.match(messages, [{ number: 2, author: 'ada', text: 'two', media: null }]);
    for (const body of ['{}', '{"author":"ada"}', '{"author":"","text":"x"}', '{"author":"ada","text":1}'])
      t.equal((await post('/page/messages', body)).status, 400, body);
  });
});

void t.test('an edge has a page only where dev names one on this machine', async (t) => {
  t.equal(pageOf({}), undefined);
  for (const address of ['', 'http://example.test:80', 'http://10.0.0.1:80', 'nothing'])
    t.equal(pageOf({ [PAGE_ADDRESS]: address }), undefined, address);
  const page = pageOf({ [PAGE_ADDRESS]: 'http://127.0.0.1:1' });
  const takes = (url: string, remoteAddress: string) => page?.takes({ url, socket: { remoteAddress } } as never);
  t.equal(takes('/?as=ada', '127.0.0.1'), true);
  t.equal(takes('/page/token', '::ffff:127.0.0.1'), true);
  t.equal(takes('/docs', '127.0.0.1'), true);
  t.equal(takes('/page/token', '203.0.113.7'), false, 'nobody elsewhere gets a token');
  t.equal(takes('/v1/media', '127.0.0.1'), false);
});
