/**
 * Takedowns from the origin's journal to the edge's cache: over a network that
 * breaks, goes silent and recovers, with restarts on both sides and wrong clocks.
 */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { createAppliedJournal } from '../../../edge/journal/applied-journal.js';
import {
  type FollowerDeps,
  type JournalConfig,
  journalSection,
  type OpenOrigin,
} from '../../../edge/journal/config.js';
import { type Follower, followJournal } from '../../../edge/journal/follow.js';
import { createDelayGauge, createLease, type LeaseConfig, leaseSection } from '../../../edge/journal/lease.js';
import { openPositionFile } from '../../../edge/journal/position.js';
import { upstreamSection } from '../../../edge/upstream/config.js';
import { openUpstream } from '../../../edge/upstream/upstream.js';
import type { Clock } from '../../../src/clock.js';
import type { MediaId } from '../../../src/ids.js';
import { NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import { CONFIRM_PATH } from '../../../src/journal/entry.js';
import { ManualClock, turns, untilInTime } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { StoredIds } from '../../kit/edge/stored-ids.js';
import { listenRaw } from '../../kit/http/raw.js';
import { openRelay, type Relay } from '../../kit/http/relay.js';
import { connectedEdges, MemoryJournal, mediaId } from '../../kit/origin/journal.js';
import { BEAT_MS, JournalOrigin, openHttp, PROOF } from '../../kit/origin/journal-origin.js';
import { until } from '../../kit/until.js';

const LEASE: LeaseConfig = { ttlMs: 10_000, mode: 'refuse', serveMaxMs: 60_000 };

interface Edge {
  readonly follower: Follower;
  readonly cache: StoredIds;
  readonly folder: string;
  readonly brokenOff: MediaId[];
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  readonly opened: () => number;
}

interface EdgeOptions {
  readonly port: () => number;
  readonly clock: Clock;
  readonly folder: string;
  readonly name?: string;
  readonly cache?: StoredIds;
  readonly config?: Partial<JournalConfig>;
  readonly open?: OpenOrigin;
  readonly proof?: string;
}

let instances = 0;

async function openEdge(t: Test, options: EdgeOptions): Promise<Edge> {
  const { log, metrics, lines } = testDeps();
  const cache = options.cache ?? new StoredIds();
  const brokenOff: MediaId[] = [];
  let opened = 0;
  instances += 1;
  const open: OpenOrigin = (request, signal) => {
    if (request.method === 'GET') opened += 1;
    return (options.open ?? openHttp(options.port))(request, signal);
  };
  const deps: FollowerDeps = {
    config: configured(journalSection, { lease: LEASE, ...options.config }),
    edgeName: options.name ?? 'edge-1',
    instance: `instance-${instances}`,
    open,
    proof: () => options.proof ?? PROOF,
    cache,
    onTakedown: (id) => void brokenOff.push(id),
    onPurgeAll: () => {},
    onUseReportsWanted: () => {},
    behind: () => NOBODY_BEHIND,
    applied: createAppliedJournal(100, () => {}),
    folder: options.folder,
    clock: options.clock,
    random: () => 1,
    log,
    metrics,
  };
  const follower = await followJournal(deps);
  t.teardown(() => follower.close());
  return { follower, cache, folder: options.folder, brokenOff, lines, opened: () => opened };
}

interface World {
  readonly clock: ManualClock;
  readonly origin: JournalOrigin;
}

async function openWorld(t: Test): Promise<World> {
  const clock = new ManualClock();
  const origin = new JournalOrigin(clock);
  await origin.start();
  t.teardown(() => origin.stop());
  return { clock, origin };
}

async function openRelayTo(t: Test, origin: JournalOrigin): Promise<Relay> {
  const relay = await openRelay(() => origin.port);
  t.teardown(() => relay.close());
  return relay;
}

/** Resolves once everything is applied that the edge had missed. */
const caughtUp = ({ follower }: Edge): Promise<void> =>
  until('everything missed is applied', () => follower.lease.state().kind !== 'new');

const applied = ({ follower }: Edge, seq: number) =>
  until(`entry ${seq} to be applied`, () => follower.state().applied === seq);

/** Advances the clock beat by beat. The given edges receive each beat. */
async function hearBeats(clock: ManualClock, ms: number, ...hearing: readonly Edge[]): Promise<void> {
  for (let passed = 0; passed < ms; passed += BEAT_MS) {
    clock.advance(BEAT_MS);
    for (const { follower } of hearing) {
      await until('the beat', () => {
        const state = follower.lease.state();
        return state.kind === 'held' && state.currentMsAgo < BEAT_MS;
      });
    }
  }
}

void t.test('a lease decides by its mode and the monotonic clock alone', async (t) => {
  const table: readonly (readonly [LeaseConfig['mode'], afterMs: number | null, verdict: string])[] = [
    ['revalidate', null, 'revalidate'],
    ['refuse', null, 'refuse'],
    ['serve', null, 'revalidate'],
    ['revalidate', 0, 'yes'],
    ['revalidate', 10_000, 'yes'],
    ['revalidate', 10_001, 'revalidate'],
    ['refuse', 10_001, 'refuse'],
    ['serve', 10_001, 'yes'],
    ['serve', 70_000, 'yes'],
    ['serve', 70_001, 'revalidate'],
  ];
  for (const [mode, afterMs, verdict] of table) {
    const clock = new ManualClock();
    const lease = createLease({ ...configured(leaseSection), ttlMs: 10_000, serveMaxMs: 60_000, mode }, clock);
    if (afterMs !== null) {
      lease.renewAt(clock.monotonicMs());
      lease.renewAt(-5_000);
      clock.advance(afterMs);
    }
    t.equal(lease.mayServe(), verdict, `${mode} after ${afterMs}`);
  }
});

void t.test(
  'the delay of a beat is measured whatever the two clocks show; a step of one never hides delay',
  async (t) => {
    fc.assert(
      fc.property(
        fc.integer({ min: -1e12, max: 1e12 }),
        fc.array(fc.record({ gapMs: fc.nat(2_000), delayMs: fc.nat(30_000) }), { minLength: 1, maxLength: 30 }),
        (skewMs, beats) => {
          const gauge = createDelayGauge();
          let sentMs = 0;
          let quickest = Number.POSITIVE_INFINITY;
          for (const { gapMs, delayMs } of beats) {
            sentMs += gapMs;
            quickest = Math.min(quickest, delayMs);
            t.equal(gauge.delayMs(sentMs + skewMs, sentMs + delayMs), delayMs - quickest);
          }
        },
      ),
    );
    const stepped = createDelayGauge();
    t.equal(stepped.delayMs(0, 0), 0);
    t.equal(stepped.delayMs(1_000 - 3_600_000, 1_000), 3_600_000, 'a step back shows as delay');
    t.equal(stepped.delayMs(2_000 + 3_600_000, 2_000), 0, 'a step forward shows as none');
  },
);

void t.test('a position is read back as it was written; anything else is damaged', async (t) => {
  const folder = t.testdir();
  const errors: unknown[] = [];
  const file = await openPositionFile(folder, (thrown) => errors.push(thrown));
  t.same(await file.read(), { kind: 'absent' });
  for (let seq = 1; seq <= 20; seq += 1) file.save({ journal: 'j', seq, mark: `m${seq}` });
  await file.flush();
  t.same(await file.read(), { kind: 'found', position: { journal: 'j', seq: 20, mark: 'm20' } });
  const path = join(folder, 'journal-position.json');
  const good = await readFile(path, 'utf8');
  for (const bad of [
    '',
    'x',
    '{}',
    '[]',
    'null',
    good.replace('20', '21'),
    good.replace('m20', 'm21'),
    good.replace('"v":2', '"v":1'),
    good.replace('"v":2', '"v":3'),
    good.slice(0, -5),
  ]) {
    await writeFile(path, bad);
    t.same(await file.read(), { kind: 'damaged' }, bad.slice(0, 30));
  }
  const sum = createHash('sha256').update('1\nj\n7').digest('hex').slice(0, 16);
  await writeFile(path, `{"v":1,"journal":"j","seq":7,"check":"${sum}"}`);
  t.same(await file.read(), { kind: 'found', position: { journal: 'j', seq: 7, mark: null } }, 'version 1 is read');
  t.same(errors, []);
});

void t.test(
  'an edge without a position empties its cache, then follows; with one, it applies what it missed first',
  async (t) => {
    const { clock, origin } = await openWorld(t);
    const folder = t.testdir();
    for (let index = 1; index <= 5; index += 1) origin.journal.add('delete', [mediaId(index)]);
    const first = await openEdge(t, { port: () => origin.port, clock, folder });
    await caughtUp(first);
    t.match(first.follower.state(), { link: 'current', applied: 5, newest: 5, purges: 1, journal: 'journal-a' });
    t.same(first.cache.takenDown, [], 'an empty cache needs no old entries');
    origin.journal.add('quarantine', [mediaId(6), mediaId(7)]);
    await applied(first, 6);
    t.same(first.cache.takenDown, [mediaId(6), mediaId(7)]);
    t.same(first.brokenOff, [mediaId(6), mediaId(7)], 'and fetches from the origin are ended too');
    await first.follower.close();
    t.equal(first.follower.state().link, 'closed');

    for (let index = 10; index <= 29; index += 1) origin.journal.add('expire', [mediaId(index)]);
    const cache = new StoredIds();
    let release = (): void => {};
    cache.gate = new Promise((resolve) => {
      release = resolve;
    });
    cache.stored.add(mediaId(10)).add(mediaId(99));
    const again = await openEdge(t, { port: () => origin.port, clock, folder, cache });
    await until('the replay', () => !cache.stored.has(mediaId(10)));
    await turns(50);
    t.equal(again.follower.lease.state().kind, 'new', 'not before everything missed is applied');
    t.equal(again.follower.lease.mayServe(), 'refuse');
    release();
    await caughtUp(again);
    t.equal(again.follower.lease.mayServe(), 'yes');
    t.same(
      cache.takenDown,
      Array.from({ length: 20 }, (_, index) => mediaId(index + 10)),
    );
    t.equal(cache.purges, 0);
    t.ok(cache.stored.has(mediaId(99)), 'media that were not taken down stay');
  },
);

void t.test('the stored position is never ahead of what is applied', async (t) => {
  const { clock, origin } = await openWorld(t);
  const folder = t.testdir();
  const edge = await openEdge(t, { port: () => origin.port, clock, folder });
  await caughtUp(edge);
  const stored = async (): Promise<unknown> => {
    const file = await openPositionFile(folder, () => {});
    const read = await file.read();
    return read.kind === 'found' ? read.position.seq : read.kind;
  };
  while ((await stored()) !== 0) await turns(1);
  let release = (): void => {};
  edge.cache.gate = new Promise((resolve) => {
    release = resolve;
  });
  origin.journal.add('delete', [mediaId(1)]);
  await until('the takedown to begin', () => edge.brokenOff.length === 1);
  await turns(50);
  t.equal(await stored(), 0);
  t.equal(connectedEdges(origin.stream)[0]?.confirmed, 0, 'nor confirmed');
  release();
  await applied(edge, 1);
  await until('its confirmation', () => connectedEdges(origin.stream)[0]?.confirmed === 1);
  await edge.follower.close();
  t.equal(await stored(), 1);
});

void t.test('an entry that the cache cannot apply is not skipped', async (t) => {
  const { clock, origin } = await openWorld(t);
  const edge = await openEdge(t, { port: () => origin.port, clock, folder: t.testdir() });
  await caughtUp(edge);
  edge.cache.failing = true;
  origin.journal.add('delete', [mediaId(1)]);
  await until('the failure', () => edge.lines.some(({ reason }) => reason === 'not_applied'));
  t.equal(edge.follower.state().applied, 0);
  edge.cache.failing = false;
  await untilInTime('the entry to be applied', clock, () => edge.cache.takenDown.includes(mediaId(1)));
});

void t.test('a gap, another journal, or a damaged position empties the cache', async (t) => {
  const { clock, origin } = await openWorld(t);
  for (let index = 1; index <= 9; index += 1) origin.journal.add('delete', [mediaId(index)]);
  const folder = t.testdir();
  const path = join(folder, 'journal-position.json');
  const start = async (): Promise<Edge> => {
    const edge = await openEdge(t, { port: () => origin.port, clock, folder });
    await caughtUp(edge);
    await edge.follower.close();
    return edge;
  };
  await start();
  t.equal((await start()).cache.purges, 0, 'nothing is wrong');

  for (let index = 1; index <= 9; index += 1) origin.journal.add('delete', [mediaId(index)]);
  origin.journal.forget(15);
  const overtaken = await start();
  t.same([overtaken.cache.purges, overtaken.follower.state().applied], [1, 18], 'the journal was trimmed meanwhile');

  await writeFile(path, '{"v":1,"journal":"journal-a","seq":18,"check":"0"}');
  t.equal((await start()).cache.purges, 1, 'the position was damaged');

  await origin.stop();
  origin.journal = new MemoryJournal('journal-b', 40);
  await origin.start();
  const foreign = await start();
  t.same(
    [foreign.cache.purges, foreign.follower.state().journal, foreign.follower.state().applied],
    [1, 'journal-b', 40],
  );

  await origin.stop();
  origin.journal = new MemoryJournal('journal-b', 30);
  await origin.start();
  const restored = await start();
  t.same(
    [restored.cache.purges, restored.follower.state().applied],
    [1, 30],
    'the origin came back from an older copy',
  );
});

void t.test('after the metadata were set back to a snapshot, an edge that was ahead empties its cache', async (t) => {
  for (const more of [0, 2, 3]) {
    const { clock, origin } = await openWorld(t);
    for (let index = 1; index <= 3; index += 1) origin.journal.add('delete', [mediaId(index)]);
    const edge = await openEdge(t, { port: () => origin.port, clock, folder: t.testdir() });
    await caughtUp(edge);
    for (let index = 4; index <= 5; index += 1) origin.journal.add('delete', [mediaId(index)]);
    await applied(edge, 5);
    await origin.stop();
    origin.journal.setBack(3);
    const others = Array.from({ length: more }, (_, index) => mediaId(index + 20));
    for (const id of others) origin.journal.add('delete', [id]);
    for (const id of others) edge.cache.stored.add(id);
    await origin.start();
    await untilInTime('the gap', clock, () => edge.follower.state().purges === 2);
    t.match(edge.follower.state(), { applied: 3 + more, journal: 'journal-a' });
    t.equal(edge.cache.stored.size, 0, `nothing missed is left after ${more} other entries`);
  }
});

void t.test('an edge notices at a beat that the entry it stands at has another mark', async (t) => {
  const { clock, origin } = await openWorld(t);
  origin.journal.add('delete', [mediaId(1)]);
  const edge = await openEdge(t, { port: () => origin.port, clock, folder: t.testdir() });
  await caughtUp(edge);
  origin.journal.setBack(0);
  edge.cache.stored.add(mediaId(2));
  origin.journal.add('delete', [mediaId(2)]);
  await untilInTime('the gap', clock, () => edge.follower.state().purges === 2);
  t.ok(edge.lines.some(({ reason }) => reason === 'other_history'));
  t.equal(edge.cache.stored.size, 0);
});

void t.test('an edge whose position has no mark yet keeps its cache and learns the mark from a beat', async (t) => {
  const { clock, origin } = await openWorld(t);
  origin.journal.add('delete', [mediaId(1)]);
  const folder = t.testdir();
  const file = await openPositionFile(folder, () => {});
  file.save({ journal: 'journal-a', seq: 1, mark: null });
  await file.flush();
  const edge = await openEdge(t, { port: () => origin.port, clock, folder });
  await caughtUp(edge);
  await edge.follower.close();
  t.equal(edge.follower.state().purges, 0);
  t.match(await file.read(), { kind: 'found', position: { seq: 1, mark: origin.journal.markOf(1) } });
});

void t.test('the wait between attempts to reach the origin grows', async (t) => {
  const { clock, origin } = await openWorld(t);
  await origin.stop();
  const edge = await openEdge(t, {
    port: () => origin.port,
    clock,
    folder: t.testdir(),
    config: { reconnectMinMs: 100, reconnectMaxMs: 800 },
  });
  const waits = (): unknown[] => edge.lines.map(({ waitMs }) => waitMs);
  await untilInTime('some attempts', clock, () => waits().length >= 6);
  t.same(waits().slice(0, 6), [200, 400, 800, 800, 800, 800]);
  t.same(edge.follower.lease.state(), { kind: 'new' });
  t.equal(edge.follower.lease.mayServe(), 'refuse');
  await origin.start();
  await untilInTime('the edge to come back', clock, () => edge.follower.lease.mayServe() === 'yes');

  const stranger = await openEdge(t, { port: () => origin.port, clock, folder: t.testdir(), proof: 'wrong' });
  await untilInTime(
    'its refusals',
    clock,
    () => stranger.lines.filter(({ reason }) => reason === 'refused').length > 1,
  );
  t.equal(stranger.follower.lease.mayServe(), 'refuse');
});

void t.test('an answer of the origin to any other request ends the wait before connecting again', async (t) => {
  const { clock, origin } = await openWorld(t);
  const edge = await openEdge(t, {
    port: () => origin.port,
    clock,
    folder: t.testdir(),
    config: { reconnectMinMs: 100, reconnectMaxMs: 60_000 },
  });
  const isWaiting = (): boolean => edge.follower.state().link === 'waiting';
  await caughtUp(edge);
  await origin.stop();
  for (let failures = 0; failures < 8; failures += 1) {
    await until('a wait', isWaiting);
    clock.advance(60_000);
    await until('another attempt', () => edge.opened() === failures + 2);
  }
  await until('the next wait', isWaiting);
  await origin.start();
  for (let answers = 0; answers < 3; answers += 1) edge.follower.originAnswered();
  clock.advance(99);
  await turns(50);
  t.ok(isWaiting(), 'not before the shortest wait');
  clock.advance(1);
  await until('the journal is followed again', () => edge.follower.lease.mayServe() === 'yes');
  edge.follower.originAnswered();

  const stranger = await openEdge(t, {
    port: () => origin.port,
    clock,
    folder: t.testdir(),
    proof: 'wrong',
    config: { reconnectMinMs: 1_000 },
  });
  await until('its refusal', () => stranger.follower.state().link === 'waiting');
  stranger.follower.originAnswered();
  clock.advance(1_000);
  await turns(50);
  t.equal(stranger.opened(), 1, 'an origin that refused the journal will refuse it again');
});

void t.test('restarts of the origin lose nothing', async (t) => {
  const { clock, origin } = await openWorld(t);
  const edge = await openEdge(t, { port: () => origin.port, clock, folder: t.testdir() });
  await caughtUp(edge);
  for (let round = 1; round <= 3; round += 1) {
    await origin.stop();
    origin.journal.add('delete', [mediaId(round)]);
    await origin.start();
    await untilInTime('the entry of meanwhile', clock, () => edge.cache.takenDown.length === round);
  }
  t.same(edge.cache.takenDown, [1, 2, 3].map(mediaId));
  t.equal(edge.cache.purges, 1, 'only at its first start');
});

void t.test(
  'a partition is noticed by silence, the lease ends, and afterwards missed entries are applied',
  async (t) => {
    const { clock, origin } = await openWorld(t);
    const relay = await openRelayTo(t, origin);
    // On the connections that an edge really has.
    const upstream = openUpstream({
      config: configured(upstreamSection, { url: relay.url }),
      clock,
      ...testDeps(),
    });
    t.teardown(() => upstream.close());
    const open: OpenOrigin = (request, signal) => upstream.fetchOwn(request, signal);
    const edge = await openEdge(t, { port: () => relay.port, clock, folder: t.testdir(), open });
    await caughtUp(edge);
    await hearBeats(clock, 5_000, edge);
    t.equal(relay.accepted > 0, true);

    relay.set('partition');
    origin.journal.add('delete', [mediaId(1)]);
    for (let second = 0; second < 10; second += 1) {
      clock.advance(BEAT_MS);
      await turns(50);
    }
    t.equal(edge.follower.lease.mayServe(), 'yes', 'within the lease');
    t.ok(
      edge.lines.some(({ reason }) => reason === 'silent'),
      'the dead connection was given up before that',
    );
    clock.advance(1);
    t.equal(edge.follower.lease.mayServe(), 'refuse', 'and not a millisecond longer');
    t.same(edge.cache.takenDown, []);
    await untilInTime('the origin to notice too', clock, () => connectedEdges(origin.stream).length === 0);

    relay.set('pass');
    await untilInTime('the edge to be current again', clock, () => edge.follower.lease.mayServe() === 'yes');
    t.same(edge.cache.takenDown, [mediaId(1)], 'nothing is served before the missed entries are applied');
  },
);

void t.test('clocks that are wrong or jump do not prolong a lease, and following goes on', async (t) => {
  const { clock, origin } = await openWorld(t);
  origin.skewMs = 10 * 365 * 86_400_000;
  const skewed: Clock = {
    now: () => clock.now() - 86_400_000,
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, run) => clock.after(delayMs, run),
  };
  const edge = await openEdge(t, { port: () => origin.port, clock: skewed, folder: t.testdir() });
  await caughtUp(edge);
  await hearBeats(clock, 5_000, edge);
  origin.skewMs += 3_600_000;
  await hearBeats(clock, 3_000, edge);
  t.equal(edge.follower.state().connects, 1, 'a step forward has no effect');
  origin.skewMs -= 7_200_000;
  clock.advance(BEAT_MS);
  await until('the delay to be noticed', () => edge.lines.some(({ reason }) => reason === 'delayed'));
  await untilInTime('a new stream', clock, () => edge.follower.state().link === 'current');
  await hearBeats(clock, 3_000, edge);
  t.equal(edge.follower.lease.mayServe(), 'yes');
  await origin.stop();
  clock.advance(LEASE.ttlMs + 1);
  t.equal(edge.follower.lease.mayServe(), 'refuse');
});

