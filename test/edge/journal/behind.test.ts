/**
 * Edges in a row: each follows the journal of the one before it. The origin and three tiers over real sockets, with one
 * clock that the test moves.
 */
import { request as httpRequest } from 'node:http';
import t, { type Test } from 'tap';
import { createAppliedJournal } from '../../../edge/journal/applied-journal.js';
import type { LeaseState } from '../../../edge/journal/lease.js';
import type { MediaId } from '../../../src/ids.js';
import type { JournalEntry, JournalPosition } from '../../../src/journal/entry.js';
import { CONFIRM_PATH, JOURNAL_PATH } from '../../../src/journal/entry.js';
import { USES_PATH } from '../../../src/journal/use-report.js';
import { ManualClock, turns, untilInTime } from '../../kit/clock.js';
import { openTier, type Tier, type TierOptions } from '../../kit/edge/tier.js';
import { openRelay, type Relay } from '../../kit/http/relay.js';
import { sendRequest } from '../../kit/http/request.js';
import { connectedEdges, mediaId } from '../../kit/origin/journal.js';
import { BEAT_MS, JournalOrigin, PROOF } from '../../kit/origin/journal-origin.js';
import { FILE_HANGS_AFTER_MS, until } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const TTL_MS = 10_000;

interface Row {
  readonly clock: ManualClock;
  readonly origin: JournalOrigin;
  /** Between the origin and the first tier, and so on. */
  readonly links: readonly Relay[];
  /** From the origin outwards. Replaced when one is started again. */
  readonly tiers: Tier[];
  readonly folder: string;
}

async function openRow(t: Test, count = 3, options: Partial<TierOptions> = {}): Promise<Row> {
  const clock = new ManualClock();
  const origin = new JournalOrigin(clock);
  await origin.start();
  t.teardown(() => origin.stop());
  const folder = t.testdir();
  const tiers: Tier[] = [];
  const links: Relay[] = [];
  for (let index = 0; index < count; index += 1) {
    const link = await openRelay(() => (index === 0 ? origin.port : (tiers[index - 1]?.port ?? 0)));
    t.teardown(() => link.close());
    links.push(link);
    tiers.push(await openTier({ name: `edge-${index + 1}`, before: () => link.port, folder, clock, ...options }));
    t.teardown(() => tiers[index]?.stop());
  }
  const row = { clock, origin, links, tiers, folder };
  await untilInTime('every tier to be current', clock, () => tiers.every((tier) => verdictOf(tier) === 'yes'));
  return row;
}

/** Starts a tier again that was stopped, with what it had stored, where it listened before. */
async function startAgain(row: Row, index: number): Promise<void> {
  const { clock, folder, links, tiers } = row;
  const { name, port, cache } = tiers[index] as Tier;
  tiers[index] = await openTier({ name, port, cache, folder, clock, before: () => links[index]?.port ?? 0 });
}

const verdictOf = ({ follower }: Tier): string => follower.lease.mayServe();

/** One beat of the origin, which reaches every tier before the clock moves on. */
async function beat({ clock, tiers }: Row, reached: readonly Tier[] = tiers): Promise<void> {
  clock.advance(BEAT_MS);
  for (const { name, follower } of reached) {
    await until(`the beat at ${name}`, () => {
      const state = follower.lease.state();
      return state.kind === 'held' && state.currentMsAgo < BEAT_MS;
    });
  }
}

/** What the first tier has confirmed. */
const confirmedAtOrigin = ({ origin }: Row): number | undefined => connectedEdges(origin.stream)[0]?.confirmed;

const has =
  (id: MediaId) =>
  ({ cache }: Tier): boolean =>
    cache.stored.has(id);

void t.test('a takedown reaches every tier without waiting for time, and all of them are counted', async (t) => {
  const row = await openRow(t);
  const id = mediaId(7);
  for (const { cache } of row.tiers) cache.stored.add(id);
  const { seq } = row.origin.journal.add('delete', [id]);
  await until('the last tier to apply it', () => row.tiers.every((tier) => !has(id)(tier)));
  t.same(await row.origin.stream?.confirmed(seq, 5_000), { confirmed: 3, known: 3 });
});

void t.test('an entry is told to the next tier only once it is applied, and counts where it is applied', async (t) => {
  const row = await openRow(t);
  const [, second, third] = row.tiers as [Tier, Tier, Tier];
  let apply = (): void => undefined;
  second.cache.gate = new Promise((resolve) => {
    apply = resolve;
  });
  const { seq } = row.origin.journal.add('quarantine', [mediaId(1)]);
  await until('the first tier', () => confirmedAtOrigin(row) === seq);
  await turns(30);
  t.equal(third.follower.state().applied, seq - 1, 'the third does not hear of it before the second has applied it');
  t.same(await row.origin.stream?.confirmed(seq, 0), { confirmed: 1, known: 3 });
  const waiting = row.origin.stream?.confirmed(seq, 60_000);
  apply();
  await until('the third tier', () => third.follower.state().applied === seq);
  t.same(await waiting, { confirmed: 3, known: 3 });
});

