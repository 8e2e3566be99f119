/** TLS and HTTP/2 between clients and the edge, and TLS to the origin, on real sockets with test certificates. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type ClientHttp2Session, constants, type OutgoingHttpHeaders } from 'node:http2';
import { request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import t, { type Test } from 'tap';
import { edgeFaults, edgeSection } from '../../../edge/config.js';
import { type TlsTrouble, tlsTroubleOf } from '../../../edge/upstream/tls.js';
import { parseConfig } from '../../../src/config/load.js';
import type { MediaId } from '../../../src/ids.js';
import { hasOpenssl, selfSigned, type TestCertificate } from '../../kit/certificates.js';
import { testDeps } from '../../kit/deps.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import { mediaScript } from '../../kit/edge/scripted-origin.js';
import {
  connectFrames,
  connectHttp2,
  FRAME,
  fetchHttp2 as fetchFields,
  fieldBlock,
  frame,
  type Http2Answer,
  type RawSession,
  uint32,
} from '../../kit/http/http2.js';
import { until } from '../../kit/until.js';

const skip = hasOpenssl ? false : 'there is no openssl to make certificates with';
const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };
const BYTES = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz');

interface Secure {
  readonly edge: TestEdge;
  readonly certificate: TestCertificate;
}

async function open(t: Test, tls = '', options: TestEdgeOptions = {}): Promise<Secure> {
  const folder = t.testdir();
  const certificate = selfSigned(folder, 'edge');
  const files = `certificate_file: "${certificate.certFile}", key_file: "${certificate.keyFile}"`;
  const edge = await openTestEdge(folder, { ...options, tls: tls === '' ? files : `${files}, ${tls}` });
  t.teardown(() => edge.close());
  edge.origin.on(PATH, mediaScript({ bytes: BYTES, headers: { 'media-id': ID } }));
  return { edge, certificate };
}

async function session(t: Test, { edge, certificate }: Secure): Promise<ClientHttp2Session> {
  const client = await connectHttp2(edge.url, certificate.cert);
  t.teardown(() => client.destroy());
  return client;
}

/** A GET of PATH by a reader, unless told otherwise. */
function fetchHttp2(client: ClientHttp2Session, fields: OutgoingHttpHeaders, body?: Uint8Array): Promise<Http2Answer> {
  return fetchFields(client, { ':path': PATH, ...READER, ...fields }, body);
}

/** One request by HTTP/1.1. */
function fetchHttps(url: string, ca: string): Promise<{ status: number; bytes: Buffer; connection: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { ca, headers: READER, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          bytes: Buffer.concat(chunks),
          connection: response.headers.connection ?? '',
        }),
      );
    });
    sent.on('error', reject).end();
  });
}

void t.test('clients of both protocols get the same answers over TLS', { skip }, async (t) => {
  const secure = await open(t);
  const { edge, certificate } = secure;
  t.match(edge.url, /^https:/);
  const plain = await fetchHttps(edge.url + PATH, certificate.cert);
  t.equal(plain.status, 200, 'HTTP/1.1');
  t.same(plain.bytes, BYTES);

  const client = await session(t, secure);
  const hit = await fetchHttp2(client, {});
  t.equal(hit.status, 200);
  t.same(hit.bytes, BYTES);
  t.match(String(hit.headers['cache-status']), /^edge; hit/);
  for (const name of ['connection', 'keep-alive', 'transfer-encoding']) t.equal(hit.headers[name], undefined, name);
  t.equal(edge.origin.count(PATH), 1, 'one fetch for both');
  const etag = String(hit.headers['etag']);
  const cases = [
    { name: 'HEAD', fields: { ':method': 'HEAD' }, status: 200, body: '', length: '36' },
    { name: 'a range', fields: { range: 'bytes=2-4' }, status: 206, body: '234', length: '3' },
    { name: 'a matching If-None-Match', fields: { 'if-none-match': etag }, status: 304, body: '' },
    { name: 'no token', fields: { authorization: 'Bearer wrong' }, status: 401 },
    { name: 'a range beyond', fields: { range: 'bytes=36-' }, status: 416 },
    { name: 'health', fields: { ':path': '/healthz' }, status: 200 },
    { name: 'another Host than the authority', fields: { ':authority': 'here', host: 'elsewhere' }, status: 400 },
    { name: 'a fragment', fields: { ':path': '/a#b' }, status: 400 },
    { name: 'a target too long', fields: { ':path': `/${'a'.repeat(9_000)}` }, status: 414 },
  ];
  for (const { name, fields, status, body, length } of cases) {
    const answer = await fetchHttp2(client, fields);
    t.equal(answer.status, status, name);
    if (body !== undefined) t.equal(answer.bytes.toString(), body, name);
    if (length !== undefined) t.equal(answer.headers['content-length'], length, name);
    t.equal(answer.rstCode, 0, name);
  }

  const other = `${PATH.slice(0, -1)}B`;
  edge.origin.on(other, mediaScript({ bytes: BYTES }));
  const miss = await fetchHttp2(client, { ':path': other, cookie: ['a=1', 'b=2'] });
  t.match(String(miss.headers['cache-status']), /fwd=uri-miss.*stored/);
  t.same(miss.bytes, BYTES);
  const names = Object.keys(edge.origin.seen.at(-1)?.headers ?? {});
  t.notOk(
    names.some((name) => name.startsWith(':')),
    'no pseudo-field is sent on',
  );
  const many = await Promise.all(Array.from({ length: 50 }, () => fetchHttp2(client, {})));
  t.ok(
    many.every(({ bytes }) => bytes.equals(BYTES)),
    'many at once over one connection',
  );
});