void t.test('a late beat renews the lease only from the time it was sent', async (t) => {
  const clock = new ManualClock();
  const hello = '{"t":"hello","journal":"j","oldest":1,"newest":0,"beatMs":1000}\n';
  const beat = (at: number): string => `{"t":"beat","newest":0,"at":${at}}\n`;
  const server = await listenRaw(async (raw) => {
    await raw.until(/\r\n\r\n/).catch(() => '');
    if (raw.text.startsWith('GET')) raw.write(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${hello}${beat(0)}`);
  });
  t.teardown(() => server.close());
  const edge = await openEdge(t, { port: () => server.port, clock, folder: t.testdir() });
  await caughtUp(edge);
  const stream = server.connections.find(({ text }) => text.startsWith('GET'));
  clock.advance(2_500);
  stream?.write(beat(1_000));
  await until('the late beat', () => {
    const state = edge.follower.lease.state();
    return state.kind === 'held' && state.currentMsAgo === 1_500;
  });
  clock.advance(2_900);
  stream?.write(beat(1_100));
  await turns(50);
  const state = edge.follower.lease.state();
  t.equal(state.kind === 'held' && state.currentMsAgo, 4_300, 'it was sent 4.3 s ago, whenever it arrived');
});

void t.test('a line that is not of the protocol ends the stream and is not applied', async (t) => {
  const clock = new ManualClock();
  const id = mediaId(1);
  const hello = '{"t":"hello","journal":"j","oldest":1,"newest":0,"beatMs":1000}\n';
  const entry = (seq: number): string => `{"t":"entry","seq":${seq},"at":0,"cause":"delete","ids":["${id}"]}\n`;
  const table: readonly (readonly [string, string])[] = [
    ['an entry before hello', entry(1)],
    ['a beat before hello', '{"t":"beat","newest":0,"at":0}\n'],
    ['a gap before hello', '{"t":"gap","newest":0}\n'],
    ['a second hello', hello + hello],
    ['a hole', hello + entry(1) + entry(3)],
    ['a repeat', hello + entry(1) + entry(1)],
    ['an unknown line', `${hello}{"t":"surprise"}\n`],
    ['no JSON', `${hello}<html>\n`],
    ['an id that is none', `${hello}{"t":"entry","seq":1,"at":0,"cause":"delete","ids":["../etc"]}\n`],
    ['an endless line', hello + 'x'.repeat(70_000)],
  ];
  for (const [what, text] of table) {
    const server = await listenRaw(async (raw) => {
      await raw.until(/\r\n\r\n/).catch(() => '');
      if (!raw.text.startsWith('GET')) return;
      raw.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n');
      for (let from = 0; from < text.length; from += 1_000) raw.write(text.slice(from, from + 1_000));
    });
    const edge = await openEdge(t, {
      port: () => server.port,
      clock,
      folder: t.testdir(),
      config: { lineMaxBytes: 65_536 },
    });
    await until(`the end: ${what}`, () => edge.lines.some(({ reason }) => reason === 'garbled'));
    t.equal(edge.follower.lease.mayServe(), 'refuse', what);
    t.ok(
      edge.cache.takenDown.length === 0 && (edge.follower.state().applied ?? 0) === 0,
      `${what}: nothing was applied`,
    );
    await edge.follower.close();
    await server.close();
  }
});

void t.test('what another journal says counts for nothing while the cache stands in its own', async (t) => {
  const clock = new ManualClock();
  const mine = { journal: 'mine', seq: 5, mark: null };
  const hello = '{"t":"hello","journal":"other","oldest":1,"newest":5,"beatMs":1000}\n';
  const lines: readonly (readonly [what: string, line: string])[] = [
    ['a beat', '{"t":"beat","newest":5,"at":0}\n'],
    ['the next entry', `{"t":"entry","seq":6,"at":0,"cause":"delete","ids":["${mediaId(1)}"]}\n`],
  ];
  for (const [what, line] of lines) {
    const server = await listenRaw(async (raw) => {
      await raw.until(/\r\n\r\n/).catch(() => '');
      if (raw.text.startsWith('GET')) raw.write(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${hello}${line}`);
    });
    const cache = new StoredIds();
    cache.stored.add(mediaId(1));
    const folder = t.testdir();
    const file = await openPositionFile(folder, () => undefined);
    file.save(mine);
    await file.flush();
    const edge = await openEdge(t, { port: () => server.port, clock, folder, cache });
    await until(`the end: ${what}`, () => edge.lines.some(({ reason }) => reason === 'garbled'));
    t.equal(edge.follower.lease.mayServe(), 'refuse', what);
    t.same([cache.takenDown, cache.noted, cache.purges], [[], [], 0], what);
    t.match(edge.follower.state(), { applied: 5 }, what);
    await edge.follower.close();
    await server.close();
  }
});