void t.test('a lease counts from the instant of the origin, however many tiers there are', async (t) => {
  const row = await openRow(t);
  for (let beats = 0; beats < 3; beats += 1) await beat(row);
  row.links[0]?.set('partition');
  const cutAtMs = row.clock.monotonicMs();
  const lapsedAfterMs = new Map<string, number>();
  for (let passed = 0; passed < TTL_MS + 4 * BEAT_MS; passed += 250) {
    row.clock.advance(250);
    await turns(30);
    for (const tier of row.tiers) {
      if (verdictOf(tier) !== 'yes' && !lapsedAfterMs.has(tier.name)) {
        lapsedAfterMs.set(tier.name, row.clock.monotonicMs() - cutAtMs);
      }
    }
  }
  for (const { name } of row.tiers) {
    const afterMs = lapsedAfterMs.get(name) ?? Number.POSITIVE_INFINITY;
    t.ok(afterMs <= TTL_MS + 250, `${name}: ${afterMs} ms after the cut`);
  }
  row.links[0]?.set('pass');
  await untilInTime('all to be current again', row.clock, () => row.tiers.every((tier) => verdictOf(tier) === 'yes'));
});

void t.test('a middle tier that is cut off lets the leases behind it lapse, and nothing is missed', async (t) => {
  const row = await openRow(t);
  const id = mediaId(3);
  for (const { cache } of row.tiers) cache.stored.add(id);
  row.links[1]?.set('partition');
  const { seq } = row.origin.journal.add('delete', [id]);
  const [first, second, third] = row.tiers as [Tier, Tier, Tier];
  await until('the first tier', () => !has(id)(first) && confirmedAtOrigin(row) === seq);
  t.same(
    await row.origin.stream?.confirmed(seq, 0),
    { confirmed: 1, known: 3 },
    'those behind the cut are known and have not confirmed',
  );
  await untilInTime('the leases to lapse', row.clock, () => verdictOf(second) !== 'yes' && verdictOf(third) !== 'yes');
  t.equal(verdictOf(first), 'yes');
  row.links[1]?.set('pass');
  await untilInTime('all to be current again', row.clock, () => row.tiers.every((tier) => verdictOf(tier) === 'yes'));
  t.notOk(row.tiers.some(has(id)));
  t.same(await row.origin.stream?.confirmed(seq, 5_000), { confirmed: 3, known: 3 });
  t.same(
    row.tiers.map(({ cache }) => cache.purges),
    [1, 1, 1],
    'no cache was emptied',
  );
});

void t.test('a middle tier that dies and comes back costs no cache behind it', async (t) => {
  const row = await openRow(t);
  const kept = mediaId(50);
  for (const { cache } of row.tiers) cache.stored.add(kept);
  const first = row.origin.journal.add('delete', [mediaId(1)]);
  const third = row.tiers[2] as Tier;
  await until('the last tier', () => third.follower.state().applied === first.seq);
  await row.tiers[1]?.stop();
  const missed = [2, 3, 4].map((index) => row.origin.journal.add('delete', [mediaId(index)]).seq);
  await until('the first tier', () => confirmedAtOrigin(row) === missed[2]);
  t.same(await row.origin.stream?.confirmed(missed[2] ?? 0, 0), { confirmed: 1, known: 3 });

  row.links[0]?.set('pass');
  await startAgain(row, 1);
  await untilInTime('the last tier to be current', row.clock, () => third.follower.state().applied === missed[2]);
  await untilInTime('all to be current', row.clock, () => row.tiers.every((tier) => verdictOf(tier) === 'yes'));
  t.same(third.cache.takenDown.slice(-3), [2, 3, 4].map(mediaId), 'it replays what it missed');
  t.ok(row.tiers.every(has(kept)), 'no cache was emptied');
  await untilInTime('all to be counted', row.clock, () => {
    const { connected } = row.tiers[0]?.behind.counts() ?? { connected: [] };
    return connected.reduce((sum, { edges }) => sum + edges, 0) === 2;
  });
  t.same(await row.origin.stream?.confirmed(missed[2] ?? 0, 5_000), { confirmed: 3, known: 3 });
});