void t.test(
  'large bodies share a connection, and a client that does not read one delays no other',
  { skip },
  async (t) => {
    const secure = await open(t);
    const path = `${PATH.slice(0, -1)}E`;
    const bytes = randomBytes(3_000_000);
    secure.edge.origin.on(path, mediaScript({ bytes, headers: { 'media-id': path.slice(-26) } }));
    const client = await session(t, secure);
    t.ok((await fetchHttp2(client, { ':path': path })).bytes.equals(bytes));
    const waiting = client.request({ ':path': path, ...READER });
    waiting.on('error', () => {});
    await once(waiting, 'response');
    const many = await Promise.all(Array.from({ length: 20 }, () => fetchHttp2(client, { ':path': path })));
    t.ok(many.every((answer) => answer.status === 200 && answer.bytes.equals(bytes)));
    const ended = new Promise((resolve) => waiting.once('close', resolve));
    await secure.edge.takeDown(path.slice(-26) as MediaId);
    waiting.resume();
    await ended;
    t.equal(
      waiting.rstCode,
      constants.NGHTTP2_INTERNAL_ERROR,
      'a body that waits to be read ends with the takedown of its media',
    );
  },
);

void t.test('uploads and deletions are passed on from HTTP/2', { skip }, async (t) => {
  const secure = await open(t);
  const { origin } = secure.edge;
  origin.on('/v1/media', (seen, answer) => {
    answer.head(201, { 'content-type': 'text/plain', 'keep-alive': 'timeout=5' });
    answer.end(`${seen.body.length}`);
  });
  origin.on(PATH, (_seen, answer) => {
    answer.head(204);
    answer.end();
  });
  const client = await session(t, secure);
  const upload = { ':method': 'POST', ':path': '/v1/media', 'content-type': 'image/png' };
  const body = randomBytes(3_000_000);
  for (const [name, more] of [
    ['of a stated length', { 'content-length': body.length }],
    ['of unknown length', {}],
    ['that waits for 100', { expect: '100-continue', 'content-length': body.length }],
  ] as const) {
    const answer = await fetchHttp2(client, { ...upload, ...more }, body);
    t.equal(answer.status, 201, name);
    t.equal(answer.bytes.toString(), '3000000', name);
    t.ok(origin.seen.at(-1)?.body.equals(body), name);
    t.equal(answer.headers['keep-alive'], undefined);
  }
  const seen = origin.seen.at(-1)?.headers ?? {};
  t.equal(seen['x-forwarded-proto'], 'https');
  t.equal(seen['x-forwarded-host'], new URL(secure.edge.url).host);
  t.match(String(seen['via']), /^2\.0 edge$/);
  t.equal((await fetchHttp2(client, { ':method': 'DELETE' })).status, 204);
  t.equal(origin.count(PATH, 'DELETE'), 1);
});

