/** A cache folder that is away for a start of the edge, or is put back from a copy, shows nothing that was taken down. */
import { cpSync, existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { AppliedToCache, EdgeCache } from '../../../edge/cache/cache.js';
import type { Entry } from '../../../edge/entry.js';
import { createAppliedJournal } from '../../../edge/journal/applied-journal.js';
import { journalSection } from '../../../edge/journal/config.js';
import { type Follower, followJournal } from '../../../edge/journal/follow.js';
import type { PositionRead } from '../../../edge/journal/position.js';
import { whereToStart } from '../../../edge/journal/start.js';
import { NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import type { JournalPosition } from '../../../src/journal/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { bytesOf, cacheConfig, entryOf, keyOf, mediaIdOf, openTestCache, put } from '../../kit/edge/cache.js';
import { JournalOrigin, openHttp, PROOF } from '../../kit/origin/journal-origin.js';
import { until } from '../../kit/until.js';

const ON_DISK = { memory: false, disk: true };

void t.test('the cache says by itself where to start; where it cannot, it is emptied', (t) => {
  const at = (seq: number, mark: string | null = `m${seq}`, journal = 'j'): JournalPosition => ({ journal, seq, mark });
  const file = (position: JournalPosition): PositionRead => ({ kind: 'found', position });
  const cache = (position: JournalPosition): AppliedToCache => ({ kind: 'applied', position });
  const table: readonly (readonly [what: string, PositionRead, AppliedToCache, JournalPosition | string])[] = [
    ['both agree', file(at(5)), cache(at(5)), at(5)],
    ['the cache was away', file(at(9)), cache(at(5)), at(5)],
    ['the file was written too late', file(at(5)), cache(at(9)), at(9)],
    ['the cache has another history, which the origin notices', file(at(5)), cache(at(9, 'x')), at(9, 'x')],
    ['the same number in another history', file(at(5)), cache(at(5, 'x')), at(5, 'x')],
    ['the cache followed another journal', file(at(5)), cache(at(5, 'm5', 'k')), 'other_journal'],
    ['nothing is stored', file(at(5)), { kind: 'nothing_stored' }, at(5)],
    ['the cache says nothing', file(at(5)), { kind: 'unknown' }, 'cache_without_position'],
    ['no file', { kind: 'absent' }, cache(at(5)), 'no_position'],
    ['a damaged file', { kind: 'damaged' }, cache(at(5)), 'damaged'],
  ];
  for (const [what, fileRead, applied, wanted] of table) {
    const start = whereToStart(fileRead, applied);
    t.same(start.kind === 'continue' ? start.position : start.why, wanted, what);
  }
  t.end();
});

interface Running {
  readonly cache: EdgeCache;
  readonly follower: Follower;
  close(): Promise<void>;
}

let instances = 0;

/** An edge's cache and what follows the journal for it. The position file rests beside the cache folder. */
async function start(t: Test, root: string, origin: JournalOrigin, clock: ManualClock): Promise<Running> {
  const { cache } = await openTestCache(cacheConfig(join(root, 'cache')), undefined, clock);
  const { log, metrics } = testDeps();
  instances += 1;
  const follower = await followJournal({
    config: configured(journalSection),
    edgeName: 'edge-1',
    instance: `instance-${instances}`,
    open: openHttp(() => origin.port),
    proof: () => PROOF,
    cache,
    onTakedown: () => {},
    onPurgeAll: () => {},
    onUseReportsWanted: () => {},
    behind: () => NOBODY_BEHIND,
    applied: createAppliedJournal(100, () => {}),
    folder: join(root, 'cache-journal'),
    clock,
    random: () => 1,
    log,
    metrics,
  });
  const close = async (): Promise<void> => {
    await follower.close();
    await cache.close();
  };
  t.teardown(close);
  await until('everything missed is applied', () => follower.lease.state().kind !== 'new');
  return { cache, follower, close };
}

/** Starts an edge, stores two media, and ends it again. */
async function openStored(
  t: Test,
): Promise<{ root: string; folder: string; origin: JournalOrigin; clock: ManualClock }> {
  const clock = new ManualClock();
  const origin = new JournalOrigin(clock);
  await origin.start();
  t.teardown(() => origin.stop());
  const root = t.testdir();
  origin.journal.add('delete', [mediaIdOf(9)]);
  const edge = await start(t, root, origin, clock);
  for (const n of [1, 2]) t.match(await put(edge.cache, mediaEntry(n), bytesOf(1_000, n), ON_DISK), { kind: 'stored' });
  await edge.close();
  return { root, folder: join(root, 'cache'), origin, clock };
}

function mediaEntry(n: number): Entry {
  return entryOf(`/${n}`, bytesOf(1_000, n), { mediaId: mediaIdOf(n) });
}

const has = ({ cache }: Running, n: number): boolean => cache.peek(keyOf(`/${n}`)) !== undefined;

void t.test('what was taken down while the cache folder was away is gone when it is back', async (t) => {
  const { root, folder, origin, clock } = await openStored(t);
  renameSync(folder, `${folder}-away`);
  const without = await start(t, root, origin, clock);
  origin.journal.add('delete', [mediaIdOf(1)]);
  await until('the takedown', () => without.follower.state().applied === 2);
  await without.close();
  rmSync(folder, { recursive: true });
  renameSync(`${folder}-away`, folder);
  const again = await start(t, root, origin, clock);
  t.same([has(again, 1), has(again, 2)], [false, true]);
  t.equal(again.follower.state().purges, 0, 'everything else stays');
});

for (const history of ['the same history', 'another history']) {
  void t.test(`what a copy of the cache folder shows too much is gone when it is put back (${history})`, async (t) => {
    const { root, folder, origin, clock } = await openStored(t);
    cpSync(folder, `${folder}-copy`, { recursive: true });
    // The number gets as high as it was when the copy was made. Only its mark tells.
    if (history === 'another history') origin.journal.setBack(0);
    const edge = await start(t, root, origin, clock);
    origin.journal.add('delete', [mediaIdOf(1)]);
    await until('the takedown', () => edge.follower.state().applied === origin.journal.newest());
    await edge.close();
    rmSync(folder, { recursive: true });
    renameSync(`${folder}-copy`, folder);
    const again = await start(t, root, origin, clock);
    t.same([has(again, 1), has(again, 2)], [false, history === 'the same history']);
  });
}

void t.test('a cache folder that knows no position is emptied', async (t) => {
  const { root, folder, origin, clock } = await openStored(t);
  rmSync(folder, { recursive: true });
  const unfollowed = await openTestCache(cacheConfig(folder), undefined, clock);
  await put(unfollowed.cache, mediaEntry(1), bytesOf(1_000, 1), ON_DISK);
  await unfollowed.cache.close();
  const again = await start(t, root, origin, clock);
  t.equal(has(again, 1), false);
  t.equal(again.follower.state().purges, 1);
});

void t.test('an edge whose disk cannot be written to follows the journal all the same', async (t) => {
  const clock = new ManualClock();
  const origin = new JournalOrigin(clock);
  await origin.start();
  t.teardown(() => origin.stop());
  const root = t.testdir({ cache: 'no folder', 'cache-journal': 'no folder either' });
  const edge = await start(t, root, origin, clock);
  origin.journal.add('delete', [mediaIdOf(1)]);
  await until('the takedown', () => edge.follower.state().applied === 1);
  t.equal(edge.follower.lease.mayServe(), 'yes');
  rmSync(join(root, 'cache-journal'));
  origin.journal.add('delete', [mediaIdOf(2)]);
  await until('the takedown', () => edge.follower.state().applied === 2);
  await edge.close();
  t.ok(existsSync(join(root, 'cache-journal', 'journal-position.json')), 'and writes its position where it can');
});
