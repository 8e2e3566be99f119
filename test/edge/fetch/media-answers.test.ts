/** What callers of media get, and what the origin is asked for them: whole answers, without sockets. */
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import type { EdgeConfig } from '../../../edge/config.js';
import type { UpstreamFailure } from '../../../edge/upstream/request.js';
import { Fault } from '../../../src/errors.js';
import type { MediaId } from '../../../src/ids.js';
import { type DirectEdge, mediaFields, openDirectEdge, respondWith } from '../../kit/edge/direct-edge.js';
import { until } from '../../kit/until.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };
const BYTES = Buffer.from('0123456789');

async function opened(t: Test, change?: (config: EdgeConfig) => EdgeConfig): Promise<DirectEdge> {
  const edge = await openDirectEdge('media', change);
  t.teardown(() => edge.close());
  return edge;
}

function serves(edge: DirectEdge, facts: Parameters<typeof mediaFields>[1] = {}, bytes = BYTES): void {
  edge.origin = ({ method }) =>
    respondWith(edge.clock, {
      fields: mediaFields(bytes, facts),
      bytes: method === 'HEAD' ? Buffer.alloc(0) : bytes,
      sizeBytes: bytes.length,
    });
}

const refusedBy =
  (status: number, fields = {}) =>
  (edge: DirectEdge) =>
    respondWith(edge.clock, { status, fields: { 'cache-control': 'no-store', ...fields }, bytes: Buffer.from('{}') });

function refuses(edge: DirectEdge): void {
  edge.origin = () => refusedBy(401)(edge);
}

const statusOf = ({ headers }: { readonly headers: Readonly<Record<string, string>> }) => headers['cache-status'];

void t.test('the first caller gets what the origin sends, and the next one the copy', async (t) => {
  const edge = await opened(t);
  serves(edge);
  const own = {
    'content-type': 'image/png',
    etag: mediaFields(BYTES)['etag'],
    'repr-digest': mediaFields(BYTES)['repr-digest'],
    date: 'Thu, 01 Jan 2026 00:00:00 GMT',
    via: '1.1 edge',
    'content-length': '10',
    'cache-control': 'private, max-age=60',
    'x-request-id': 'request',
  };
  const first = await edge.ask(PATH, { headers: READER });
  t.strictSame(first, {
    status: 200,
    headers: { ...own, age: '0', 'cache-status': 'edge; fwd=uri-miss; fwd-status=200; ttl=3600; stored' },
    bytes: BYTES,
    outcome: 'miss',
  });
  edge.clock.advance(30_500);
  const second = await edge.ask(PATH, { headers: READER });
  t.strictSame(second, {
    status: 200,
    headers: {
      ...own,
      'cache-control': 'private, max-age=90',
      age: '30',
      'cache-status': 'edge; hit; ttl=3569; detail=memory',
    },
    bytes: BYTES,
    outcome: 'hit_memory',
  });
  t.equal(edge.sent.length, 1);
  t.strictSame(edge.sent[0]?.fields, {
    accept: '*/*',
    'accept-encoding': 'identity',
    'edge-authorization': 'v1.proof-of-the-tests',
    'x-request-id': 'request',
    via: '1.1 edge',
    'cdn-loop': 'edge',
  });
  t.same([edge.sent[0]?.method, edge.sent[0]?.target, edge.sent[0]?.client?.()], ['GET', PATH, '192.0.2.1']);
});

void t.test('the origin is asked for the whole, whatever the caller wants of it', async (t) => {
  const edge = await opened(t);
  serves(edge);
  const headers = {
    ...READER,
    range: 'bytes=2-3',
    'if-none-match': '"x"',
    accept: 'text/html',
    cookie: 'a',
    via: '1.1 b',
  };
  const got = await edge.ask(PATH, { headers });
  t.same([got.status, got.bytes.toString(), got.headers['content-range']], [206, '23', 'bytes 2-3/10']);
  t.same(Object.keys(edge.sent[0]?.fields ?? {}).sort(), [
    'accept',
    'accept-encoding',
    'cdn-loop',
    'edge-authorization',
    'via',
    'x-request-id',
  ]);
  t.equal(edge.sent[0]?.fields['via'], '1.1 edge', 'what a client says of earlier hops is dropped');
  t.equal((await edge.ask(PATH, { headers: { ...READER, 'if-none-match': '*' } })).status, 304);
  t.equal(edge.sent.length, 1);
});