void t.test('a stream that breaks is reset, and harms no other', { skip }, async (t) => {
  const secure = await open(t);
  const { origin } = secure.edge;
  const client = await session(t, secure);

  await t.test('a client that resets a passed upload', async (t) => {
    let gone = false;
    origin.on('/v1/media', (_seen, answer) => void answer.gone.then(() => (gone = true)));
    const stream = client.request({ ':method': 'POST', ':path': '/v1/media', ...READER, 'content-length': 5 });
    stream.on('error', () => {});
    stream.end('hello');
    await origin.arrived('/v1/media');
    stream.close(constants.NGHTTP2_CANCEL);
    await until('the end of the request at the origin', () => gone);
    t.pass();
  });
  await t.test('an origin whose response breaks off', async (t) => {
    const path = `${PATH.slice(0, -1)}C`;
    let cut = (): void => {};
    origin.on(path, async (_seen, answer) => {
      answer.head(200, { 'content-type': 'image/png', 'content-length': '1000', 'cdn-cache-control': 'max-age=60' });
      await answer.write('half');
      cut = () => answer.reset();
    });
    const reader = client.request({ ':path': path, ...READER });
    reader.on('error', () => {});
    await once(reader, 'data');
    const ended = new Promise((resolve) => reader.once('close', resolve));
    cut();
    await ended;
    t.equal(reader.rstCode, constants.NGHTTP2_INTERNAL_ERROR, 'the half is not taken for the whole body');
  });
  await t.test('a client that resets its stream while a body arrives', async (t) => {
    const path = `${PATH.slice(0, -1)}D`;
    let finish = (): void => {};
    origin.on(path, async (_seen, answer) => {
      answer.head(200, { 'content-type': 'image/png', 'content-length': '8', 'cdn-cache-control': 'max-age=60' });
      await answer.write('half');
      finish = () => answer.end('full');
    });
    const left = client.request({ ':path': path, ...READER });
    left.on('error', () => {});
    await once(left, 'data');
    const other = fetchHttp2(client, { ':path': path });
    left.close(constants.NGHTTP2_CANCEL);
    await once(left, 'close');
    finish();
    t.equal((await other).bytes.toString(), 'halffull');
  });
  t.equal((await fetchHttp2(client, {})).status, 200, 'the session goes on');
});

const GET = fieldBlock({ ':method': 'GET', ':scheme': 'https', ':path': PATH, ':authority': 'a', ...READER });
async function rawSession(t: Test, { edge, certificate }: Secure): Promise<RawSession> {
  const raw = await connectFrames(Number(new URL(edge.url).port), certificate.cert);
  t.teardown(() => raw.destroy());
  return raw;
}

