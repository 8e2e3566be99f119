/** Which fields each kind of answer has, and which it must not have; what its body is; when a body is opened. */
import { Readable } from 'node:stream';
import t from 'tap';
import type { Body } from '../../../edge/cache/cache.js';
import type { Entry } from '../../../edge/entry.js';
import type { EdgeRequest } from '../../../edge/request.js';
import { cacheStatusOf, type Handling, joinCacheStatus } from '../../../edge/respond/cache-status.js';
import {
  type CachedResponse,
  type RespondRules,
  refusalReply,
  relay,
  respond,
  type Sending,
  spansAnswered,
} from '../../../edge/respond/respond.js';
import { Fault } from '../../../src/errors.js';
import type { ByteSpan } from '../../../src/http/range.js';
import { type HeaderList, linesOf, type Reply } from '../../../src/http/reply.js';
import { entryOf, mediaIdOf, NEVER, readAll } from '../../kit/edge/cache.js';

const BYTES = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz');
const NOW = Date.UTC(2026, 0, 1, 12);
const MODIFIED = 'Thu, 01 Jan 2026 10:00:00 GMT';
const DATE = 'Thu, 01 Jan 2026 11:59:00 GMT';
const RULES: RespondRules = { rangesMax: 3, edgeName: 'edge-1', to: 'client', newBoundary: () => 'boundary' };
const SENDING: Sending = { cacheStatus: 'edge-1; hit', endsAt: Number.POSITIVE_INFINITY, now: NOW };

/** Every field of a stored response that some kind of answer treats in its own way. */
const FIELDS: HeaderList = [
  ['content-type', 'image/png'],
  ['etag', '"tag"'],
  ['last-modified', MODIFIED],
  ['date', DATE],
  ['cache-control', 'public, max-age=60'],
  ['cdn-cache-control', 'max-age=9999'],
  ['age', '7'],
  ['content-length', '36'],
  ['content-digest', 'sha-256=:AA==:'],
  ['content-md5', 'AA=='],
  ['repr-digest', 'sha-256=:BB==:'],
  ['content-disposition', 'inline'],
  ['content-language', 'en'],
  ['content-encoding', 'gzip'],
  ['content-range', 'bytes 0-1/2'],
  ['media-id', '01ARZ3NDEKTSV4RRFF00000001'],
  ['media-caller', 'anonymous'],
  ['edge-authorization', 'proof'],
  ['x-request-id', 'of-the-origin'],
  ['vary', 'accept'],
  ['sunset', 'Fri, 02 Jan 2026 12:00:00 GMT'],
  ['x-own', 'kept'],
];
const HIDDEN = [
  'age',
  'cdn-cache-control',
  'content-length',
  'media-id',
  'media-caller',
  'edge-authorization',
  'x-request-id',
];
const VIA = ['via', '1.1 edge-1'] as const;
/** 60 s since its Date, and 60 s of the client's own. */
const OWN: HeaderList = [
  ['age', '60'],
  ['cache-status', 'edge-1; hit'],
  ['x-request-id', 'a-request'],
  ['cache-control', 'public, max-age=120'],
];

const without = (...names: readonly string[]): HeaderList => FIELDS.filter(([name]) => !names.includes(name));

function mediaEntry(changes: Partial<Entry> = {}): Entry {
  const instants = { requestedAt: NOW - 60_000, receivedAt: NOW - 60_000, bornAt: NOW - 60_000 };
  return entryOf('/m', BYTES, { mediaId: mediaIdOf(1), headers: FIELDS, ...instants, ...changes });
}

function request(fields: Readonly<Record<string, string>> = {}, method = 'GET'): EdgeRequest {
  return {
    method,
    target: '/m',
    path: '/m',
    query: '',
    header: (name) => fields[name],
    fields: () => Object.entries(fields),
    sender: () => ({ address: '192.0.2.1', scheme: 'http' }),
    requestId: 'a-request',
  };
}

interface WatchedBody extends Body {
  readonly opened: { readonly span: ByteSpan | undefined; readonly signal: AbortSignal }[];
}

/** A body that is not in memory, or is. */
function body(bytes: Buffer, sizeBytes: number | null = bytes.length, whole?: Buffer): WatchedBody {
  const opened: { readonly span: ByteSpan | undefined; readonly signal: AbortSignal }[] = [];
  return {
    sizeBytes,
    whole,
    opened,
    ensure: async () => 'ready',
    open(span, signal) {
      opened.push({ span, signal });
      const piece = span === undefined ? bytes : bytes.subarray(span.first, span.last + 1);
      return Readable.from([piece], { signal });
    },
  };
}