void t.test('a stale copy is asked about by its validator, and served under its newer head', async (t) => {
  const edge = await opened(t);
  serves(edge);
  await edge.ask(PATH, { headers: READER });
  edge.clock.advance(3_661_000);
  edge.origin = () => respondWith(edge.clock, { status: 304, fields: mediaFields(BYTES, { maxAge: 100 }) });
  const got = await edge.ask(PATH, { headers: READER });
  t.same([got.status, got.bytes.toString(), got.outcome], [200, '0123456789', 'revalidated']);
  t.equal(statusOf(got), 'edge; fwd=stale; fwd-status=304; ttl=100; stored');
  t.equal(edge.sent[1]?.fields['if-none-match'], mediaFields(BYTES)['etag']);
  t.equal((await edge.ask(PATH, { headers: READER })).outcome, 'hit_memory');
  edge.clock.advance(100_000);
  const other = Buffer.from('other');
  edge.clock.advance(61_000);
  serves(edge, {}, other);
  t.same(
    [(await edge.ask(PATH, { headers: READER })).bytes, (await edge.ask(PATH, { headers: READER })).bytes],
    [other, other],
    'or replaced',
  );
});

void t.test('a stale copy is served at once while it may be, and one fetch brings a newer one', async (t) => {
  const edge = await opened(t);
  serves(edge);
  await edge.ask(PATH, { headers: READER });
  edge.clock.advance(3_600_000);
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  edge.origin = async () => {
    await held;
    return respondWith(edge.clock, { status: 304, fields: mediaFields(BYTES) });
  };
  for (const _ of [1, 2]) {
    const got = await edge.ask(PATH, { headers: READER });
    t.same([got.outcome, statusOf(got)], ['stale', 'edge; hit; ttl=0; detail=stale-while-revalidate']);
  }
  t.equal(edge.sent.length, 2);
  go();
  await until('the newer head', () => edge.engine.flights.underWay === 0);
  t.equal((await edge.ask(PATH, { headers: READER })).outcome, 'hit_memory');
});

const FAILURES: readonly (readonly [failure: UpstreamFailure, status: number, code: string])[] = [
  ['connect', 502, 'bad_gateway'],
  ['connect_timeout', 504, 'gateway_timeout'],
  ['tls', 502, 'bad_gateway'],
  ['head_timeout', 504, 'gateway_timeout'],
  ['silent', 504, 'gateway_timeout'],
  ['reset', 502, 'bad_gateway'],
  ['garbage', 502, 'bad_gateway'],
  ['breaker_open', 502, 'bad_gateway'],
  ['overloaded', 503, 'overloaded'],
];

void t.test(
  'an origin that fails is answered for by its kind of failure, or by a stale copy as long as it may be',
  async (t) => {
    for (const [failure, status, code] of FAILURES) {
      const edge = await opened(t);
      edge.origin = () => ({ kind: 'failed', failure });
      const got = await edge.ask(PATH, { headers: READER });
      t.same(
        [got.status, JSON.parse(got.bytes.toString()).code, got.outcome],
        [status, code, failure === 'overloaded' ? 'refused' : 'failed'],
        failure,
      );
      t.equal(statusOf(got), 'edge; fwd=uri-miss', failure);
      serves(edge);
      await edge.ask(PATH, { headers: READER });
      edge.clock.advance(3_661_000);
      edge.origin = () => ({ kind: 'failed', failure });
      const stale = await edge.ask(PATH, { headers: READER });
      t.same([stale.status, stale.outcome, stale.bytes], [200, 'stale', BYTES], failure);
      t.equal(statusOf(stale), 'edge; hit; ttl=-61; detail=stale-if-error', failure);
      edge.clock.advance(539_000);
      t.equal((await edge.ask(PATH, { headers: READER })).status, status, `${failure}, after 600 seconds`);
    }
  },
);