void t.test('an edge that is further than the one before it waits for that one to catch up', async (t) => {
  const row = await openRow(t, 2);
  const [outer, inner] = row.tiers as [Tier, Tier];
  const seq = row.origin.journal.add('delete', [mediaId(1)]).seq;
  await until('the inner edge', () => inner.follower.state().applied === seq);
  await outer.stop();
  // The inner edge follows the origin itself for a while.
  row.links[1]?.cut();
  await turns(30);
  const direct = await openTier({
    name: 'edge-2b',
    before: () => row.origin.port,
    folder: row.folder,
    clock: row.clock,
  });
  t.teardown(() => direct.stop());
  await untilInTime('it to be current', row.clock, () => verdictOf(direct) === 'yes');
  await startAgain(row, 0);
  const restarted = row.tiers[0] as Tier;
  await untilInTime('the outer edge', row.clock, () => verdictOf(restarted) === 'yes');
  row.links[0]?.set('partition');
  const ahead = row.origin.journal.add('delete', [mediaId(2)]);
  await until('the entry', () => direct.follower.state().applied === ahead.seq);

  const question = new URLSearchParams({
    edge: 'edge-2b',
    instance: 'i',
    from: String(ahead.seq),
    mark: ahead.mark ?? '',
    journal: row.origin.journal.name,
  });
  let lines = '';
  const asked = httpRequest(`http://127.0.0.1:${restarted.port}${JOURNAL_PATH}?${question.toString()}`, {
    headers: { 'edge-authorization': PROOF },
    agent: false,
  });
  asked.on('response', (response) => response.on('data', (chunk: Buffer) => (lines += String(chunk))));
  asked.on('error', () => {});
  asked.end();
  await turns(30);
  t.equal(lines, '', 'it is not told that its history is wrong');
  row.links[0]?.set('pass');
  await untilInTime('the answer', row.clock, () => lines.includes('"beat"'));
  asked.destroy();
  t.notMatch(lines, '"gap"');
});

void t.test('an edge that missed more than is kept before it, or another journal, empties its cache', async (t) => {
  const row = await openRow(t, 2, { config: { keptIdsMax: 4 } });
  const [outer, inner] = row.tiers as [Tier, Tier];
  row.links[1]?.set('refuse');
  row.links[1]?.cut();
  for (let index = 1; index <= 5; index += 1) row.origin.journal.add('delete', [mediaId(index)]);
  await until('the outer edge', () => outer.follower.state().applied === 5);
  row.links[1]?.set('pass');
  await untilInTime('the gap', row.clock, () => inner.cache.purges === 2);
  t.equal(outer.cache.purges, 1);

  await row.origin.stop();
  row.origin.journal.setBack(2);
  await row.origin.start();
  await untilInTime(
    'both to empty their caches',
    row.clock,
    () => outer.cache.purges === 2 && inner.cache.purges === 3,
  );
  await untilInTime('both to be current', row.clock, () => row.tiers.every((tier) => verdictOf(tier) === 'yes'));
  t.same(
    row.tiers.map(({ follower }) => follower.state().applied),
    [2, 2],
  );
});

void t.test('an edge that is not current yet tells no journal, and strangers find nothing', async (t) => {
  const clock = new ManualClock();
  const tier = await openTier({ name: 'alone', before: () => 1, folder: t.testdir(), clock });
  t.teardown(() => tier.stop());
  const url = `http://127.0.0.1:${tier.port}`;
  const stream = `${JOURNAL_PATH}?edge=inner&instance=i`;
  const early = await sendRequest(url + stream, { headers: { 'edge-authorization': PROOF } });
  t.match(early, { status: 503, headers: { 'retry-after': '1' } });
  for (const [method, path] of [
    ['GET', stream],
    ['POST', CONFIRM_PATH],
    ['POST', USES_PATH],
  ] as const) {
    for (const proof of ['', 'guessed']) {
      const answer = await sendRequest(url + path, { method, headers: { 'edge-authorization': proof } });
      t.equal(answer.status, 404, `${method} ${path}`);
    }
  }
});

void t.test('the applied journal keeps the latest entries within its bound', async (t) => {
  const state: { now: LeaseState } = { now: { kind: 'new' } };
  let breaks = 0;
  const applied = createAppliedJournal(6, () => {
    breaks += 1;
  });
  const at = (seq: number): JournalPosition => ({ journal: 'j', seq, mark: `m${seq}` });
  const entry = (seq: number, ids: number): JournalEntry => ({
    seq,
    mark: `m${seq}`,
    at: 0,
    cause: 'delete',
    ids: Array.from({ length: ids }, (_, index) => mediaId(index)),
  });
  applied.begin({ state: () => state.now }, undefined);
  t.equal(applied.ageMs(), null, 'nothing is known');
  applied.positioned(at(10));
  t.equal(applied.ageMs(), null, 'not current yet');
  state.now = { kind: 'held', currentMsAgo: 40 };
  t.same([applied.ageMs(), applied.newest(), applied.oldest(), applied.markOf(10)], [40, 10, 11, 'm10']);
  const told: number[] = [];
  applied.subscribe(({ seq }) => told.push(seq));
  applied.applied([entry(11, 1), entry(12, 1)], at(12));
  applied.applied([entry(13, 2)], at(13));
  t.same(told, [11, 12, 13]);
  t.same([applied.oldest(), applied.markOf(11), applied.markOf(10)], [12, 'm11', undefined]);
  t.same(
    (await applied.read(11, 9)).map(({ seq }) => seq),
    [12, 13],
  );
  t.same(
    (await applied.read(12, 9)).map(({ seq }) => seq),
    [13],
  );
  applied.applied([entry(14, 100)], at(14));
  t.same([applied.oldest(), applied.newest(), applied.markOf(14)], [15, 14, 'm14'], 'a large one is told and not kept');
  applied.lost();
  t.same([breaks, applied.ageMs()], [1, null]);
});