const inMemory = (): WatchedBody => body(BYTES, BYTES.length, BYTES);

async function bytesOfReply(reply: Reply): Promise<string | null> {
  if (reply.body.kind === 'none') return null;
  if (reply.body.kind === 'bytes') return Buffer.from(reply.body.bytes).toString();
  return (await readAll(await reply.body.open(NEVER))).toString();
}

const sorted = (lines: HeaderList): HeaderList => [...lines].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
const answer = (asked: EdgeRequest, response: Partial<CachedResponse> = {}, sending: Partial<Sending> = {}): Reply =>
  respond(asked, { entry: mediaEntry(), body: inMemory(), ...response }, { ...SENDING, ...sending }, RULES);

void t.test('each kind of answer has exactly its fields', async (t) => {
  const whole = [...without(...HIDDEN, 'cache-control'), VIA, ['content-length', '36'], ...OWN] as const;
  const ofTheWhole = ['content-type', 'content-range', 'content-digest', 'content-md5'];
  const partial = without(...HIDDEN, ...ofTheWhole, 'cache-control');
  const ofTheBody = [
    'content-type',
    'content-encoding',
    'content-language',
    'content-range',
    'content-digest',
    'content-md5',
    'content-disposition',
    'repr-digest',
  ];
  const notModified = [...without(...HIDDEN, ...ofTheBody, 'cache-control'), VIA, ...OWN] as const;
  const single = (range: string, length: string): HeaderList => [
    ...partial,
    VIA,
    ['content-type', 'image/png'],
    ['content-range', range],
    ['content-length', length],
    ...OWN,
  ];
  const several =
    '--boundary\r\nContent-Type: image/png\r\nContent-Range: bytes 0-1/36\r\n\r\n01' +
    '\r\n--boundary\r\nContent-Type: image/png\r\nContent-Range: bytes 10-11/36\r\n\r\nab\r\n--boundary--\r\n';
  const rows: readonly (readonly [
    what: string,
    asked: EdgeRequest,
    status: number,
    fields: HeaderList,
    sent: string | null,
  ])[] = [
    ['the whole', request(), 200, whole, BYTES.toString()],
    ['a range', request({ range: 'bytes=2-4' }), 206, single('bytes 2-4/36', '3'), '234'],
    ['a suffix', request({ range: 'bytes=-2' }), 206, single('bytes 34-35/36', '2'), 'yz'],
    [
      'two ranges',
      request({ range: 'bytes=0-1, 10-11' }),
      206,
      [
        ...partial,
        VIA,
        ['content-type', 'multipart/byteranges; boundary=boundary'],
        ['content-length', String(several.length)],
        ...OWN,
      ],
      several,
    ],
    ['more ranges than are allowed', request({ range: 'bytes=0-1,4-5,8-9,12-13' }), 200, whole, BYTES.toString()],
    ['an entity tag that it has', request({ 'if-none-match': '"tag"' }), 304, notModified, null],
    ['a date since which nothing changed', request({ 'if-modified-since': MODIFIED }), 304, notModified, null],
    ['a condition comes before a range', request({ 'if-none-match': '*', range: 'bytes=99-' }), 304, notModified, null],
    [
      'If-Range with another entity tag',
      request({ range: 'bytes=0-1', 'if-range': '"x"' }),
      200,
      whole,
      BYTES.toString(),
    ],
  ];
  for (const [what, asked, status, fields, sent] of rows) {
    for (const stored of [inMemory(), body(BYTES)]) {
      const reply = answer(asked, { body: stored });
      const kind = stored.whole === undefined ? 'on disk' : 'in memory';
      t.equal(reply.status, status, `${what}, ${kind}`);
      t.same(sorted(linesOf(reply)), sorted(fields), `${what}, ${kind}`);
      const inOneWrite = status !== 304 && what !== 'two ranges' && stored.whole !== undefined;
      t.equal(reply.body.kind === 'bytes', inOneWrite, `${what}, ${kind}`);
      t.equal(stored.opened.length, 0, `${what}, ${kind}: nothing is opened before it is sent`);
      t.equal(await bytesOfReply(reply), sent, `${what}, ${kind}`);
    }
  }
});