void t.test('an error of the origin is not shown where a stale copy may be, and any other answer is', async (t) => {
  for (const status of [500, 502, 503, 504]) {
    const edge = await opened(t);
    serves(edge);
    await edge.ask(PATH, { headers: READER });
    edge.clock.advance(3_661_000);
    edge.origin = () => refusedBy(status)(edge);
    const got = await edge.ask(PATH, { headers: READER });
    t.same([got.status, statusOf(got)], [200, 'edge; hit; ttl=-61; detail=stale-if-error'], `${status}`);
    t.equal(edge.cache.stats().memory.entries, 1, 'the copy stays');
    edge.lease = 'revalidate';
    t.equal((await edge.ask(PATH, { headers: READER })).status, status, 'not without the lease');
  }
  for (const [status, stays] of [
    [410, false],
    [404, false],
    [403, false],
    [501, false],
    [408, true],
    [429, true],
  ] as const) {
    const edge = await opened(t);
    serves(edge);
    await edge.ask(PATH, { headers: READER });
    edge.clock.advance(3_661_000);
    edge.origin = () => refusedBy(status)(edge);
    t.equal((await edge.ask(PATH, { headers: READER })).status, status);
    t.equal(edge.cache.stats().memory.entries, stays ? 1 : 0, `${status}`);
  }
});

void t.test('a copy is not served while the lease does not allow it, and the origin is asked about it', async (t) => {
  const edge = await opened(t);
  serves(edge);
  await edge.ask(PATH, { headers: READER });
  edge.lease = 'revalidate';
  edge.origin = () => respondWith(edge.clock, { status: 304, fields: mediaFields(BYTES) });
  const got = await edge.ask(PATH, { headers: READER });
  t.same(
    [got.outcome, statusOf(got)],
    ['revalidated', 'edge; fwd=stale; fwd-status=304; ttl=3600; stored; detail=lease'],
  );
  edge.lease = 'refuse';
  const cut = await edge.ask(PATH, { headers: READER });
  t.same(
    [cut.status, cut.outcome, cut.headers['retry-after'], JSON.parse(cut.bytes.toString()).code],
    [503, 'refused', '1', 'cut_off'],
  );
  t.equal(edge.sent.length, 2);
  t.equal(await edge.sample('edge_refusals_total{reason="cut_off"}'), 1);
});

void t.test('a caller without a credential gets public media, and the same refusal for all others', async (t) => {
  const edge = await opened(t);
  serves(edge, { public: true });
  const open = await edge.ask(PATH);
  t.same([open.status, open.bytes], [200, BYTES]);
  t.equal(edge.sent[0]?.fields['media-caller'], 'anonymous');
  t.equal((await edge.ask(PATH)).outcome, 'hit_memory');
  t.equal((await edge.ask(PATH, { headers: READER })).outcome, 'hit_memory', 'those with one share the copy');

  const answers: string[] = [];
  for (const [what, prepare] of [
    ['private, and the origin says so', refuses],
    ['private, sent all the same', (edge: DirectEdge) => serves(edge)],
    ['unknown', refuses],
  ] as const) {
    const own = await opened(t);
    prepare(own);
    for (const asked of [1, 1]) {
      const got = await own.ask(PATH);
      answers.push(
        JSON.stringify([
          got.status,
          got.bytes.toString(),
          got.headers['www-authenticate'],
          got.headers['cache-status'],
        ]),
      );
      t.equal(got.status, 401, what);
      t.equal(own.sent.length, asked, `${what}: the second refusal does not ask the origin`);
    }
  }
  const stored = await opened(t);
  serves(stored);
  await stored.ask(PATH, { headers: READER });
  const got = await stored.ask(PATH);
  answers.push(
    JSON.stringify([got.status, got.bytes.toString(), got.headers['www-authenticate'], got.headers['cache-status']]),
  );
  t.equal(stored.sent.length, 1, 'a private copy says enough');
  t.equal(new Set(answers).size, 1, 'all of them are the same');
});

void t.test('a private copy that is stale says nothing any more, and the origin is asked', async (t) => {
  const edge = await opened(t);
  serves(edge);
  await edge.ask(PATH, { headers: READER });
  edge.clock.advance(3_600_000);
  serves(edge, { public: true });
  t.equal((await edge.ask(PATH)).status, 200);
  edge.engine.absences.remember(ID, 'closed');
  edge.lease = 'revalidate';
  t.equal((await edge.ask(PATH)).status, 200, 'nor does what was remembered, without the lease');
});