void t.test(
  'an origin that does not answer is given up, and a stream that the origin does not know is opened again',
  async (t) => {
    const clock = new ManualClock();
    const mute = await listenRaw(() => {});
    t.teardown(() => mute.close());
    const edge = await openEdge(t, {
      port: () => mute.port,
      clock,
      folder: t.testdir(),
      config: { connectTimeoutMs: 2_000 },
    });
    await until('the attempt', () => mute.connections.length === 1);
    clock.advance(2_000);
    await until('its end', () => edge.lines.some(({ reason }) => reason === 'unreachable'));
    await mute.connections[0]?.closed;

    const { clock: time, origin } = await openWorld(t);
    let lose = false;
    const forgetful = await openEdge(t, {
      port: () => origin.port,
      clock: time,
      folder: t.testdir(),
      open: async (request, signal) => {
        const answer = await openHttp(() => origin.port)(request, signal);
        return lose && request.target === CONFIRM_PATH ? { ...answer, status: 409 } : answer;
      },
    });
    await caughtUp(forgetful);
    lose = true;
    time.advance(BEAT_MS);
    await until('the end', () => forgetful.lines.some(({ reason }) => reason === 'not_counted'));
    lose = false;
    await untilInTime('the next stream', time, () => forgetful.follower.state().link === 'current');
  },
);