void t.test(
  'an edge behind this one gets what the origin says, and another cache the fields between caches',
  async (t) => {
    const names = (lines: HeaderList): HeaderList => sorted(lines);
    const added: HeaderList = [VIA, ['content-length', '36'], ...OWN.filter(([name]) => name !== 'cache-control')];
    const entry = mediaEntry();
    const linesTo = (to: RespondRules['to'], stored: Entry): HeaderList =>
      names(linesOf(respond(request(), { entry: stored, body: inMemory() }, SENDING, { ...RULES, to })));
    const toEdge = without(...HIDDEN.filter((name) => name !== 'media-id' && name !== 'cdn-cache-control'));
    t.same(linesTo('edge', entry), names([...toEdge, ...added]), 'it computes the client’s lifetime itself');
    const generic = mediaEntry({ mediaId: null });
    const toCache = without(...HIDDEN.filter((name) => name !== 'cdn-cache-control'));
    t.same(linesTo('cache', generic), names([...toCache, ...added]));
    t.same(
      linesTo('client', entry),
      names([...without(...HIDDEN, 'cache-control'), ...added, ['cache-control', 'public, max-age=120']]),
      'whoever asked before',
    );
  },
);

void t.test('answers from one entry share their field lines, so that these are written once', async (t) => {
  const entry = mediaEntry();
  const leading = (fields: Readonly<Record<string, string>>, of = entry, sending: Partial<Sending> = {}) =>
    respond(request(fields), { entry: of, body: body(BYTES) }, { ...SENDING, ...sending }, RULES).leading;
  for (const fields of [{}, { range: 'bytes=0-1' }, { 'if-none-match': '*' }]) {
    leading(fields);
    t.equal(leading(fields), leading(fields));
    t.not(leading(fields), leading(fields, { ...entry }), 'a copy of an entry has its own');
  }
  const age = (list = leading({})) => list?.find(([name]) => name === 'age')?.[1];
  const names = (list = leading({})) => list?.map(([name]) => name) ?? [];
  t.ok(names().includes('cache-status') && names().includes('cache-control'), 'those that change with time too');
  for (const sending of [{ now: NOW + 1_000 }, { cacheStatus: 'edge-1; hit; ttl=1' }, { endsAt: NOW + 5_000 }]) {
    const before = leading({});
    const list = leading({}, entry, sending);
    t.not(list, before, 'and none of them outlives its second, its ttl or its link');
    const lines = linesOf(respond(request({}), { entry, body: null }, { ...SENDING, ...sending }, RULES));
    const again = linesOf(respond(request({}), { entry, body: null }, { ...SENDING, ...sending }, RULES));
    t.same(new Map(again), new Map(lines), 'a list that is shared says the same as one that is not');
    leading({});
  }
  t.match(age(), /^\d+$/);
  t.ok(
    leading({})?.some(([name]) => name === 'content-length'),
    'the length is among them',
  );
});

void t.test('a range of what has no type has none', async (t) => {
  const entry = mediaEntry({ headers: without('content-type') });
  const reply = answer(request({ range: 'bytes=0-1' }), { entry });
  t.equal(reply.status, 206);
  t.notOk(linesOf(reply).some(([name]) => name === 'content-type'));
});

void t.test('HEAD has the fields of GET, and no bytes', async (t) => {
  for (const fields of [{}, { 'if-none-match': '"tag"' }, { 'if-match': '"x"' }]) {
    const [get, head] = [answer(request(fields)), answer(request(fields, 'HEAD'))];
    t.same(linesOf(head), linesOf(get), JSON.stringify(fields));
    t.equal(head.status, get.status);
  }
  const head = answer(request({}, 'HEAD'), { body: body(BYTES) });
  t.equal(head.body.kind === 'stream' && head.body.sizeBytes, 36);
  t.throws(() => head.body.kind === 'stream' && head.body.open(NEVER), 'its body is never opened');
  const alone = answer(request({ range: 'bytes=0-1' }, 'HEAD'), { body: null });
  t.equal(alone.status, 200, 'a head alone answers HEAD, and Range means nothing to it');
  t.same(linesOf(alone), linesOf(answer(request({}, 'HEAD'))));
});