void t.test('an id that the origin does not know is remembered for those with a credential', async (t) => {
  const edge = await opened(t);
  edge.origin = () => refusedBy(404)(edge);
  t.equal((await edge.ask(PATH, { headers: READER })).status, 404);
  const known = await edge.ask(PATH, { headers: READER });
  t.same(
    [known.status, statusOf(known), JSON.parse(known.bytes.toString()).code],
    [404, 'edge; hit; detail=absent', 'not_found'],
  );
  t.equal(await edge.sample('edge_refusals_total{reason="absent"}'), 1);
  t.equal(edge.sent.length, 1);
  edge.clock.advance(5_000);
  await edge.ask(PATH, { headers: READER });
  t.equal(edge.sent.length, 2, 'for five seconds');
});

void t.test('what the origin refuses to the edge itself is a failure of the edge, and is logged', async (t) => {
  const edge = await opened(t);
  edge.origin = () => refusedBy(401)(edge);
  const got = await edge.ask(PATH, { headers: READER });
  t.same([got.status, JSON.parse(got.bytes.toString()).code], [502, 'bad_gateway']);
  t.ok(edge.lines.some(({ level, msg }) => level === 'error' && String(msg).includes('does not accept this edge')));
});

void t.test(
  'a credential that is good for uploads, or cannot be checked, is refused before anything is looked at',
  async (t) => {
    const edge = await opened(t);
    serves(edge, { public: true });
    for (const [token, status] of [
      ['uploader', 403],
      ['unknown', 503],
    ] as const) {
      const got = await edge.ask(PATH, { headers: { authorization: `Bearer ${token}` } });
      t.same([got.status, got.outcome], [status, 'refused']);
    }
    t.equal(edge.sent.length, 0);
    const link = await edge.ask(`${PATH}?exp=1767225600&sig=good`);
    t.equal(link.status, 200);
    t.match(link.headers['cache-control'], /max-age=0/, 'a link that has ended is good for now alone');
  },
);

void t.test('an edge behind this one gets the fields between caches, and the caller that it names', async (t) => {
  const edge = await opened(t);
  const behind = { 'edge-authorization': 'v1.proof-of-the-tests' };
  serves(edge);
  const got = await edge.ask(PATH, { headers: { ...behind, via: '1.1 far', 'cdn-loop': 'far', cookie: 'x' } });
  t.match(got.headers['cdn-cache-control'], /max-age=3600/);
  t.same([edge.sent[0]?.fields['via'], edge.sent[0]?.fields['cdn-loop']], ['1.1 far, 1.1 edge', 'far, edge']);
  t.equal(edge.sent[0]?.fields['cookie'], undefined);
  const anonymous = await edge.ask(PATH, { headers: { ...behind, 'media-caller': 'anonymous' } });
  t.equal(anonymous.status, 401);
  edge.admit = () => {
    throw new Fault('rate_limited', 'too often');
  };
  edge.clock.advance(4_000_000);
  t.equal((await edge.ask(PATH, { headers: behind })).status, 200, 'it has counted its clients itself');
  const thumb = await edge.ask(`${PATH}/thumb`, { headers: behind });
  t.equal(thumb.status, 503, 'what would be passed on needs the credential of its sender');
  t.equal((await edge.answer('/internal/v1/journal', { headers: behind })).kind, 'of_edge');
  t.equal((await edge.ask('/internal/v1/journal', { headers: READER })).status, 404);
  t.equal((await edge.ask('/internal/v1/other', { headers: behind })).status, 404);
});

void t.test('a client at its limit is refused what the origin would be asked for, and gets every hit', async (t) => {
  const edge = await opened(t);
  serves(edge);
  await edge.ask(PATH, { headers: READER });
  const asked: unknown[] = [];
  edge.admit = (client) => {
    asked.push(client);
    throw new Fault('rate_limited', 'too often', { headers: { 'retry-after': '3' } });
  };
  t.equal((await edge.ask(PATH, { headers: READER })).status, 200);
  t.same(asked, []);
  const other = '/v1/media/01J9ZC8GZ0000000000000000B';
  const got = await edge.ask(other, { headers: READER });
  t.same([got.status, got.headers['retry-after'], got.outcome], [429, '3', 'refused']);
  t.same(asked, [{ address: '192.0.2.1', subject: 'tests' }]);
  edge.clock.advance(3_700_000);
  t.equal((await edge.ask(PATH, { headers: READER })).status, 429, 'to ask about a copy counts too');
  await edge.ask(other);
  t.same(asked.at(-1), { address: '192.0.2.1', subject: undefined });
  t.equal(edge.sent.length, 1);
});

