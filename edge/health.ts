/** The health of the edge. It is ready if a request for media would be answered now. */
import type { Clock } from '../src/clock.js';
import type { Log } from '../src/log.js';
import type { Metrics } from '../src/metrics.js';
import { type Health, openHealth } from '../src/server/health.js';
import type { EdgeCache } from './cache/cache.js';
import type { Lease, LeaseState } from './journal/lease.js';
import type { Upstream } from './upstream/upstream.js';

export interface HealthDeps {
  readonly cache: Pick<EdgeCache, 'probe' | 'stats' | 'diskState'>;
  readonly upstream: Pick<Upstream, 'askAll' | 'tlsTrouble' | 'stats'>;
  /** Null in generic mode: there is no journal to follow. */
  readonly lease: Lease | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export function createHealth(deps: HealthDeps): Health {
  const { cache, lease, upstream } = deps;
  return openHealth({
    ...deps,
    checks: [
      ['origin', (signal) => requireOriginOrCopies(deps, signal)],
      ['cache', () => cache.probe()],
      ...(lease === null ? [] : ([['journal', async () => requireLease(lease)]] as const)),
    ],
    about: () => ({
      disk_tier: cache.diskState,
      ...(lease !== null && { journal: JOURNAL_WORDS[lease.state().kind] }),
      ...originsOf(upstream),
      ...(upstream.tlsTrouble !== null && { origin_tls: upstream.tlsTrouble }),
    }),
  });
}

/** The state of the journal in `/readyz`. The edge may serve stored media in some of the other states too. */
const JOURNAL_WORDS: Readonly<Record<LeaseState['kind'], string>> = {
  new: 'catching_up',
  held: 'current',
  lapsed: 'cut_off',
};

/** With several: the state of each, in the order of the configuration. Their addresses are for operators alone. */
function originsOf(upstream: Pick<Upstream, 'stats'>): { readonly origins?: readonly string[] } {
  const { origins } = upstream.stats();
  if (origins.length < 2) return {};
  return { origins: origins.map(({ state, followed }) => (state === 'up' && followed ? 'followed' : state)) };
}

/** Passes if an origin answers at all, or if there are stored responses that may be served without it. */
async function requireOriginOrCopies({ upstream, cache, lease }: HealthDeps, signal: AbortSignal): Promise<void> {
  const outcome = await upstream.askAll(signal);
  if (outcome === 'answered') return;
  const { memory, disk } = cache.stats();
  const serving = memory.entries + disk.entries > 0 && (lease === null || lease.mayServe() === 'yes');
  if (!serving) throw new Error(`the origin does not answer (${outcome}), and nothing stored may be served`);
}

function requireLease(lease: Lease): void {
  if (lease.mayServe() === 'yes') return;
  const caughtUp = lease.state().kind !== 'new';
  throw new Error(
    caughtUp ? 'the edge is cut off from the takedown journal' : 'takedowns that were missed are still being applied',
  );
}
