/**
 * Follows the origin's takedown journal on one long stream. session.ts applies
 * each entry to the cache, in order: `takeDown` of cache/tiered.ts removes the
 * media from memory, disk and the responses that are arriving or being sent.
 *
 * Promises: the stored position is never ahead of what is applied; a gap,
 * another journal or an unreadable position empties the cache, and so does a cache
 * that cannot say how far the journal was applied to it; a silent
 * connection is given up; the lease is renewed only when everything is applied
 * that the origin had committed. Leaves to lease.ts what a lapsed lease means,
 * and to the upstream the connection itself.
 */
import { waitFor } from '../../src/abort.js';
import { bugFields } from '../../src/log.js';
import type { CounterOf, Metrics } from '../../src/metrics.js';
import type { FollowerDeps } from './config.js';
import { createLease, type Lease } from './lease.js';
import { openPositionFile } from './position.js';
import { type FollowerLink, type Progress, runSession, type SessionDeps } from './session.js';
import { whereToStart } from './start.js';
import type { SessionEnd } from './stream.js';

export interface FollowerState {
  readonly link: FollowerLink;
  readonly journal: string | null;
  /** The newest number applied here, or null before the first. */
  readonly applied: number | null;
  /** The newest number that the origin is known to have. */
  readonly newest: number | null;
  readonly connects: number;
  readonly purges: number;
}

export interface Follower {
  readonly lease: Lease;
  state(): FollowerState;
  /** The edges behind this one, or what they have confirmed, have changed. */
  behindChanged(): void;
  /** The origin has answered another request: there is no reason to wait before connecting again. */
  originAnswered(): void;
  /** Tells the origin that this edge stops, if it is connected. Call it before `close`, when nothing is served any more. */
  leave(): Promise<void>;
  close(): Promise<void>;
}

/** Starts at once. */
export async function followJournal(deps: FollowerDeps): Promise<Follower> {
  const { config, folder, clock, log, metrics } = deps;
  const file = await openPositionFile(folder, (thrown) =>
    log.error(bugFields(thrown), 'the journal position could not be written'),
  );
  const start = whereToStart(await file.read(), deps.cache.appliedBefore);
  if (start.kind === 'empty_cache' && start.why !== 'no_position') {
    log.error({ why: start.why }, 'the cache will be emptied: takedowns may be missing in it');
  }
  const progress: Progress = {
    position: start.kind === 'continue' ? start.position : undefined,
    newest: null,
    link: 'connecting',
    connects: 0,
    purges: 0,
    confirmer: undefined,
  };
  const lease = createLease(config.lease, clock);
  deps.applied.begin(lease, progress.position);
  const startedMs = clock.monotonicMs();
  let wasCurrent = false;
  const onCurrent = (): void => {
    if (wasCurrent) return;
    wasCurrent = true;
    log.info({ tookMs: Math.round(clock.monotonicMs() - startedMs) }, 'all missed journal entries are applied');
  };
  const ended = createMetrics(metrics, progress, lease);
  const closing = new AbortController();
  const wait = createReconnectWait(deps);
  const running = keepFollowing({ ...deps, progress, file, lease, onCurrent }, wait, ended, closing.signal);
  let closed: Promise<void> | undefined;
  return {
    lease,
    state: () => stateOf(progress),
    behindChanged() {
      if (progress.position !== undefined) progress.confirmer?.confirm(progress.position.seq);
    },
    originAnswered: () => wait.end(),
    leave: async () => await progress.confirmer?.leave(),
    close() {
      closed ??= (async () => {
        closing.abort(new Error('closing'));
        await running;
        progress.link = 'closed';
        await file.flush().catch(() => {});
      })();
      return closed;
    },
  };
}

/**
 * One session after the other, the next one at another origin. The wait between them grows until a session is current
 * again; there is none before another origin that is up, once for each.
 */
async function keepFollowing(
  deps: SessionDeps,
  wait: ReconnectWait,
  ended: CounterOf<'reason'>,
  signal: AbortSignal,
): Promise<void> {
  const { config, log, progress, others } = deps;
  let failures = 0;
  /** Since a session was current, or the last wait. */
  let moves = 0;
  while (!signal.aborted) {
    progress.link = 'connecting';
    progress.connects += 1;
    const { reason, wasCurrent, cause } = await runSession(deps, signal);
    ended.add(1, { reason });
    if (signal.aborted) return;
    failures = wasCurrent ? 0 : failures + 1;
    if (wasCurrent) moves = 0;
    if (others?.moveOn() === true && moves < others.count) {
      moves += 1;
      log.warn({ reason, ...cause }, 'the journal stream ended; following it at another origin');
      continue;
    }
    moves = 0;
    const ceilingMs = Math.min(config.reconnectMaxMs, config.reconnectMinMs * 2 ** Math.min(failures, 30));
    const waitMs = Math.round(ceilingMs * (0.5 + deps.random() / 2));
    log.warn({ reason, waitMs, ...cause }, 'the journal stream ended; connecting again');
    progress.link = 'waiting';
    await wait.begin(waitMs, MAY_BE_OVER.has(reason), signal).catch(() => {});
  }
}

/** The endings after which an answer of the origin to any other request says that it can be reached again. */
const MAY_BE_OVER: ReadonlySet<SessionEnd> = new Set(['unreachable', 'closed_by_origin', 'silent', 'delayed']);

interface ReconnectWait {
  begin(waitMs: number, mayEndEarly: boolean, signal: AbortSignal): Promise<void>;
  /** Ends a wait that may end early, though not before `reconnect_min`. */
  end(): void;
}

function createReconnectWait({ clock, config }: Pick<FollowerDeps, 'clock' | 'config'>): ReconnectWait {
  let endEarly: (() => void) | undefined;
  return {
    begin(waitMs, mayEndEarly, signal) {
      const earliestMs = clock.monotonicMs() + config.reconnectMinMs;
      return waitFor((come) => {
        let timer = clock.after(waitMs, come);
        if (mayEndEarly) {
          endEarly = () => {
            endEarly = undefined;
            timer.cancel();
            timer = clock.after(Math.min(waitMs, Math.max(0, earliestMs - clock.monotonicMs())), come);
          };
        }
        return () => {
          endEarly = undefined;
          timer.cancel();
        };
      }, signal);
    },
    end: () => endEarly?.(),
  };
}

function stateOf(progress: Progress): FollowerState {
  const { link, position, newest, connects, purges } = progress;
  return { link, journal: position?.journal ?? null, applied: position?.seq ?? null, newest, connects, purges };
}

function createMetrics(metrics: Metrics, progress: Progress, lease: Lease): CounterOf<'reason'> {
  const applied = metrics.gauge('edge_journal_applied', 'Number of the newest journal entry applied here.', [], 'min');
  const behind = metrics.gauge(
    'edge_journal_behind',
    'Journal entries that the origin has and that are not applied.',
    [],
    'max',
  );
  const current = metrics.gauge('edge_journal_lease', 'Lease: 1 held, 0 lapsed or never had.', [], 'min');
  metrics.onCollect(() => {
    const seq = progress.position?.seq ?? 0;
    applied.set(seq);
    behind.set(Math.max(0, (progress.newest ?? seq) - seq));
    current.set(lease.state().kind === 'held' ? 1 : 0);
  });
  return metrics.counter('edge_journal_streams_ended_total', 'Journal streams that ended, by reason.', ['reason']);
}
