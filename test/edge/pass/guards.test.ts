/** How a passed request and its answer look on the other side of the edge: tables of the rules, and nothing else on the wire. */
import t from 'tap';
import {
  answerHeaders,
  connectionField,
  forwardedHeaders,
  framingOf,
  hopsLeft,
  invalidates,
  mayRepeat,
  type PassFacts,
  type RequestHead,
} from '../../../edge/pass/guards.js';
import { INTERNAL_FIELDS } from '../../../src/wire.js';

const FACTS: PassFacts = {
  mode: 'media',
  requestId: 'r',
  clientAddress: '192.0.2.1',
  scheme: 'http',
  edgeName: 'edge',
};
const HOST = 'origin:8';

const headOf = (over: Partial<RequestHead> = {}): RequestHead => ({
  method: 'POST',
  target: '/',
  host: undefined,
  headers: {},
  httpVersion: '1.1',
  endsAtHead: false,
  ...over,
});

/** What the edge itself says in every request. */
const OWN = {
  via: '1.1 edge',
  'cdn-loop': 'edge',
  host: 'origin:8',
  'x-request-id': 'r',
  'x-forwarded-for': '192.0.2.1',
  'x-forwarded-proto': 'http',
};

void t.test('a body is framed as the client framed it', (t) => {
  const cases: readonly (readonly [given: Partial<RequestHead>, framing: object])[] = [
    [{}, { kind: 'none' }],
    [{ headers: { 'content-length': '1' } }, { kind: 'length', sizeBytes: 1 }],
    [{ headers: { 'content-length': '1', 'transfer-encoding': 'chunked' } }, { kind: 'chunked' }],
    [{ httpVersion: '1.0' }, { kind: 'none' }],
    [{ httpVersion: '1.1', endsAtHead: true }, { kind: 'none' }],
    [{ httpVersion: '2.0' }, { kind: 'chunked' }],
    [{ httpVersion: '2.0', endsAtHead: true }, { kind: 'none' }],
    [{ httpVersion: '2.0', headers: { 'content-length': '0' } }, { kind: 'none' }],
  ];
  for (const [given, framing] of cases) t.strictSame(framingOf(headOf(given)), framing, JSON.stringify(given));
  t.end();
});

void t.test('the origin gets the fields of the client, those of the edge, and the framing made anew', (t) => {
  const forwarded = (head: Partial<RequestHead>, facts: Partial<PassFacts> = {}, framing = framingOf(headOf(head))) =>
    forwardedHeaders(headOf(head), framing, { ...FACTS, ...facts }, HOST);
  t.strictSame(forwarded({ method: 'DELETE' }), OWN);
  t.strictSame(forwarded({ host: 'shown' }), { ...OWN, 'x-forwarded-host': 'shown', 'content-length': '0' });
  t.strictSame(forwarded({}, { scheme: 'https' }), { ...OWN, 'x-forwarded-proto': 'https', 'content-length': '0' });
  for (const method of ['POST', 'PUT', 'PATCH']) {
    t.strictSame(forwarded({ method }), { ...OWN, 'content-length': '0' }, `${method} states that it has no content`);
  }
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'PROPFIND'])
    t.strictSame(forwarded({ method }), OWN, method);
  t.strictSame(forwarded({ headers: { 'content-length': '012' } }), { ...OWN, 'content-length': '12' });
  t.strictSame(forwarded({ headers: { 'transfer-encoding': 'chunked' } }), { ...OWN, 'transfer-encoding': 'chunked' });
  t.strictSame(forwarded({ httpVersion: '1.0' }), { ...OWN, via: '1.0 edge', 'content-length': '0' });
  t.strictSame(forwarded({ httpVersion: '3.0' }), { ...OWN, via: '1.1 edge', 'content-length': '0' });
  const kept = { authorization: 'Bearer x', 'content-type': 'image/png', 'tus-resumable': '1.0.0' };
  t.strictSame(forwarded({ method: 'DELETE', headers: kept }), { ...OWN, ...kept });
  t.strictSame(
    forwarded({ method: 'DELETE', headers: { via: '1.0 a', 'cdn-loop': 'a', 'set-cookie': ['1', '2'], x: undefined } }),
    { ...OWN, via: '1.0 a, 1.1 edge', 'cdn-loop': 'a, edge', 'set-cookie': '1, 2' },
  );
  t.end();
});

void t.test('nothing that belongs to one connection, or that the edge says itself, is taken from a client', (t) => {
  const dropped: Record<string, string> = {
    connection: 'close, x-hop',
    'x-hop': '1',
    'keep-alive': 'timeout=5',
    te: 'trailers',
    trailer: 'x',
    upgrade: 'h2c',
    'proxy-authorization': 'Basic x',
    expect: '100-continue',
    host: 'client',
    'x-forwarded-for': '203.0.113.9',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'other',
    forwarded: 'for=203.0.113.9',
    'x-real-ip': '203.0.113.9',
    'x-http-method-override': 'DELETE',
    ':path': '/',
    ':authority': 'a',
  };
  for (const name of INTERNAL_FIELDS) dropped[name] = 'forged';
  t.strictSame(forwardedHeaders(headOf({ method: 'DELETE', headers: dropped }), { kind: 'none' }, FACTS, HOST), OWN);
  t.end();
});

