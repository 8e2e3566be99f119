/** What a change through the edge makes invalid, and which answers to POST are kept. */
import t, { type Test } from 'tap';
import type { EdgeConfig } from '../../../edge/config.js';
import type { PassedAnswer, UnsafeAnswer } from '../../../edge/pass/config.js';
import { invalidate } from '../../../edge/pass/invalidate-after.js';
import { keepPosted } from '../../../edge/pass/keep-post.js';
import type { MediaId } from '../../../src/ids.js';
import { bytesOf, keyOf } from '../../kit/edge/cache.js';
import { type DirectEdge, mediaFields, openDirectEdge, respondWith } from '../../kit/edge/direct-edge.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };
const BYTES = bytesOf(100);

async function opened(
  t: Test,
  mode: 'media' | 'off',
  change?: (config: EdgeConfig) => EdgeConfig,
): Promise<DirectEdge> {
  const edge = await openDirectEdge(mode, change);
  t.teardown(() => edge.close());
  edge.origin = () =>
    respondWith(edge.clock, {
      fields: mode === 'media' ? mediaFields(BYTES) : { 'cache-control': 'max-age=60', etag: '"a"' },
      bytes: BYTES,
    });
  return edge;
}

const answerTo = (method: string, target: string, over: Partial<UnsafeAnswer> = {}): UnsafeAnswer => ({
  method,
  target,
  status: 200,
  location: undefined,
  contentLocation: undefined,
  ...over,
});

void t.test('a change of media removes every copy of them, and what was remembered of the id', async (t) => {
  const cases: readonly (readonly [answer: UnsafeAnswer, removes: boolean])[] = [
    [answerTo('DELETE', PATH), true],
    [answerTo('DELETE', `${PATH}?x=y`), true],
    [answerTo('POST', `${PATH}/quarantine`), true],
    [answerTo('DELETE', `${PATH}/quarantine`), true],
    [answerTo('DELETE', PATH, { status: 299 }), true],
    [answerTo('DELETE', PATH, { status: 300 }), false],
    [answerTo('POST', `${PATH}/other`), false],
    [answerTo('PATCH', `${PATH}/quarantine`), false],
    [answerTo('DELETE', '/v1/media/none'), false],
  ];
  for (const [answer, removes] of cases) {
    const edge = await opened(t, 'media');
    await edge.ask(PATH, { headers: READER });
    edge.engine.absences.remember(ID, 'unknown');
    const fetch = edge.engine.flights.joinOrStart(
      {
        key: 'k',
        primaryKey: `${PATH}/thumb?w=1`,
        mediaId: ID,
        background: true,
        run: () => new Promise(() => undefined),
      },
      undefined,
    );
    await invalidate(edge.engine, answer);
    const what = `${answer.method} ${answer.target} ${answer.status}`;
    t.equal(edge.engine.absences.recall(ID), removes ? undefined : 'unknown', what);
    t.equal(fetch.kind === 'started' && fetch.flight.ended, removes ? 'taken_down' : undefined, what);
    if (fetch.kind === 'started') fetch.flight.finish();
    const own =
      answer.target.startsWith(PATH) && !answer.target.includes('/quarantine') && !answer.target.includes('/other');
    t.equal(edge.cache.peek(keyOf(PATH)) !== undefined, !removes && !own, what);
  }
});

void t.test('elsewhere a change removes what is stored under its target and those that it names', async (t) => {
  const edge = await opened(t, 'off');
  const targets = ['/x', '/y', '/z', '/other'];
  for (const target of targets) await edge.ask(target);
  edge.cache.incomplete.open({ ...must(edge.cache.peek(keyOf('/x'))?.entry), key: keyOf('/x [1]') });
  edge.engine.uncacheable.remember('/x', 'private');
  const fetch = edge.engine.flights.joinOrStart(
    { key: 'k', primaryKey: '/x', mediaId: null, background: true, run: () => new Promise(() => undefined) },
    undefined,
  );
  await invalidate(edge.engine, answerTo('PUT', '/x', { location: '/y', contentLocation: 'http://origin.invalid/z' }));
  t.same(
    targets.map((target) => edge.cache.peek(keyOf(target)) !== undefined),
    [false, false, false, true],
  );
  t.same([edge.cache.incomplete.keysOfPrimary('/x'), edge.engine.uncacheable.recall('/x')], [[], undefined]);
  t.equal(fetch.kind === 'started' && fetch.flight.ended, 'purged');
  if (fetch.kind === 'started') fetch.flight.finish();
});

void t.test('a change whose copies cannot be removed is logged, and the client is answered', async (t) => {
  const edge = await opened(t, 'media');
  const engine = {
    ...edge.engine,
    cache: { ...edge.cache, takeDown: () => Promise.reject(new Error('disk')) } as never,
  };
  await invalidate(engine, answerTo('DELETE', PATH));
  t.match(edge.lines.at(-1), { level: 'error', error: 'disk' });
});

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('it was not stored');
  return value;
}

const posted = (over: Partial<PassedAnswer> = {}): PassedAnswer => ({
  method: 'POST',
  target: '/x',
  header: () => undefined,
  status: 200,
  headers: [
    ['cache-control', 'max-age=60'],
    ['content-location', '/x'],
    ['content-length', '100'],
  ],
  tookMs: 7,
  ...over,
});

void t.test('an answer to POST is kept for a later GET if it says so, and nothing else is', async (t) => {
  const edge = await opened(t, 'off', (config) => ({ ...config, fill: { ...config.fill, objectMaxBytes: 100 } }));
  edge.engine.uncacheable.remember('/x', 'private');
  const sink = must(keepPosted(edge.engine, posted()));
  await sink.write(BYTES);
  sink.end();
  sink.abort(new Error('too late'));
  await new Promise(setImmediate);
  const { entry, body } = must(edge.cache.peek(keyOf('/x')));
  t.ok(body.whole?.equals(BYTES));
  t.same(
    [entry.primaryKey, entry.mediaId, entry.sizeBytes, entry.receivedAt - entry.requestedAt],
    ['/x', null, 100, 7],
  );
  t.equal(edge.engine.uncacheable.recall('/x'), undefined);
  t.equal((await edge.ask('/x')).outcome, 'hit_memory');
  const [length, location] = [
    ['content-length', '101'],
    ['content-location', '/other'],
  ] as const;
  const base = posted().headers;
  for (const [what, answer] of [
    ['another method', posted({ method: 'PUT' })],
    ['too large', posted({ headers: [...base.slice(0, 2), length] })],
    ['of another resource', posted({ headers: [base[0] ?? length, location] })],
    ['without a lifetime', posted({ headers: base.slice(1) })],
    ['an order not to', posted({ headers: [['cache-control', 'no-store, max-age=60'], ...base.slice(1)] })],
  ] as const)
    t.equal(keepPosted(edge.engine, answer), undefined, what);
  const broken = must(
    keepPosted(edge.engine, posted({ target: '/y', headers: [base[0] ?? length, ['content-location', '/y']] })),
  );
  await broken.write(BYTES);
  broken.abort(new Error('reset'));
  t.equal(edge.cache.peek(keyOf('/y')), undefined);
  t.equal(edge.cache.stats().fills, 0);
  const media = await opened(t, 'media');
  t.equal(keepPosted(media.engine, posted()), undefined, 'media are never posted so');
});
