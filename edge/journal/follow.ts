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
import type { Readable } from 'node:stream';
import { type Clock, sleep } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { MediaId } from '../../src/ids.js';
import { bugFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { EdgeCache } from '../cache/cache.js';
import { createLease, type Lease, leaseSection } from './lease.js';
import { openPositionFile } from './position.js';
import { type FollowerLink, type Progress, runSession, type SessionParts } from './session.js';

export const journalSection = section('How this edge follows the takedown journal of the origin.', {
  lease: leaseSection,
  catchUpMaxMs: duration({
    default: '10s',
    min: 0,
    max: 600_000,
    help: 'How long a starting edge waits until it has applied what it missed, before it serves by the rules of a lapsed lease.',
  }),
  connectTimeoutMs: duration({
    default: '5s',
    min: 100,
    max: 60_000,
    help: 'How long the origin may take to open the stream, or to answer a confirmation.',
  }),
  silentBeatsMax: integer({
    default: 3,
    min: 2,
    max: 100,
    help: 'Beats that may fail to come before the connection is given up as dead.',
  }),
  reconnectMinMs: duration({
    default: '100ms',
    min: 10,
    max: 60_000,
    help: 'The first wait before connecting again; it doubles with every failure, less a random part.',
  }),
  reconnectMaxMs: duration({ default: '5s', min: 10, max: 600_000, help: 'The longest wait before connecting again.' }),
  batchMax: integer({ default: 256, min: 1, max: 10_000, help: 'Entries that are applied at the same time.' }),
  lineMaxBytes: size({
    default: '4MiB',
    min: 65_536,
    max: 268_435_456,
    help: 'The longest line accepted from the origin; a quarantine names every id over its bytes in one.',
  }),
});

export type JournalConfig = ValueOf<typeof journalSection>;

/**
 * One request to the origin, made by whoever owns the connections. Resolves
 * with the head; the body is to be read or destroyed. Aborting the signal ends
 * either. Must not have a limit of its own on the time between two chunks.
 */
export type OpenOrigin = (
  request: {
    readonly method: 'GET' | 'POST';
    readonly path: string;
    readonly headers: HeaderList;
    readonly body?: Buffer;
  },
  signal: AbortSignal,
) => Promise<{ readonly status: number; readonly body: Readable }>;

export interface FollowerOptions {
  readonly config: JournalConfig;
  /** The edge's configured name, as the origin will list it. */
  readonly edgeName: string;
  /** Random per start. */
  readonly instance: string;
  readonly open: OpenOrigin;
  /** Value of the request header `edge-authorization`. */
  readonly proof: string;
  readonly cache: Pick<EdgeCache, 'takeDown' | 'purge'>;
  /**
   * Called before the cache is told, for what is not in it yet: a request under
   * way to the origin, whose answer may be older than the takedown.
   */
  onTakedown(id: MediaId): void;
  /** The same, when everything must go. */
  onPurgeAll(): void;
  /** The folder that keeps the position, beside the cache. */
  readonly folder: string;
  readonly clock: Clock;
  /** Between 0 and 1, for jitter. */
  random(): number;
  readonly log: Log;
  readonly metrics: Metrics;
}

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
  /** Resolves once all that was missed is applied, or after `catch_up_max`: then the lease decides. True: caught up. */
  readonly caughtUp: Promise<boolean>;
  state(): FollowerState;
  close(): Promise<void>;
}

/** Starts at once. Rejects only where the folder cannot be used. */
export async function followJournal(options: FollowerOptions): Promise<Follower> {
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
  const gate = createGate(clock, config.catchUpMaxMs);
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

/** Resolves true when opened, false when that takes too long or is given up. */
function createGate(clock: Clock, waitMs: number): { readonly passed: Promise<boolean>; open(): void; give(): void } {
  let settle: (value: boolean) => void = () => {};
  const passed = new Promise<boolean>((resolve) => {
    settle = resolve;
  });
  const timer = clock.after(waitMs, () => settle(false));
  const end = (value: boolean) => () => {
    timer.cancel();
    settle(value);
  };
  return { passed, open: end(true), give: end(false) };
}

/** One session after the other, with a growing wait between those that came to nothing. */
async function keepFollowing(parts: SessionParts, meters: Meters, signal: AbortSignal): Promise<void> {
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
