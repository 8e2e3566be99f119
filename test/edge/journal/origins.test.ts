/** The journal followed at one of several origins: the next one when that one ends, falls silent or refuses. */
import t, { type Test } from 'tap';
import { createAppliedJournal } from '../../../edge/journal/applied-journal.js';
import { journalSection } from '../../../edge/journal/config.js';
import { type Follower, followJournal } from '../../../edge/journal/follow.js';
import { upstreamSection } from '../../../edge/upstream/config.js';
import { openUpstream } from '../../../edge/upstream/upstream.js';
import { NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import { ManualClock, turns, untilInTime } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { StoredIds } from '../../kit/edge/stored-ids.js';
import { connectedEdges, mediaId } from '../../kit/origin/journal.js';
import { JournalOrigin, PROOF } from '../../kit/origin/journal-origin.js';
import { until } from '../../kit/until.js';

interface World {
  readonly clock: ManualClock;
  /** Over one journal. */
  readonly origins: readonly [JournalOrigin, JournalOrigin];
  readonly follower: Follower;
  readonly cache: StoredIds;
  /** The reasons for which sessions ended, and how long the edge then waited. */
  readonly endings: () => readonly Readonly<Record<string, unknown>>[];
}

async function openWorld(t: Test): Promise<World> {
  const clock = new ManualClock();
  const origins = [new JournalOrigin(clock), new JournalOrigin(clock)] as const;
  origins[1].journal = origins[0].journal;
  for (const origin of origins) {
    await origin.start();
    t.teardown(() => origin.stop());
  }
  const { log, metrics, lines } = testDeps();
  const urls = origins.map(({ port }) => `http://127.0.0.1:${port}`);
  const upstream = openUpstream({ config: configured(upstreamSection, { urls }), clock, log, metrics });
  t.teardown(() => upstream.close());
  const cache = new StoredIds();
  const follower = await followJournal({
    config: configured(journalSection),
    edgeName: 'edge-1',
    instance: 'instance-1',
    open: (request, signal) => upstream.fetchOwn(request, signal),
    others: { count: 1, moveOn: () => upstream.moveOn() },
    proof: () => PROOF,
    cache,
    onTakedown: () => {},
    onPurgeAll: () => {},
    onUseReportsWanted: () => {},
    behind: () => NOBODY_BEHIND,
    applied: createAppliedJournal(100, () => {}),
    folder: t.testdir(),
    clock,
    random: () => 1,
    log,
    metrics,
  });
  t.teardown(() => follower.close());
  await until('the edge is current', () => follower.lease.state().kind === 'held');
  return {
    clock,
    origins,
    follower,
    cache,
    endings: () => lines.filter(({ msg }) => String(msg).startsWith('the journal stream ended')),
  };
}

function followedIn({ origins }: World): JournalOrigin {
  const found = origins.find(({ stream }) => stream !== undefined && connectedEdges(stream).length === 1);
  if (found === undefined) throw new Error('no origin is followed');
  return found;
}

void t.test('an origin that ends is left for another at once, without a wait and without a gap', async (t) => {
  const world = await openWorld(t);
  const left = followedIn(world);
  const other = world.origins.find((each) => each !== left);
  await left.stop();
  // The clock stands still: nothing that waits would go on.
  await until(
    'the other one is followed',
    () => other?.stream !== undefined && connectedEdges(other.stream).length === 1,
  );
  other?.journal.add('delete', [mediaId(1)]);
  await until('the entry is applied', () => world.cache.takenDown.length === 1);
  t.equal(world.cache.purges, 1, 'the cache was emptied at the start alone');
  t.equal(world.endings().length, 1);
  t.equal(world.endings()[0]?.['waitMs'], undefined);
  t.same(await other?.stream?.confirmed(1, 60_000), { confirmed: 1, known: 1 }, 'and that one counts the edge');
});

void t.test('with no other origin to follow, the edge waits before it tries again', async (t) => {
  const world = await openWorld(t);
  for (const origin of world.origins) await origin.stop();
  await until('it waits', () => world.follower.state().link === 'waiting');
  const connects = world.follower.state().connects;
  await turns(50);
  t.equal(world.follower.state().connects, connects, 'it does not go round and round');
  t.ok(connects <= 4);
  const [first] = world.origins;
  await first.start();
  await untilInTime('it is current', world.clock, () => world.follower.state().link === 'current');
  t.equal(followedIn(world), first);
});