void t.test('three edges, one cut off and one down: who confirms, and until when each may serve', async (t) => {
  const { clock, origin } = await openWorld(t);
  const relay = await openRelayTo(t, origin);
  const id = mediaId(7);
  const near = await openEdge(t, { name: 'near', port: () => origin.port, clock, folder: t.testdir({}) });
  const cut = await openEdge(t, { name: 'cut', port: () => relay.port, clock, folder: t.testdir({ cut: {} }) });
  const downFolder = join(t.testdirName, 'down');
  const down = await openEdge(t, { name: 'down', port: () => origin.port, clock, folder: downFolder });
  await Promise.all([near, cut, down].map(caughtUp));
  for (const { cache } of [near, cut, down]) cache.stored.add(id);
  await hearBeats(clock, 2_000, near, cut, down);
  await down.follower.close();
  await until('it to be gone', () => connectedEdges(origin.stream).length === 2);
  relay.set('partition');

  const takenDownAt = clock.monotonicMs();
  const { seq } = origin.journal.add('delete', [id]);
  const waiting = origin.stream?.confirmed(seq, 4_000);
  await applied(near, seq);
  t.equal(near.cache.stored.has(id), false, 'a connected edge stops before any time has passed');
  for (let second = 0; second < 4; second += 1) {
    clock.advance(BEAT_MS);
    await turns(50);
  }
  t.same(
    await waiting,
    { confirmed: 1, known: 3 },
    'those that are cut off or down are counted and have not confirmed',
  );

  t.ok(cut.cache.stored.has(id) && cut.follower.lease.mayServe() === 'yes', 'it still serves');
  while (cut.follower.lease.mayServe() === 'yes') {
    clock.advance(100);
    await turns(5);
  }
  t.ok(clock.monotonicMs() - takenDownAt <= LEASE.ttlMs + 100, 'the last one stops within its lease');

  const back = await openEdge(t, {
    name: 'down',
    port: () => origin.port,
    clock,
    folder: downFolder,
    cache: down.cache,
  });
  t.ok(down.cache.stored.has(id));
  t.equal(back.follower.lease.mayServe(), 'refuse', 'the edge that was down does not serve yet');
  await caughtUp(back);
  t.notOk(down.cache.stored.has(id));
  relay.set('pass');
  await untilInTime('the cut-off edge to be current', clock, () => cut.follower.lease.mayServe() === 'yes');
  t.notOk(cut.cache.stored.has(id));
  await until('all confirmations', () => {
    const edges = connectedEdges(origin.stream);
    return edges.length === 3 && edges.every(({ confirmed }) => confirmed === seq);
  });
  t.same(await origin.stream?.confirmed(seq, 5_000), { confirmed: 3, known: 3 });
});