void t.test('only-if-cached asks the origin for nothing', async (t) => {
  const edge = await opened(t);
  serves(edge);
  const headers = { ...READER, 'cache-control': 'only-if-cached' };
  const got = await edge.ask(PATH, { headers });
  t.same([got.status, JSON.parse(got.bytes.toString()).code], [504, 'gateway_timeout']);
  t.equal(
    (await edge.ask(PATH, { headers: { 'cache-control': 'only-if-cached' } })).status,
    401,
    'nor tells what is stored',
  );
  t.equal(edge.sent.length, 0);
  await edge.ask(PATH, { headers: READER });
  t.equal((await edge.ask(PATH, { headers })).status, 200);
});

void t.test('a request that has been here before is refused', async (t) => {
  const edge = await opened(t);
  serves(edge);
  const behind = { 'edge-authorization': 'v1.proof-of-the-tests' };
  for (const fields of [{ via: '1.1 other, 1.1 edge' }, { 'cdn-loop': 'edge' }]) {
    const got = await edge.ask(PATH, { headers: { ...behind, ...fields } });
    t.same([got.status, JSON.parse(got.bytes.toString()).code], [421, 'misdirected']);
  }
  t.equal(edge.sent.length, 0);
  t.equal(await edge.sample('edge_refusals_total{reason="loop"}'), 2);
});

void t.test('targets that are no media are passed on, hidden or refused', async (t) => {
  const edge = await opened(t);
  const kinds: readonly (readonly [method: string, target: string, wanted: unknown])[] = [
    ['GET', '/v1/uploads/x', 'pass'],
    ['POST', '/v1/media', 'pass'],
    ['OPTIONS', PATH, 'pass'],
    ['GET', `${PATH}/thumb`, 'pass'],
    ['GET', '/v1/media/short', 400],
    ['GET', '/internal/x', 404],
    ['POST', '/internal/v1/journal/confirm', 404],
  ];
  for (const [method, target, wanted] of kinds) {
    const answer = await edge.answer(target, { method, headers: READER });
    t.equal(answer.kind === 'reply' ? answer.reply.status : answer.kind, wanted, `${method} ${target}`);
  }
  const sender = async (method: string, headers: Readonly<Record<string, string>>) => {
    const answer = await edge.answer('/v1/media', { method, headers });
    return answer.kind === 'pass'
      ? [answer.sender.subject, answer.sender.admin, answer.sender.refuseBody?.().status]
      : answer.kind;
  };
  t.same(await sender('POST', READER), ['tests', false, undefined]);
  t.same(await sender('POST', {}), [undefined, false, 401], 'a body needs a credential');
  t.same(await sender('POST', { authorization: 'Bearer unknown' }), [undefined, false, undefined]);
  t.same(await sender('OPTIONS', {}), [undefined, false, undefined], 'a read needs none here');
});

void t.test('a shared path has one response, whatever its query', async (t) => {
  const edge = await opened(t);
  edge.origin = () => respondWith(edge.clock, { fields: { 'cache-control': 'max-age=60' }, bytes: BYTES });
  await edge.ask('/.well-known?a');
  t.equal((await edge.ask('/.well-known?b')).outcome, 'hit_memory');
  t.equal(edge.sent[0]?.target, '/.well-known');
  t.equal(edge.sent[0]?.fields['edge-authorization'], undefined, 'the edge proves itself for media alone');
});

