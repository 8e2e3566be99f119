import { readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { BlobStore } from '../../../origin/blobs/blob-store.js';
import { freeUnreferenced, type SweepDeps } from '../../../origin/blobs/sweep.js';
import type { RoomState } from '../../../origin/ingest/room.js';
import { createQuotas, quotaSection } from '../../../origin/quota.js';
import {
  decideExpiry,
  type RetentionConfig,
  type RetentionRule,
  retentionSection,
} from '../../../origin/retention-rules.js';
import { openSweeper, type Sweeper } from '../../../origin/upkeep/sweeper.js';
import type { MediaId } from '../../../src/ids.js';
import { USE_REPORT_IDS_MAX, USES_PATH } from '../../../src/journal/use-report.js';
import { createLog } from '../../../src/log.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, type TestDeps, testDeps } from '../../kit/deps.js';
import { startEdge } from '../../kit/edge/media-edge.js';
import { sendRequest } from '../../kit/http/request.js';
import { mediaKey, thumbKey } from '../../kit/origin/keys.js';
import { startOrigin } from '../../kit/origin/origin.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';
import { until } from '../../kit/until.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** Later than the time of any file that is made now, so that such files count as old. */
const LATER = Date.UTC(2100, 0, 1);
const never = new AbortController().signal;

void t.test('an upload expires as it asks, but no later than the first rule that covers it', async (t) => {
  const rule = (given: Partial<RetentionRule>): RetentionRule => ({
    types: ['*/*'],
    visibility: 'any',
    minSizeBytes: 0,
    keepMs: 1_000,
    ...given,
  });
  const rules = [
    rule({ types: ['image/gif', 'video/*'], minSizeBytes: 500, keepMs: 10 }),
    rule({ visibility: 'public', keepMs: 20 }),
    rule({ types: ['audio/*'], visibility: 'private', keepMs: 30 }),
  ];
  const cases = [
    { mime: 'image/gif', sizeBytes: 500, public: false, asks: null, kept: 10 },
    { mime: 'image/gif', sizeBytes: 499, public: false, asks: null, kept: null },
    { mime: 'video/mp4', sizeBytes: 900, public: true, asks: null, kept: 10 },
    { mime: 'video/mp4', sizeBytes: 900, public: true, asks: 4, kept: 4 },
    { mime: 'video/mp4', sizeBytes: 900, public: true, asks: 11, kept: 10 },
    { mime: 'image/png', sizeBytes: 1, public: true, asks: 25, kept: 20 },
    { mime: 'image/png', sizeBytes: 1, public: false, asks: 25, kept: 25 },
    { mime: 'image/png', sizeBytes: 1, public: false, asks: null, kept: null },
    { mime: 'audio/ogg', sizeBytes: 1, public: false, asks: null, kept: 30 },
    { mime: 'audio/ogg', sizeBytes: 1, public: true, asks: null, kept: 20 },
  ];
  for (const { asks, kept, ...media } of cases) {
    const expected = kept === null ? null : LATER + kept;
    t.equal(decideExpiry(rules, media, asks, LATER), expected, JSON.stringify({ ...media, asks }));
  }
  t.equal(decideExpiry([], { mime: 'image/png', sizeBytes: 1, public: true }, null, LATER), null);
});

void t.test('a quota is checked before the body arrives, and counts uploads that are running', async (t) => {
  const clock = new ManualClock(LATER + 90_000);
  const used = new Map([['ada', { bytes: 600, files: 1 }]]);
  const store = { usage: async (owner: string) => used.get(owner) ?? { bytes: 0, files: 0 } };
  const quotas = createQuotas(
    configured(quotaSection, { periodMs: HOUR, totalBytes: 1_000, filesMax: 3 }),
    store,
    clock,
  );
  const kind = async (owner: string, sizeBytes: number | null): Promise<string> =>
    (await quotas.reserve(owner, sizeBytes)).kind;
  t.same(await quotas.reserve('ada', 401), { kind: 'refused', retryAfterMs: HOUR - 90_000 });
  const first = await quotas.reserve('ada', 400);
  if (first.kind !== 'reserved') throw new Error('the quota has space');
  t.match(first.reservation.quota, { periodStartAt: LATER, bytesMax: 1_000, filesMax: 3 });
  t.equal(await kind('ada', 1), 'refused', 'the space is reserved');
  t.equal(await kind('bob', 1_000), 'reserved');
  first.reservation.release();
  first.reservation.release();
  t.equal(await kind('ada', null), 'reserved', 'an upload of unknown length is admitted while there is space');
  t.equal(await kind('ada', 1), 'reserved');
  t.equal(await kind('ada', 1), 'refused', 'three files are the limit');
  used.set('kim', { bytes: 0, files: 3 });
  t.equal((await quotas.reserve('kim', 1, 0)).kind, 'refused', 'bytes that could not become a file neither');
  const partial = await quotas.reserve('fay', 600, 0);
  t.equal(await kind('fay', 401), 'refused', 'bytes of partial uploads count');
  for (let file = 0; file < 3; file += 1) t.equal(await kind('fay', 1), 'reserved', 'but not as files');
  if (partial.kind === 'reserved') partial.reservation.release();
  used.set('eve', { bytes: 1_000, files: 1 });
  t.equal(await kind('eve', null), 'refused');

  const open = createQuotas(configured(quotaSection), store, clock);
  t.match(await open.reserve('eve', 1e12), { kind: 'reserved', reservation: { quota: undefined } });
});

interface Fixture extends Stores {
  readonly watched: TestDeps;
  readonly sweeper: Sweeper;
  /** What the sweeper is told of the room for uploads. */
  readonly room: { now: RoomState };
}

async function openFixture(
  t: Test,
  given: Partial<RetentionConfig> = {},
  over: Partial<BlobStore> = {},
): Promise<Fixture> {
  const watched = testDeps();
  const stores = await openStores(t.testdir(), new ManualClock(LATER), {
    log: createLog('test', { level: 'silent' }),
  });
  const { meta, blobs, clock } = stores;
  // The sweeper does not run by itself, unless a test configures it to.
  const seldom = { sweepEveryMs: 1e6 * HOUR, expireEveryMs: 1e6 * HOUR, stageMs: 1e6 * HOUR };
  const config = configured(retentionSection, {
    graceMs: HOUR,
    tombstonesMs: 24 * HOUR,
    stepMax: 2,
    ...seldom,
    ...given,
  });
  const room: { now: RoomState } = { now: 'enough' };
  const sweeper = openSweeper({
    config,
    quota: { periodMs: HOUR },
    meta,
    blobs: {
      list: (prefix, signal) => blobs.list(prefix, signal),
      remove: (key, signal) => blobs.remove(key, signal),
      stageFolder: blobs.stageFolder,
      ...over,
    },
    room: { state: async () => room.now },
    clock,
    log: watched.log,
    metrics: watched.metrics,
  });
  t.teardown(async () => {
    await sweeper.close();
    await stores.close();
  });
  return { ...stores, watched, sweeper, room };
}

void t.test('without room for uploads, bytes that nobody needs are freed at once', async (t) => {
  const fixture = await openFixture(t, { graceMs: HOUR });
  const { meta, blobs, sweeper, clock, room } = fixture;
  const isStored = async (name: string): Promise<boolean> => (await blobs.stat(mediaKey(sha256Of(name)))) !== undefined;
  const removed = async (name: string): Promise<void> => {
    await meta.remove((await fixture.put(name)).record.id, 'mo', clock.now());
  };
  await fixture.put('live');
  await removed('deleted');
  await sweeper.sweep(never);
  t.ok(await isStored('deleted'), 'with room it stays for the grace period');
  room.now = 'disk_full';
  t.match(await sweeper.sweep(never), { blobs: 1, forgotten: 0 });
  t.notOk(await isStored('deleted'));

  await removed('another');
  await Promise.all([sweeper.relieve(), sweeper.relieve()]);
  t.notOk(await isStored('another'), 'also when an upload asks for it');
  t.ok(await isStored('live'));
});

void t.test('at the limit of the metadata, tombstones are forgotten early, the oldest first', async (t) => {
  const fixture = await openFixture(t, { tombstonesMs: 24 * HOUR, stepMax: 1 });
  const { meta, sweeper, clock, room } = fixture;
  const ids: MediaId[] = [];
  for (const name of ['first', 'second']) {
    const { id } = (await fixture.put(name)).record;
    await meta.remove(id, 'mo', clock.now());
    clock.advance(MINUTE);
    ids.push(id);
  }
  const kinds = async () => await Promise.all(ids.map(async (id) => (await meta.find(id, clock.now())).kind));
  t.match(await sweeper.sweep(never), { forgotten: 0 });
  const forgetTombstones = meta.forgetTombstones.bind(meta);
  meta.forgetTombstones = async (before, limit) => {
    const forgotten = await forgetTombstones(before, limit);
    if (room.now === 'records_full' && forgotten > 0) room.now = 'enough';
    return forgotten;
  };
  room.now = 'records_full';
  await sweeper.relieve();
  t.same(await kinds(), ['unknown', 'deleted']);
});

void t.test('deleted media are freed after the grace period, with their thumbnails, and forgotten later', async (t) => {
  const fixture = await openFixture(t);
  const { meta, blobs, clock, sweeper, watched } = fixture;
  const gone = await Promise.all(['one', 'two', 'three'].map((bytes) => fixture.put(bytes)));
  const kept = await fixture.put('kept');
  const shared = await fixture.put('shared');
  const twin = await fixture.put('shared', { public: true });
  const [first] = gone;
  if (first === undefined) throw new Error('three uploads');
  const thumb = await fixture.thumb(first.record.sha256, 'small one');
  for (const { record } of [...gone, shared]) await meta.remove(record.id, 'eve', clock.now());

  clock.advance(HOUR);
  t.match(await sweeper.sweep(never), { blobs: 0, forgotten: 0 }, 'the grace period is not over');
  clock.advance(1);
  t.match(await sweeper.sweep(never), { blobs: 3, thumbs: 1, bytes: 'onetwothree'.length + 'small one'.length });
  t.equal(await blobs.stat(mediaKey(first.record.sha256)), undefined);
  t.equal(await blobs.stat(thumb), undefined);
  t.equal(await meta.findBlob(first.record.sha256), undefined);
  t.equal((await meta.find(first.record.id, clock.now())).kind, 'deleted', 'the tombstone remains');
  t.equal(await blobs.stat(mediaKey(kept.record.sha256)), 4);
  t.equal((await meta.find(twin.record.id, clock.now())).kind, 'live', 'another id refers to the bytes');
  t.equal(await blobs.stat(mediaKey(twin.record.sha256)), 6);

  clock.advance(23 * HOUR);
  t.match(await sweeper.sweep(never), { forgotten: 4, blobs: 0 });
  t.same(await meta.find(first.record.id, clock.now()), { kind: 'unknown' });
  t.equal(await watched.sample('retention_total{what="blobs"}'), 3);
  t.equal(await watched.sample('retention_freed_bytes_total'), 'onetwothree'.length + 'small one'.length);
  t.match(watched.lines.at(-1), { msg: 'swept', forgotten: 4 });
});

void t.test('edges hear of an expiry when it is due, and not at the next sweep', async (t) => {
  const fixture = await openFixture(t, { expireEveryMs: 1_000 });
  const { meta, clock } = fixture;
  const { record } = await fixture.put('bytes', { expiresAt: clock.now() + 2_500 });
  for (let second = 0; second < 2; second += 1) {
    clock.advance(1_000);
    await clock.timerSet(1_000);
  }
  t.equal(meta.journal.newest(), 0);
  clock.advance(1_000);
  await until('the entry', () => meta.journal.newest() === 1);
  t.match(await meta.journal.read(0, 1), [{ cause: 'expire', ids: [record.id] }]);
});

void t.test('a blob is never freed while an upload is about to use it', async (t) => {
  const fixture = await openFixture(t);
  const { meta, blobs, clock, sweeper } = fixture;
  const { record } = await fixture.put('bytes');
  await meta.remove(record.id, 'eve', clock.now());
  clock.advance(HOUR + 1);
  const again = await fixture.put('bytes');
  t.match(await sweeper.sweep(never), { blobs: 0 }, 'it is referenced again');
  t.equal((await meta.find(again.record.id, clock.now())).kind, 'live');
  t.equal(await blobs.stat(mediaKey(record.sha256)), 5);

  // An upload begins and ends after the sweep has listed the blob and before it forgets it.
  await meta.remove(again.record.id, 'eve', clock.now());
  clock.advance(HOUR + 1);
  const late: SweepDeps['meta'] = {
    async unreferencedBlobs(before, limit) {
      const listed = await meta.unreferencedBlobs(before, limit);
      await fixture.put('bytes');
      return listed;
    },
    forgetBlob: (sha256) => meta.forgetBlob(sha256),
    leftBehind: (keys) => meta.leftBehind(keys),
    trash: (before, limit) => meta.trash(before, limit),
    emptied: (keys) => meta.emptied(keys),
  };
  t.match(await freeUnreferenced({ meta: late, blobs }, clock.now() - HOUR, 9, never), { blobs: 0 });
  t.equal(await blobs.stat(mediaKey(record.sha256)), 5);
});

void t.test('media expire at their instant or when nobody uses them, and quarantined bytes stay', async (t) => {
  const fixture = await openFixture(t, { unusedForMs: HOUR, usedLateMaxMs: HOUR });
  const { meta, blobs, clock, sweeper } = fixture;
  const now = clock.now();
  const short = await Promise.all(
    ['a', 'b', 'c', 'd', 'e'].map((bytes) => fixture.put(bytes, { expiresAt: now + MINUTE })),
  );
  const idle = await fixture.put('idle');
  const used = await fixture.put('used');
  const bad = await fixture.put('bad');
  await meta.quarantine(bad.record.id, { at: now, by: 'eve', reason: null, cause: 'admin' });
  clock.advance(MINUTE);
  t.match(await sweeper.sweep(never), { expired: 5, unused: 0 }, 'also more than one step takes');
  t.match(await meta.journal.read(1, 9), [{ cause: 'expire' }, { cause: 'expire' }, { cause: 'expire' }]);
  clock.advance(90 * MINUTE);
  await meta.markUsed([used.record.id, short[0]?.record.id ?? used.record.id], clock.now());
  clock.advance(40 * MINUTE);
  t.match(await sweeper.sweep(never), { unused: 2, blobs: 5 });
  t.match(await meta.find(idle.record.id, clock.now()), { kind: 'expired', record: { state: { at: clock.now() } } });
  t.equal((await meta.find(used.record.id, clock.now())).kind, 'live');
  clock.advance(100 * HOUR);
  await sweeper.sweep(never);
  t.equal(await blobs.stat(mediaKey(bad.record.sha256)), 3, 'quarantined bytes are not freed');
  await t.rejects(
    fixture.put('bad'),
    { message: /quarantined/ },
    'and an upload of them is refused although no id refers to them',
  );
});

void t.test('what crashes leave is removed once it is old enough', async (t) => {
  const fixture = await openFixture(t, { stageMs: HOUR });
  const { blobs, clock, sweeper } = fixture;
  const { record } = await fixture.put('known');
  const thumb = await fixture.thumb(record.sha256, 'thumb');
  const stale = thumbKey(record.sha256, sha256Of('older thumb'));
  const pending = await fixture.put('pending', { thumbs: { kind: 'queue' } });
  const fresh = thumbKey(pending.record.sha256, sha256Of('just made'));
  await fixture.meta.intend([fresh]);
  const orphan = mediaKey(sha256Of('orphan'));
  const lostThumb = thumbKey(sha256Of('orphan'), sha256Of('its thumb'));
  await fixture.store(stale, 'older thumb');
  await fixture.store(fresh, 'just made');
  await fixture.store(orphan, 'orphan');
  await fixture.store(lostThumb, 'its thumb');
  for (const name of ['upload-old', 'upload-new']) writeFileSync(join(blobs.stageFolder, name), 'half');
  const nowSeconds = clock.now() / 1_000;
  utimesSync(join(blobs.stageFolder, 'upload-new'), nowSeconds, nowSeconds);

  t.match(await sweeper.sweep(never), { orphans: 3, blobs: 1, thumbs: 2, staged: 1 });
  t.same(readdirSync(blobs.stageFolder), ['upload-new']);
  const sizes = [orphan, lostThumb, stale, fresh, thumb, mediaKey(record.sha256)].map((key) => blobs.stat(key));
  t.same(await Promise.all(sizes), [undefined, undefined, undefined, 9, 5, 5]);
  await fixture.store(orphan, 'orphan');
  t.match(await sweeper.sweep(never), { orphans: 0 }, 'the whole store is walked less often');
  clock.advance(25 * HOUR);
  t.match(await sweeper.sweep(never), { orphans: 1, staged: 1 });
});

void t.test('the sweeper runs regularly, goes on after a failure, and stops when it is closed', async (t) => {
  let failing = true;
  const fixture: Fixture = await openFixture(
    t,
    { sweepEveryMs: MINUTE },
    {
      async remove(key) {
        if (failing) throw new Error('the storage fails');
        await fixture.blobs.remove(key);
      },
    },
  );
  const { meta, blobs, clock, sweeper, watched } = fixture;
  const deleted = await fixture.put('x');
  const due = await fixture.put('y', { expiresAt: clock.now() + HOUR });
  await meta.remove(deleted.record.id, 'eve', clock.now());
  /** The clock starts a sweep, and the next call waits for it. */
  const afterSweep = async (byMs: number): Promise<void> => {
    clock.advance(byMs);
    await sweeper.sweep(never);
  };
  await afterSweep(HOUR + MINUTE);
  t.equal(await meta.findBlob(deleted.record.sha256), undefined);
  t.equal(await blobs.stat(mediaKey(deleted.record.sha256)), 1, 'its bytes could not be removed');
  t.equal((await meta.find(due.record.id, 0)).kind, 'expired', 'the other steps were done');
  t.ok((await watched.sample('retention_failures_total{step="free blobs"}')) > 0);
  failing = false;
  await new Promise(setImmediate);
  await afterSweep(24 * HOUR);
  t.equal(
    await blobs.stat(mediaKey(deleted.record.sha256)),
    undefined,
    'the next walk finds the bytes without a record',
  );

  const late = sweeper.sweep(never);
  await sweeper.close();
  await t.rejects(late, { message: 'the sweeper is closing' });
  await sweeper.close();
  t.equal(clock.pending, 0, 'no timer is left');
});

void t.test('media that edges serve from their caches count as used, even if the report is late', async (t) => {
  const origin = await startOrigin(t.testdir({ edge: {} }), {
    thumbs: { enabled: false, video: { enabled: false } },
    retention: { unused_for: '2h', uses_every: '10m', used_late_max: '2h' },
    journal: { beat: '60s', silence_max: '1h' },
  });
  t.teardown(() => origin.close());
  const clock = new ManualClock();
  const patient = {
    upstream: { url: origin.url, head_within: '10m' },
    journal: { lease: { ttl: '1h' }, silent_beats_max: 100 },
    uses: { answer_within: '60s' },
  };
  const edge = await startEdge(join(origin.folder, 'edge'), origin, patient, clock);
  t.teardown(() => edge.close());
  const [read = '', idle = '', late = ''] = await Promise.all(
    ['read', 'idle', 'late'].map((text) => origin.uploaded(Buffer.from(text), '?public=true')),
  );
  const told = async (): Promise<number> => {
    for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
    return Number(/edge_uses_told_total (\d+)/.exec(await edge.metrics())?.[1] ?? 0);
  };
  const get = async (id: string): Promise<string> => {
    const answer = await sendRequest(`${edge.url}/v1/media/${id}`);
    return `${answer.status} ${/hit|fwd/.exec(String(answer.headers['cache-status']))?.[0]}`;
  };
  const report = (agoMs: number, ids: readonly string[]) =>
    origin.asEdge(USES_PATH, { method: 'POST', body: JSON.stringify({ uses: [{ agoMs, ids }] }) });
  t.equal(await get(read), '200 fwd');
  for (let round = 1; round <= 5; round += 1) {
    t.equal(await get(read), '200 hit', 'the origin does not see this request');
    // In small steps, so that a report can be answered in between.
    for (const before = await told(); (await told()) === before; ) clock.advance(20_000);
    origin.clock.advance(HOUR);
    if (round === 4) t.equal((await report(2.5 * HOUR, [late])).status, 204, 'from an edge that was cut off');
  }
  const state = async (id: string): Promise<number> => (await origin.send(`/v1/media/${id}`)).status;
  // The clock starts the sweeper, which then takes some time.
  while ((await state(idle)) !== 410) origin.clock.advance(1_000);
  t.equal(await state(read), 200);
  t.equal(await state(late), 200, 'it was in use when the edge was cut off');
  t.equal(await get(read), '200 hit', 'and no edge was ordered to drop it');

  for (const body of ['', '[]', '{"uses":[{"agoMs":-1,"ids":[]}]}', '{"uses":[{"agoMs":0,"ids":["x"]}]}']) {
    t.equal((await origin.asEdge(USES_PATH, { method: 'POST', body })).status, 400, body);
  }
  const many = Array.from({ length: USE_REPORT_IDS_MAX + 1 }, () => read);
  t.equal((await report(0, many)).status, 400, 'the size of a report is limited');
  t.equal((await report(0, [idle, '01J9ZC8GZ0000000000000000A'])).status, 204);
  t.equal(await state(idle), 410, 'expired media stay expired');
});