void t.test('a refusal has nothing of the stored response', async (t) => {
  const rows = [
    [request({ 'if-match': '"x"' }), 412, 'precondition_failed', undefined],
    [request({ 'if-unmodified-since': 'Thu, 01 Jan 2026 09:00:00 GMT' }), 412, 'precondition_failed', undefined],
    [request({ range: 'bytes=36-' }), 416, 'range_not_satisfiable', 'bytes */36'],
  ] as const;
  for (const [asked, status, code, range] of rows) {
    const reply = answer(asked);
    const fields = Object.fromEntries(linesOf(reply));
    t.equal(reply.status, status);
    t.equal(JSON.parse((await bytesOfReply(reply)) ?? '').code, code);
    for (const name of ['etag', 'x-own', 'content-disposition', 'age', 'last-modified', 'sunset', 'media-id']) {
      t.equal(fields[name], undefined, `${status} has no ${name}`);
    }
    t.match(fields, {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      'cache-status': 'edge-1; hit',
      via: '1.1 edge-1',
      'x-request-id': 'a-request',
      'x-content-type-options': 'nosniff',
      'access-control-allow-origin': '*',
    });
    t.equal(fields['content-range'], range);
  }
  const plain = refusalReply(request(), new Fault('overloaded', 'Not now.'), undefined, 'edge-1');
  t.equal(
    linesOf(plain).some(([name]) => name === 'cache-status'),
    false,
  );
  t.equal(Object.fromEntries(plain.headers)['retry-after'], '1');
});

void t.test('conditions and ranges count for a stored 200 alone (RFC 9110 13.2.1)', async (t) => {
  const asked = request({ 'if-none-match': '*', 'if-modified-since': MODIFIED, range: 'bytes=0-1' });
  for (const status of [203, 204, 300, 301, 404, 410, 501]) {
    const others = [{ 'if-match': '"x"' }, { range: 'bytes=99-' }, { range: 'bytes=0-1' }];
    for (const fields of [asked, ...others.map((each) => request(each))]) {
      const reply = answer(fields, { entry: mediaEntry({ status }) });
      t.equal(reply.status, status);
      t.equal(Object.fromEntries(linesOf(reply))['etag'], '"tag"');
      t.equal(spansAnswered(fields, mediaEntry({ status }), 36, RULES), undefined);
    }
  }
});

void t.test('a 204 has no length and no bytes of a body', async (t) => {
  const empty = Buffer.alloc(0);
  const entry = { ...mediaEntry({ status: 204 }), sizeBytes: 0 };
  const reply = answer(request(), { entry, body: body(empty, 0, empty) });
  t.equal(reply.status, 204);
  t.notOk(linesOf(reply).some(([name]) => name === 'content-length'));
});

void t.test('a length is said exactly where it is known', async (t) => {
  const lengths = (reply: Reply): readonly string[] =>
    linesOf(reply)
      .filter(([name]) => name === 'content-length')
      .map(([, value]) => value);
  const unsized = mediaEntry({ sizeBytes: null });
  t.same(lengths(answer(request(), { entry: unsized, body: body(BYTES, null) })), [], 'unknown');
  t.same(lengths(answer(request(), { entry: unsized, body: body(BYTES, 36) })), ['36'], 'known by now');
  t.same(lengths(answer(request(), { entry: mediaEntry(), body: body(BYTES, null) })), ['36'], 'known by the head');
  t.same(lengths(answer(request(), { entry: mediaEntry(), body: body(BYTES, 40) })), ['40'], 'the body knows better');
  t.same(lengths(answer(request({}, 'HEAD'), { entry: unsized, body: null })), [], 'a head without a length');
  const ranged = answer(request({ range: 'bytes=0-1' }), { entry: unsized, body: body(BYTES, null) });
  t.equal(ranged.status, 200, 'without a length no range is measured');
});

void t.test('Last-Modified counts as it is given, and else the Date, but never for If-Range', async (t) => {
  const having = (...names: readonly string[]): Entry =>
    mediaEntry({ headers: FIELDS.filter(([name]) => names.includes(name)) });
  const status = (entry: Entry, fields: Readonly<Record<string, string>>): number =>
    answer(request(fields), { entry }).status;
  t.equal(status({ ...having('date'), receivedAt: NOW }, { 'if-modified-since': DATE }), 304);
  t.equal(status(having('date'), { 'if-modified-since': MODIFIED }), 200);
  t.equal(status(having('last-modified', 'date'), { 'if-modified-since': MODIFIED }), 304);
  t.equal(status(having(), { 'if-modified-since': DATE }), 304, 'or when it was received');
  t.equal(status(having(), { 'if-modified-since': MODIFIED }), 200);
  t.equal(status(having('last-modified', 'date'), { range: 'bytes=0-1', 'if-range': MODIFIED }), 206);
  t.equal(status(having('date'), { range: 'bytes=0-1', 'if-range': DATE }), 200, 'a Date is no validator');
  t.equal(status(having('etag'), { range: 'bytes=0-1', 'if-range': '"tag"' }), 206);
});