void t.test(
  'whatever happens to the network and to both sides, nothing is served longer than a lease after its takedown',
  async (t) => {
    const step = fc.constantFrom(
      'takedown',
      'beat',
      'cut',
      'partition',
      'heal',
      'origin restarts',
      'edge restarts',
      'edge dies',
      'refuse',
      'long',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        const clock = new ManualClock();
        const origin = new JournalOrigin(clock);
        await origin.start();
        const relay = await openRelay(() => origin.port);
        const folder = t.testdir({});
        const cache = new StoredIds();
        const options = { port: () => relay.port, clock, folder, cache };
        let edge = await openEdge(t, options);
        const takenDownMs = new Map<MediaId, number>();
        let next = 0;
        const check = (): void => {
          if (edge.follower.lease.mayServe() !== 'yes') return;
          for (const [id, atMs] of takenDownMs) {
            if (cache.stored.has(id) && clock.monotonicMs() - atMs > LEASE.ttlMs)
              t.fail(`${id} is served after ${steps.join(', ')}`);
          }
        };
        const advance = async (ms: number): Promise<void> => {
          for (let passed = 0; passed < ms; passed += 500) {
            clock.advance(500);
            check();
            await turns(4);
            check();
          }
        };
        for (let index = 0; index < 40; index += 1) cache.stored.add(mediaId(index));
        for (const each of steps) {
          if (each === 'takedown') {
            const id = mediaId(next++);
            origin.journal.add('delete', [id]);
            takenDownMs.set(id, clock.monotonicMs());
          } else if (each === 'beat') await advance(BEAT_MS);
          else if (each === 'long') await advance(12_000);
          else if (each === 'cut') relay.cut();
          else if (each === 'partition' || each === 'refuse') relay.set(each);
          else if (each === 'heal') relay.set('pass');
          else if (each === 'origin restarts') {
            await origin.stop();
            await origin.start();
          } else {
            await edge.follower.close();
            edge = await openEdge(t, options);
          }
          check();
        }
        relay.set('pass');
        await untilInTime(
          'everything to be applied',
          clock,
          () => edge.follower.state().applied === origin.journal.newest() && edge.follower.lease.mayServe() === 'yes',
        );
        for (const id of takenDownMs.keys()) if (cache.stored.has(id)) t.fail(`${id} was never taken down`);
        await edge.follower.close();
        await relay.close();
        await origin.stop();
      }),
      { numRuns: 10, endOnFailure: true },
    );
    t.pass('in every schedule that was tried');
  },
);