void t.test(
  'HEAD is answered from the copy, or by the head that all share, and the body is fetched behind it',
  async (t) => {
    const edge = await opened(t);
    serves(edge);
    const head = await edge.ask(PATH, { method: 'HEAD', headers: READER });
    t.same([head.status, head.bytes.length, head.headers['content-length']], [200, 0, '10']);
    t.equal(statusOf(head), 'edge; fwd=uri-miss; fwd-status=200; ttl=3600');
    await until('its body', () => edge.engine.flights.underWay === 0);
    t.same(
      edge.sent.map(({ method }) => method),
      ['HEAD', 'GET'],
    );
    t.equal((await edge.ask(PATH, { method: 'HEAD', headers: READER })).outcome, 'hit_memory');
    t.equal(await edge.sample('edge_warm_bodies_total{outcome="kept"}'), 1);
    t.equal(await edge.sample('edge_warm_used_total'), 0, 'a HEAD uses no body');
    await edge.ask(PATH, { headers: READER });
    t.equal(await edge.sample('edge_warm_used_total'), 1);
  },
);

void t.test(
  'a HEAD that shows another representation makes the copy invalid, and one of the same renews it',
  async (t) => {
    const edge = await opened(t);
    serves(edge);
    await edge.ask(PATH, { headers: READER });
    edge.lease = 'revalidate';
    edge.clock.advance(1_000_000);
    const same = await edge.ask(PATH, { method: 'HEAD', headers: READER });
    t.same([same.status, statusOf(same)], [200, 'edge; fwd=stale; fwd-status=200; ttl=3600; detail=lease']);
    t.equal(await edge.sample('edge_revalidations_total{outcome="unchanged"}'), 1);
    edge.lease = 'yes';
    edge.clock.advance(3_000_000);
    t.equal((await edge.ask(PATH, { headers: READER })).outcome, 'hit_memory', 'it is as young as that head');
    edge.lease = 'revalidate';
    serves(edge, {}, Buffer.from('another one'));
    await edge.ask(PATH, { method: 'HEAD', headers: READER });
    t.equal(await edge.sample('edge_revalidations_total{outcome="changed"}'), 1);
    t.equal(edge.cache.stats().memory.entries, 0);
  },
);

void t.test('what may not be stored is still shared by all who wait, if it is small', async (t) => {
  const edge = await opened(t);
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  edge.origin = async () => {
    await held;
    return respondWith(edge.clock, { status: 403, fields: { 'cache-control': 'no-store', x: 'y' }, bytes: BYTES });
  };
  const all = [1, 2, 3].map(() => edge.ask(PATH, { headers: READER }));
  await until('the fetch', () => edge.sent.length === 1);
  go();
  const got = await Promise.all(all);
  for (const each of got) t.same([each.status, each.bytes, each.headers['x'], each.outcome], [403, BYTES, 'y', 'miss']);
  t.same(got.map(statusOf), [
    'edge; fwd=uri-miss; fwd-status=403',
    ...Array.from({ length: 2 }, () => 'edge; fwd=uri-miss; fwd-status=403; collapsed'),
  ]);
  t.equal(edge.sent.length, 1);
  t.equal(await edge.sample('edge_shared_requests_total{kind="waiting"}'), 2);
  t.equal(
    (await edge.sample('edge_not_stored_total{reason="no_store"}')) +
      (await edge.sample('edge_not_stored_total{reason="status"}')),
    1,
  );
});

void t.test('a body that is wrong is complete for nobody and not stored', async (t) => {
  for (const [what, bytes, outcome] of [
    ['other bytes', Buffer.from('9876543210'), 'corrupt'],
    ['too few', BYTES.subarray(1), 'corrupt'],
    ['broken off', null, 'aborted'],
  ] as const) {
    const edge = await opened(t);
    const broken = async function* () {
      yield BYTES.subarray(0, 3);
      throw new Error('reset');
    };
    edge.origin = () =>
      respondWith(edge.clock, {
        fields: mediaFields(BYTES),
        sizeBytes: 10,
        body:
          bytes === null
            ? Readable.from(broken(), { objectMode: false })
            : Readable.from([bytes], { objectMode: false }),
      });
    await t.rejects(edge.ask(PATH, { headers: READER }), { name: 'BodyLost' }, what);
    t.equal(edge.cache.stats().memory.entries, 0, what);
    t.equal(await edge.sample(`edge_fills_total{outcome="${outcome}"}`), 1, what);
    t.equal(edge.engine.flights.underWay, 0, what);
  }
});