void t.test('an HTTP/2 client that floods loses its connection, and harms no other client', { skip }, async (t) => {
  const { log, lines } = testDeps();
  const secure = await open(t, 'interruptions_max: 200, streams_max: 20', {
    log,
    limits: 'headers_max: 4KiB, headers_max_count: 20, connections_per_client_max: 4',
  });
  const bystander = await session(t, secure);
  t.equal((await fetchHttp2(bystander, {})).status, 200);
  const CALM = constants.NGHTTP2_ENHANCE_YOUR_CALM;
  const ping = frame(FRAME.ping, 0, 0, Buffer.alloc(8));
  const settings = frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.of(0, 4), uint32(65_535)]));
  const many = (count: number, each: (index: number) => Buffer): Buffer =>
    Buffer.concat(Array.from({ length: count }, (_, index) => each(index)));
  const reset = (index: number): Buffer => {
    const stream = 2 * index + 1;
    return Buffer.concat([
      frame(FRAME.headers, 0x5, stream, GET),
      frame(FRAME.reset, 0, stream, uint32(constants.NGHTTP2_CANCEL)),
    ]);
  };
  const endless = Buffer.concat([
    frame(FRAME.headers, 0x1, 1, GET),
    many(50, (index) => frame(FRAME.continuation, 0, 1, fieldBlock({ [`x-${index}`]: 'y'.repeat(1_000) }))),
  ]);
  const floods: readonly (readonly [what: string, bytes: Buffer, codes: readonly (number | null)[]])[] = [
    ['pings', many(300, () => ping), [CALM, null]],
    ['settings', many(300, () => settings), [CALM, null]],
    ['requests that are cancelled at once', many(2_000, reset), [CALM, null]],
    ['endless fields', endless, [CALM, constants.NGHTTP2_INTERNAL_ERROR, constants.NGHTTP2_PROTOCOL_ERROR, null]],
  ];
  const begun = (): number => Object.values(secure.edge.tally.counts).reduce((sum, { requests }) => sum + requests, 0);
  const before = begun();
  for (const [what, bytes, codes] of floods) {
    const raw = await rawSession(t, secure);
    raw.send(bytes);
    const code = await raw.over;
    t.ok(codes.includes(code), `${what}: ended with ${String(code)}`);
  }
  t.equal(lines.filter(({ reason }) => reason === 'flood').length, 3, 'each flood is counted');
  t.ok(begun() - before <= 300, 'few of the requests were answered');
  t.equal((await fetchHttp2(bystander, {})).status, 200, 'the bystander is not disturbed');

  t.equal((await fetchHttp2(bystander, { 'x-large': 'y'.repeat(5_000) })).rstCode, CALM, 'fields beyond the limit');
  t.equal((await fetchHttp2(bystander, {})).status, 200, 'end only their own stream');
  const deaf = await rawSession(t, secure);
  deaf.send(frame(FRAME.headers, 0x5, 1, Buffer.concat([GET, fieldBlock({ 'x-large': 'y'.repeat(5_000) })])));
  await deaf.came(FRAME.data);
  t.match(deaf.text(), /headers_too_large/, 'also for a client that never acknowledged the limit');
  deaf.destroy();

  secure.edge.origin.on('/v1/slow', () => {});
  const greedy = await rawSession(t, secure);
  const wait = fieldBlock({ ':method': 'GET', ':scheme': 'https', ':path': '/v1/slow', ':authority': 'a' });
  greedy.send(...Array.from({ length: 25 }, (_, index) => frame(FRAME.headers, 0x5, 2 * index + 1, wait)));
  await Promise.all([greedy.came(FRAME.reset, 5), secure.edge.origin.arrived('/v1/slow', 20)]);
  t.equal(secure.edge.origin.count('/v1/slow'), 20, 'streams beyond the limit are refused');
  t.equal((await fetchHttp2(bystander, {})).status, 200);
  greedy.destroy();
});

void t.test('HTTP/2 connections are counted by client', { skip }, async (t) => {
  const secure = await open(t, '', { limits: 'connections_per_client_max: 2' });
  const sessions = [await rawSession(t, secure), await rawSession(t, secure)];
  const { port } = new URL(secure.edge.url);
  const third = connectTls({ host: '127.0.0.1', port: Number(port), ca: secure.certificate.cert });
  const [error] = (await once(third, 'error')) as [Error];
  t.match(error.message, /disconnected|ECONNRESET|socket/, 'a third one ends before its handshake');
  for (const each of sessions) each.destroy();
});

void t.test('HTTP/2 connections end when they are idle or stalled, whatever else is sent', { skip }, async (t) => {
  const secure = await open(t, '', { limits: 'idle: 200ms, stalled: 400ms' });
  const path = `${PATH.slice(0, -1)}F`;
  secure.edge.origin.on(path, mediaScript({ bytes: randomBytes(1_000_000), headers: { 'media-id': path.slice(-26) } }));
  const first = await session(t, secure);
  t.equal((await fetchHttp2(first, { ':path': path })).status, 200);
  const [idle, slow] = [await rawSession(t, secure), await rawSession(t, secure)];
  // RFC 9113 6.9.2: a window of one byte for each stream.
  slow.send(frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.of(0, 4), uint32(1)])));
  const wide = fieldBlock({ ':method': 'GET', ':scheme': 'https', ':path': path, ':authority': 'a', ...READER });
  slow.send(...Array.from({ length: 10 }, (_, index) => frame(FRAME.headers, 0x5, 2 * index + 1, wide)));
  await slow.came(FRAME.data, 10);
  const pinging = { done: false };
  void idle.over.then(() => (pinging.done = true));
  while (!pinging.done) {
    idle.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await new Promise((later) => setTimeout(later, 20));
  }
  t.equal(await idle.over, constants.NGHTTP2_NO_ERROR, 'pings do not keep an idle session');
  await slow.over;
  t.pass('a window that never opens does not keep its streams');
});

