/** When an edge is ready, and what it says about itself. */
import t from 'tap';
import type { CacheStats, DiskState } from '../../edge/cache/cache.js';
import { createHealth } from '../../edge/health.js';
import type { LeaseState, LeaseVerdict } from '../../edge/journal/lease.js';
import type { UpstreamFailure } from '../../edge/upstream/request.js';
import type { TlsTrouble } from '../../edge/upstream/tls.js';
import type { OriginStats } from '../../edge/upstream/upstream.js';
import { ManualClock } from '../kit/clock.js';
import { testDeps } from '../kit/deps.js';

interface World {
  readonly failure?: UpstreamFailure;
  readonly entries?: readonly [memory: number, disk: number];
  readonly lease?: readonly [verdict: LeaseVerdict, state: LeaseState] | null;
  readonly probe?: Error;
  readonly diskState?: DiskState;
  readonly trouble?: TlsTrouble;
  readonly origins?: readonly OriginStats[];
}

const HELD: LeaseState = { kind: 'held', currentMsAgo: 1 };

async function ready(world: World) {
  const clock = new ManualClock();
  const [memory, disk] = world.entries ?? [0, 0];
  const lease = world.lease === undefined ? (['yes', HELD] as const) : world.lease;
  const health = createHealth({
    ...testDeps(),
    clock,
    cache: {
      probe: () => (world.probe === undefined ? Promise.resolve() : Promise.reject(world.probe)),
      stats: () => ({ memory: { entries: memory }, disk: { entries: disk } }) as CacheStats,
      diskState: world.diskState ?? 'in_use',
    },
    upstream: {
      askAll: async () => world.failure ?? 'answered',
      tlsTrouble: world.trouble ?? null,
      stats: () => ({ breaker: 'closed', inFlight: 0, requests: 0, failures: 0, origins: world.origins ?? [] }),
    },
    lease: lease === null ? null : { mayServe: () => lease[0], state: () => lease[1] },
  });
  const reply = await health.ready();
  const document =
    reply.body.kind === 'bytes'
      ? (JSON.parse(Buffer.from(reply.body.bytes).toString()) as Record<string, unknown>)
      : {};
  return { status: reply.status, document };
}

void t.test('an edge is ready if an origin answers', async (t) => {
  t.equal((await ready({})).status, 200);
});

void t.test('without the origin it is ready as long as it has copies that it may serve', async (t) => {
  const lapsed: LeaseState = { kind: 'lapsed', currentMsAgo: 9 };
  const cases: readonly (readonly [what: string, world: World, status: number])[] = [
    ['nothing stored', {}, 503],
    ['something in memory', { entries: [1, 0] }, 200],
    ['something on disk', { entries: [0, 1] }, 200],
    ['copies, without a journal', { entries: [1, 0], lease: null }, 200],
    ['nothing, without a journal', { lease: null }, 503],
    ['copies that it may serve for a while', { entries: [1, 0], lease: ['yes', lapsed] }, 200],
    ['copies that have to be confirmed', { entries: [1, 0], lease: ['revalidate', lapsed] }, 503],
  ];
  for (const [what, world, status] of cases)
    t.equal((await ready({ failure: 'connect', ...world })).status, status, what);
});

void t.test('it is not ready while its cache fails, or takedowns may be missing', async (t) => {
  t.equal((await ready({ probe: new Error('EIO') })).status, 503);
  t.equal((await ready({ lease: ['revalidate', { kind: 'new' }] })).status, 503);
  t.equal((await ready({ lease: ['refuse', { kind: 'lapsed', currentMsAgo: 9 }] })).status, 503);
  t.equal((await ready({ lease: ['yes', { kind: 'lapsed', currentMsAgo: 9 }] })).status, 200);
  t.equal((await ready({ lease: null })).status, 200);
});

void t.test(
  'with several origins it says which are up and at which the journal is followed, and no address',
  async (t) => {
    const origin = { url: 'http://10.1.2.3:9000', state: 'up', followed: false, requests: 0, failures: 0 } as const;
    const one = await ready({ origins: [{ ...origin, followed: true }] });
    t.notOk('origins' in one.document);
    const { document } = await ready({
      origins: [{ ...origin, state: 'down' }, { ...origin, followed: true }, origin, { ...origin, state: 'unready' }],
    });
    t.same(document['origins'], ['down', 'followed', 'up', 'unready']);
    t.notMatch(JSON.stringify(document), /10\.1\.2\.3/);
  },
);

void t.test('it says how its disk, its journal and the certificate of the origin are', async (t) => {
  const words = [
    [HELD, 'current'],
    [{ kind: 'lapsed', currentMsAgo: 9 }, 'cut_off'],
    [{ kind: 'new' }, 'catching_up'],
  ] as const;
  for (const [state, word] of words) {
    const { document } = await ready({ lease: ['yes', state], diskState: 'away' });
    t.same([document['disk_tier'], document['journal'], 'origin_tls' in document], ['away', word, false]);
  }
  const { document } = await ready({ lease: null, trouble: 'expired' });
  t.same([document['disk_tier'], 'journal' in document, document['origin_tls']], ['in_use', false, 'expired']);
});