void t.test('the client’s lifetime ends with the media, with the link, and never before it begins', async (t) => {
  const control = (changes: Partial<Entry>, sending: Partial<Sending> = {}): string | undefined =>
    Object.fromEntries(linesOf(answer(request(), { entry: mediaEntry(changes) }, sending)))['cache-control'];
  const headers = (value: string): HeaderList => [...without('cache-control'), ['cache-control', value]];
  t.equal(control({}), 'public, max-age=120');
  t.equal(control({ headers: headers('private, max-age=3600') }), 'private, max-age=3660');
  t.equal(control({ deleteAt: NOW + 10_999 }), 'public, max-age=70');
  t.equal(control({}, { endsAt: NOW + 20_000 }), 'public, max-age=80');
  t.equal(control({ deleteAt: NOW + 10_000 }, { endsAt: NOW + 20_000 }), 'public, max-age=70');
  t.equal(control({}, { endsAt: NOW - 5_000 }), 'public, max-age=60');
  t.equal(control({ headers: headers('max-age=60') }), 'max-age=60', 'other words go on as they are');
  t.equal(control({ headers: headers('public, max-age=60, immutable') }), 'public, max-age=60, immutable');
  t.equal(control({ mediaId: null }), 'public, max-age=60', 'and so do those of what is no media');
});

void t.test('fields that may not be stored go to the caller who caused the fetch', async (t) => {
  const cookie: HeaderList = [['set-cookie', 'a=b']];
  for (const asked of [request(), request({ range: 'bytes=0-1' }), request({ 'if-none-match': '*' })]) {
    const lines = linesOf(answer(asked, { unstoredFields: cookie }));
    t.same(
      lines.filter(([name]) => name === 'set-cookie'),
      cookie,
    );
    t.equal(
      linesOf(answer(asked)).some(([name]) => name === 'set-cookie'),
      false,
    );
  }
});

void t.test(
  'a body that only its readers have is opened with the answer, under the signal of its reader',
  async (t) => {
    const client = new AbortController();
    for (const [range, spans] of [
      [undefined, [undefined]],
      ['bytes=2-4', [{ first: 2, last: 4 }]],
      [
        'bytes=0-1,10-11',
        [
          { first: 0, last: 1 },
          { first: 10, last: 11 },
        ],
      ],
    ] as const) {
      const arriving = body(BYTES);
      const reply = answer(request(range === undefined ? {} : { range }), { body: arriving, gone: client.signal });
      t.same(
        arriving.opened.map(({ span }) => span),
        spans,
      );
      t.ok(arriving.opened.every(({ signal }) => signal === client.signal));
      await bytesOfReply(reply);
      t.equal(arriving.opened.length, spans.length, 'and not opened again');
    }
    const unread = body(BYTES);
    answer(request({}, 'HEAD'), { body: unread, gone: client.signal });
    answer(request({ 'if-none-match': '*' }), { body: unread, gone: client.signal });
    answer(request({ range: 'bytes=99-' }), { body: unread, gone: client.signal });
    t.equal(unread.opened.length, 0, 'an answer without it opens nothing');
    const left = new AbortController();
    const failing = answer(request(), { body: body(BYTES), gone: left.signal });
    left.abort();
    await new Promise(setImmediate);
    t.equal(failing.status, 200, 'a client that leaves before it is sent ends no process');
  },
);

void t.test('the spans of an answer are those that it sends', (t) => {
  const spans = (fields: Readonly<Record<string, string>>) => spansAnswered(request(fields), mediaEntry(), 36, RULES);
  t.equal(spans({}), undefined);
  t.same(spans({ range: 'bytes=2-4' }), [{ first: 2, last: 4 }]);
  t.same(spans({ range: 'bytes=0-1,10-11' }), [
    { first: 0, last: 1 },
    { first: 10, last: 11 },
  ]);
  t.equal(spans({ range: 'bytes=36-' }), undefined);
  t.equal(spans({ range: 'bytes=0-1,4-5,8-9,12-13' }), undefined);
  t.equal(spans({ range: 'bytes=2-4', 'if-none-match': '*' }), undefined);
  t.equal(spans({ range: 'bytes=2-4', 'if-match': '"x"' }), undefined);
  t.equal(spans({ range: 'bytes=2-4', 'if-range': '"x"' }), undefined);
  t.end();
});