void t.test('a changed certificate is used for new connections, and old connections go on', { skip }, async (t) => {
  const { log, lines } = testDeps();
  const secure = await open(t, '', { log });
  const { edge, certificate } = secure;
  const client = await session(t, secure);
  writeFileSync(certificate.keyFile, 'no key');
  edge.listener.renewCertificate();
  t.match(lines.at(-1), {
    msg: 'the changed certificate is refused; the current one stays',
    reason: /no private key/,
  });
  t.equal((await fetchHttps(edge.url + PATH, certificate.cert)).status, 200, 'the old one is still used');
  const renewed = selfSigned(t.testdirName, 'edge');
  edge.listener.renewCertificate();
  t.match(lines.at(-1), { msg: 'a new certificate is in use for clients' });
  t.equal((await fetchHttps(edge.url + PATH, renewed.cert)).status, 200);
  await t.rejects(fetchHttps(edge.url + PATH, certificate.cert), 'the old one is not used any more');
  t.equal((await fetchHttp2(client, {})).status, 200, 'the old connection goes on');
});

void t.test('the handshake follows the configuration', { skip }, async (t) => {
  const secure = await open(t, 'http2: false, min_version: TLSv1.3');
  const { host, port } = { host: '127.0.0.1', port: Number(new URL(secure.edge.url).port) };
  const ca = secure.certificate.cert;
  const http1 = connectTls({ host, port, ca, ALPNProtocols: ['h2', 'http/1.1'] });
  await once(http1, 'secureConnect');
  t.equal(http1.alpnProtocol, 'http/1.1');
  http1.destroy();
  const old = connectTls({ host, port, ca, maxVersion: 'TLSv1.2' });
  const [error] = (await once(old, 'error')) as [Error];
  t.match(error.message, /protocol version/);
  const plain = connectTcp(port, host);
  plain.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
  plain.on('error', () => {});
  let came = '';
  plain.on('data', (chunk: Buffer) => (came += chunk.toString('latin1')));
  await once(plain, 'close');
  t.notMatch(came, /HTTP/, 'plain HTTP is not answered');
});

void t.test('an edge that stops lets requests finish, and then ends those that remain', { skip }, async (t) => {
  const secure = await open(t);
  const { edge } = secure;
  edge.origin.on('/slow', () => {});
  const client = await session(t, secure);
  const goaway = once(client, 'goaway');
  const stuck = fetchHttp2(client, { ':path': '/slow' });
  await edge.origin.arrived('/slow');
  await edge.listener.close();
  await goaway;
  t.equal((await stuck).status, 0);
});

void t.test('unusable certificate files are faults of the configuration', { skip }, async (t) => {
  const folder = t.testdir({ 'empty.pem': '' });
  const [one, other] = [selfSigned(folder, 'one'), selfSigned(folder, 'other')];
  const cases: readonly (readonly [string | null, string | null, string | null])[] = [
    [null, null, null],
    [one.certFile, one.keyFile, null],
    [one.certFile, null, 'edge.listen.tls.key_file: is needed together with `certificate_file`'],
    [null, one.keyFile, 'edge.listen.tls.certificate_file: is needed together with `key_file`'],
    ['missing.pem', one.keyFile, 'edge.listen.tls.certificate_file: the file missing.pem cannot be read (ENOENT)'],
    [
      `${folder}/empty.pem`,
      one.keyFile,
      `edge.listen.tls.certificate_file: ${folder}/empty.pem has no certificate in PEM`,
    ],
    [
      one.certFile,
      one.certFile,
      `edge.listen.tls.key_file: ${one.certFile} has no private key in PEM that can be read`,
    ],
    [one.certFile, other.keyFile, `edge.listen.tls.key_file: ${other.keyFile} is not the key of ${one.certFile}`],
  ];
  for (const [certificate, key, fault] of cases) {
    const tls = { certificate_file: certificate, key_file: key };
    const read = parseConfig(JSON.stringify({ edge: { listen: { tls } } }), { edge: edgeSection });
    if (read.kind !== 'loaded') throw new Error('the configuration was not read');
    t.same(
      edgeFaults(read.config.edge).map(({ path, message }) => `${path}: ${message}`),
      fault === null ? [] : [fault],
    );
  }
});