void t.test('a method override goes to a resumable upload alone, and names one of its methods', (t) => {
  const upload = '/v1/uploads/01ABC';
  const passes = (over: Partial<RequestHead>, value = 'PATCH', mode: PassFacts['mode'] = 'media'): boolean => {
    const head = headOf({ target: upload, headers: { 'x-http-method-override': value }, ...over });
    return forwardedHeaders(head, { kind: 'none' }, { ...FACTS, mode }, HOST)['x-http-method-override'] === value;
  };
  for (const method of ['HEAD', 'PATCH', 'DELETE']) t.ok(passes({}, method), method);
  for (const method of ['GET', 'POST', 'patch', 'PATCHED', 'A DELETE', '']) t.notOk(passes({}, method), method);
  t.notOk(passes({}, 'PATCH', 'off'), 'another origin');
  for (const method of ['GET', 'PUT', 'PATCH']) t.notOk(passes({ method }), `as ${method}`);
  for (const target of [
    '/v1/uploads',
    '/v1/uploads/',
    '/v1/uploads/a/b',
    '/v1/uploads/a?x',
    '/x/v1/uploads/a',
    '/v1/media/a',
  ])
    t.notOk(passes({ target }), target);
  t.end();
});

const answered = (
  fields: readonly string[],
  over: { status?: number; head?: Partial<RequestHead>; mode?: 'off'; last?: boolean } = {},
) =>
  answerHeaders(
    fields,
    over.status ?? 200,
    headOf(over.head),
    { ...FACTS, mode: over.mode ?? 'media' },
    over.last ?? false,
  );

void t.test('the client gets the fields of the origin, the way that the answer took, and why', (t) => {
  const tail = (status: string) => [
    ['via', '1.1 edge'],
    ['x-request-id', 'r'],
    ['cache-status', status],
  ];
  t.strictSame(answered([]), tail('edge; fwd=method; fwd-status=200'));
  t.strictSame(answered([], { status: 404 }), tail('edge; fwd=method; fwd-status=404'));
  for (const method of ['GET', 'HEAD'])
    t.strictSame(answered([], { head: { method } }), tail('edge; fwd=bypass; fwd-status=200'), method);
  t.strictSame(answered([], { last: true }), [...tail('edge; fwd=method; fwd-status=200'), ['connection', 'close']]);
  t.strictSame(answered(['Content-Type', 'a/b', 'X', '1', 'X', '2']), [
    ['content-type', 'a/b'],
    ['x', '1'],
    ['x', '2'],
    ...tail('edge; fwd=method; fwd-status=200'),
  ]);
  t.end();
});

void t.test('fields for edges alone reach no client of media, and other caches get what is for them', (t) => {
  const fields = [...INTERNAL_FIELDS, 'Cdn-Cache-Control', 'Connection', 'Keep-Alive'].flatMap((name) => [name, 'x']);
  const names = (list: readonly (readonly [string, string])[]): readonly string[] => list.map(([name]) => name);
  t.same(names(answered(fields)), ['via', 'x-request-id', 'cache-status']);
  t.same(names(answered(fields, { mode: 'off' })), ['cdn-cache-control', 'via', 'x-request-id', 'cache-status']);
  t.equal(
    answered(['Cache-Status', 'before; hit'], { mode: 'off' }).at(-1)?.[1],
    'before; hit, edge; fwd=method; fwd-status=200',
    'each cache on the way says its part',
  );
  t.end();
});

void t.test('only the last answer of a connection of HTTP/1 says so', (t) => {
  t.strictSame(connectionField({ httpVersion: '1.1' }, true), [['connection', 'close']]);
  t.strictSame(connectionField({ httpVersion: '1.0' }, true), [['connection', 'close']]);
  t.strictSame(connectionField({ httpVersion: '1.1' }, false), []);
  t.strictSame(connectionField({ httpVersion: '2.0' }, true), []);
  t.end();
});

void t.test('what may be repeated, what invalidates, and how far a request goes', (t) => {
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'PUT', 'TRACE']) {
    t.equal(mayRepeat(method, { kind: 'none' }), true, method);
    t.equal(mayRepeat(method, { kind: 'length', sizeBytes: 1 }), false, `${method} with a body`);
    t.equal(mayRepeat(method, { kind: 'chunked' }), false, `${method} with a body`);
  }
  for (const method of ['POST', 'PATCH', 'get', 'CONNECT']) t.equal(mayRepeat(method, { kind: 'none' }), false, method);
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE']) t.equal(invalidates(method, 200), false, method);
  for (const method of ['PUT', 'POST', 'DELETE', 'PATCH', 'LOCK']) {
    t.same(
      [199, 200, 399, 400].map((status) => invalidates(method, status)),
      [false, true, true, false],
      method,
    );
  }
  for (const method of ['OPTIONS', 'TRACE']) {
    t.strictSame(hopsLeft(method, '0'), { kind: 'final' });
    t.strictSame(hopsLeft(method, '1'), { kind: 'left', hops: 0 });
    t.strictSame(hopsLeft(method, '999999999'), { kind: 'left', hops: 999_999_998 });
    for (const none of [undefined, '', '1234567890', '1 ', 'a', '0x1'])
      t.strictSame(hopsLeft(method, none), { kind: 'unlimited' });
  }
  t.strictSame(hopsLeft('DELETE', '0'), { kind: 'unlimited' });
  t.end();
});