void t.test('what comes straight from the origin has its own age and length, and nothing internal', async (t) => {
  const upstream: Reply = {
    status: 200,
    headers: FIELDS,
    body: { kind: 'stream', sizeBytes: 36, open: () => Readable.from([BYTES]) },
  };
  const of = (reply: Reply, sending: Partial<Sending> = {}, method = 'GET'): Reply =>
    relay(request({}, method), reply, { ...SENDING, cacheStatus: 'edge-1; fwd=miss', ...sending }, RULES);
  const expected: HeaderList = [
    ...without(...HIDDEN),
    VIA,
    ['content-length', '36'],
    ['age', '7'],
    ['cache-status', 'edge-1; fwd=miss'],
    ['x-request-id', 'a-request'],
  ];
  t.same(sorted(linesOf(of(upstream))), sorted(expected));
  const values = (reply: Reply) => Object.fromEntries(linesOf(reply));
  t.equal(values(of(upstream, { endsAt: NOW + 10_500 }))['cache-control'], 'public, max-age=10', 'the link ends first');
  const linked = linesOf(of(upstream, { endsAt: NOW + 10_500 })).filter(([name]) => name !== 'cache-control');
  t.same(sorted(linked), sorted(expected.filter(([name]) => name !== 'cache-control')), 'and nothing else changes');
  t.equal(values(of(upstream, { endsAt: NOW + 90_000 }))['cache-control'], 'public, max-age=60');
  t.equal(values(of(upstream, { endsAt: NOW - 1 }))['cache-control'], 'public, max-age=0');
  const other: Reply = {
    ...upstream,
    headers: [
      ['cache-control', 'no-store'],
      ['x-own', 'kept'],
    ],
  };
  t.match(values(of(other, { endsAt: NOW })), { 'cache-control': 'no-store', 'x-own': 'kept' });
  t.equal(values(of(other))['age'], undefined);
  t.same(
    linesOf(of(other)).map(([name]) => name),
    ['cache-control', 'x-own', 'via', 'cache-status', 'x-request-id'],
  );
  const small: Reply = { ...upstream, body: { kind: 'bytes', bytes: BYTES } };
  t.equal(values(of(small))['content-length'], undefined, 'bytes get their length when they are sent');
  const head = of({ ...upstream, body: { kind: 'none' } }, {}, 'HEAD');
  t.equal(head.body.kind, 'stream');
  t.equal(values(head)['content-length'], '36');
  t.equal(of({ ...upstream, body: { kind: 'none' } }).body.kind, 'none');
  t.equal(of(small, {}, 'HEAD').body.kind, 'bytes');
});

void t.test('Cache-Status says what was done (RFC 9211)', (t) => {
  const status = cacheStatusOf('edge 1');
  const rows: readonly (readonly [Handling, number | undefined, string])[] = [
    [{ kind: 'hit' }, undefined, '"edge 1"; hit'],
    [{ kind: 'hit', detail: 'memory' }, 1_999, '"edge 1"; hit; ttl=1; detail=memory'],
    [{ kind: 'hit' }, -1, '"edge 1"; hit; ttl=-1'],
    [{ kind: 'hit' }, Number.POSITIVE_INFINITY, '"edge 1"; hit; ttl=999999999999999'],
    [{ kind: 'hit' }, Number.NEGATIVE_INFINITY, '"edge 1"; hit; ttl=-999999999999999'],
    [{ kind: 'forwarded', reason: 'uri-miss' }, undefined, '"edge 1"; fwd=uri-miss'],
    [
      { kind: 'forwarded', reason: 'stale', status: 304, stored: true, collapsed: true, detail: 'a "b"\\' },
      5_000,
      '"edge 1"; fwd=stale; fwd-status=304; ttl=5; stored; collapsed; detail="a \\"b\\"\\\\"',
    ],
    [
      { kind: 'forwarded', reason: 'miss', status: 200, stored: false, collapsed: false, detail: 'é1' },
      undefined,
      '"edge 1"; fwd=miss; fwd-status=200; detail="1"',
    ],
  ];
  for (const [handling, ttlMs, expected] of rows) t.equal(status(handling, ttlMs), expected);
  t.equal(cacheStatusOf('edge-1')({ kind: 'hit' }), 'edge-1; hit');
  t.equal(joinCacheStatus(undefined, 'b; hit'), 'b; hit');
  t.equal(joinCacheStatus('', 'b; hit'), 'b; hit');
  t.equal(joinCacheStatus('a; hit', 'b; hit'), 'a; hit, b; hit');
  t.end();
});