void t.test(
  'an origin is trusted by its authority, its name and its dates; if not, the reason is reported',
  { skip },
  async (t) => {
    const folder = t.testdir();
    const own = selfSigned(folder, 'own');
    const stranger = selfSigned(folder, 'stranger');
    const named = selfSigned(folder, 'named', { names: 'DNS:media.internal' });
    const expired = selfSigned(folder, 'expired', { expired: true });
    const cases: readonly (readonly [what: string, TestCertificate, upstream: string, trouble: TlsTrouble | null])[] = [
      ['its own authority', own, `ca_file: "${own.certFile}"`, null],
      ['another authority', own, `ca_file: "${stranger.certFile}"`, 'untrusted'],
      ['the authorities of the system', own, '', 'untrusted'],
      ['another name than its address', named, `ca_file: "${named.certFile}"`, 'name_mismatch'],
      ['the name that is asked for', named, `ca_file: "${named.certFile}", server_name: media.internal`, null],
      [
        'not the name that is asked for',
        own,
        `ca_file: "${own.certFile}", server_name: media.internal`,
        'name_mismatch',
      ],
      ['a day too late', expired, `ca_file: "${expired.certFile}"`, 'expired'],
    ];
    for (const [what, originTls, upstream, trouble] of cases) {
      const { log, lines } = testDeps();
      const edge = await openTestEdge(`${folder}/${what}`, { originTls, upstream, log });
      t.teardown(() => edge.close());
      edge.origin.on('*', (_seen, answer) => {
        answer.head(201);
        answer.end();
      });
      edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
      const fill = await fetch(edge.url + PATH, { headers: READER });
      const pass = await fetch(`${edge.url}/v1/upload`, { method: 'POST', body: 'x', headers: READER });
      t.equal(fill.status, trouble === null ? 200 : 502, `a fill: ${what}`);
      t.equal(pass.status, trouble === null ? 201 : 502, `a pass: ${what}`);
      const journal = edge.engine.upstream.fetchOwn(
        { method: 'GET', target: PATH, headers: [] },
        AbortSignal.timeout(5_000),
      );
      if (trouble === null) (await journal).body.destroy();
      else await t.rejects(journal, `the journal: ${what}`);
      const logged = lines.filter(({ msg }) => msg === 'the origin cannot be trusted: its TLS is not accepted');
      const ready = (await (await fetch(`${edge.url}/readyz`)).json()) as Readonly<Record<string, unknown>>;
      t.equal(ready['origin_tls'] ?? null, trouble, `readyz: ${what}`);
      if (trouble === null) {
        t.same(logged, [], 'nothing is logged');
        continue;
      }
      t.match(logged, [{ trouble, level: 'error' }], 'logged once');
      t.equal(logged.length, 1);
      t.match(
        lines.find(({ msg }) => msg === 'a pass was not completed'),
        { ending: 'bad_gateway', tls: trouble },
      );
      for (const answer of [fill, pass]) t.notMatch(await answer.text(), /cert|tls|self|127\.0/i, 'nothing internal');
      t.match(ready, { status: 'not_ready', failed: ['origin'], journal: 'current' });
    }
  },
);

void t.test('each TLS error has a short name', async (t) => {
  const words: Readonly<Record<string, TlsTrouble | undefined>> = {
    UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'untrusted',
    DEPTH_ZERO_SELF_SIGNED_CERT: 'untrusted',
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'untrusted',
    INVALID_CA: 'untrusted',
    CERT_HAS_EXPIRED: 'expired',
    CERT_NOT_YET_VALID: 'not_yet_valid',
    CERT_REVOKED: 'revoked',
    ERR_TLS_CERT_ALTNAME_INVALID: 'name_mismatch',
    ERR_SSL_WRONG_VERSION_NUMBER: 'handshake',
    EPROTO: 'handshake',
    ECONNRESET: undefined,
    ECONNREFUSED: undefined,
    UND_ERR_CONNECT_TIMEOUT: undefined,
  };
  for (const [code, word] of Object.entries(words))
    t.equal(tlsTroubleOf(Object.assign(new Error(code), { code })), word, code);
});
