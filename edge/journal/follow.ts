/**
 * Follows the origin's takedown journal on one long stream and applies each
 * entry to the cache, in order.
 *
 * Promises: the stored position is never ahead of what is applied; a gap,
 * another journal or an unreadable position empties the cache; a connection on
 * which nothing is heard is given up; the lease is renewed only when all that
 * the origin had committed is applied. Leaves the meaning of a lapsed lease to
 * lease.ts and the connection itself to the upstream.
 */
import { sleep } from '../../src/clock.js';
import { bugFields } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { FollowerDeps } from './config.js';
import { createLease, type Lease } from './lease.js';
import { openPositionFile } from './position.js';
import { type FollowerLink, type Progress, runSession, type SessionDeps } from './session.js';

export interface FollowerState {
  readonly link: FollowerLink;
  readonly journal: string | null;
  /** The newest number applied here, or null before the first. */
  readonly applied: number | null;
  /** The newest number the origin is known to have. */
  readonly newest: number | null;
  readonly connects: number;
  readonly purges: number;
}

export interface Follower {
  readonly lease: Lease;
  /** Resolves true once all that was missed is applied, or false at the end where it never was. */
  readonly caughtUp: Promise<boolean>;
  state(): FollowerState;
  close(): Promise<void>;
}

/** Starts at once. Rejects only where the folder cannot be used. */
export async function followJournal(options: FollowerDeps): Promise<Follower> {
  const { config, clock, log } = options;
  const file = await openPositionFile(options.folder, (thrown) =>
    log.error(bugFields(thrown), 'the journal position could not be written'),
  );
  const read = await file.read();
  if (read.kind === 'damaged') log.error({}, 'the journal position is damaged: the cache will be emptied');
  const progress: Progress = {
    position: read.kind === 'found' ? read.position : undefined,
    newest: null,
    link: 'connecting',
    connects: 0,
    purges: 0,
  };
  const lease = createLease(config.lease, clock);
  const startedMs = clock.monotonicMs();
  const gate = createGate();
  void gate.passed.then((caughtUp) => {
    if (caughtUp) log.info({ tookMs: Math.round(clock.monotonicMs() - startedMs) }, 'all that was missed is applied');
  });
  const meters = createMeters(options.metrics, progress, lease);
  const closing = new AbortController();
  const running = keepFollowing(
    { options, progress, file, lease, onCurrent: () => gate.open() },
    meters,
    closing.signal,
  );
  let closed: Promise<void> | undefined;
  return {
    lease,
    caughtUp: gate.passed,
    state: () => stateOf(progress),
    close() {
      closed ??= (async () => {
        closing.abort(new Error('closing'));
        await running;
        gate.give();
        progress.link = 'closed';
        await file.flush().catch(() => {});
      })();
      return closed;
    },
  };
}

/** Resolves true when opened, false when given up. */
function createGate(): { readonly passed: Promise<boolean>; open(): void; give(): void } {
  let settle: (value: boolean) => void = () => {};
  const passed = new Promise<boolean>((resolve) => {
    settle = resolve;
  });
  return { passed, open: () => settle(true), give: () => settle(false) };
}

/** One session after the other, with a growing wait between those that came to nothing. */
async function keepFollowing(parts: SessionDeps, meters: Meters, signal: AbortSignal): Promise<void> {
  const { options, progress } = parts;
  const { config, clock, log } = options;
  let failures = 0;
  while (!signal.aborted) {
    progress.link = 'connecting';
    progress.connects += 1;
    const { reason, wasCurrent, cause } = await runSession(parts, signal);
    meters.ended.add(1, { reason });
    if (signal.aborted) return;
    failures = wasCurrent ? 0 : failures + 1;
    const ceilingMs = Math.min(config.reconnectMaxMs, config.reconnectMinMs * 2 ** Math.min(failures, 30));
    const waitMs = Math.round(ceilingMs * (0.5 + options.random() / 2));
    log.warn({ reason, waitMs, ...cause }, 'the journal stream ended; connecting again');
    progress.link = 'waiting';
    await sleep(clock, waitMs, signal).catch(() => {});
  }
}

function stateOf(progress: Progress): FollowerState {
  const { link, position, newest, connects, purges } = progress;
  return { link, journal: position?.journal ?? null, applied: position?.seq ?? null, newest, connects, purges };
}

interface Meters {
  readonly ended: { add(amount: number, labels: Partial<Record<'reason', string>>): void };
}

function createMeters(metrics: Metrics, progress: Progress, lease: Lease): Meters {
  const applied = metrics.gauge('edge_journal_applied', 'Number of the newest journal entry applied here.');
  const behind = metrics.gauge('edge_journal_behind', 'Journal entries that the origin has and that are not applied.');
  const current = metrics.gauge('edge_journal_lease', 'Lease: 1 held, 0 lapsed or never had.');
  metrics.onCollect(() => {
    const seq = progress.position?.seq ?? 0;
    applied.set(seq);
    behind.set(Math.max(0, (progress.newest ?? seq) - seq));
    current.set(lease.state().kind === 'held' ? 1 : 0);
  });
  return {
    ended: metrics.counter('edge_journal_streams_ended_total', 'Journal streams that ended, by reason.', ['reason']),
  };
}
