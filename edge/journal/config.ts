/** The settings and the dependencies of everything that follows the journal. Declarations only. */
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { MediaId } from '../../src/ids.js';
import type { EdgesBehind } from '../../src/journal/confirmation.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { EdgeCache } from '../cache/cache.js';
import type { AppliedSink } from './applied-journal.js';
import { leaseSection } from './lease.js';

export const journalSection = section('How this edge follows the takedown journal of the origin.', {
  lease: leaseSection,
  connectTimeoutMs: duration({
    default: '5s',
    min: 100,
    max: 60_000,
    help: 'How long the origin may take to open the stream or to answer a confirmation.',
  }),
  silentBeatsMax: integer({
    default: 3,
    min: 2,
    max: 100,
    help: 'The connection is given up after so many missing beats.',
  }),
  reconnectMinMs: duration({
    default: '100ms',
    min: 10,
    max: 60_000,
    help: 'The first wait before connecting again. It doubles with every failure, and a random part is taken off.',
  }),
  reconnectMaxMs: duration({ default: '5s', min: 10, max: 600_000, help: 'The longest wait before connecting again.' }),
  batchMax: integer({ default: 256, min: 1, max: 10_000, help: 'The most entries that are applied at the same time.' }),
  lineMaxBytes: size({
    default: '4MiB',
    min: 65_536,
    max: 268_435_456,
    help: 'The longest line accepted from the origin. A quarantine lists all ids of its bytes in one line.',
  }),
});

export type JournalConfig = ValueOf<typeof journalSection>;

/**
 * Sends one request to the origin. Resolves with the head; the caller reads or
 * destroys the body. Aborting the signal ends both. It must not limit the time
 * between two chunks.
 */
export type OpenOrigin = (
  request: {
    readonly method: 'GET' | 'POST';
    readonly target: string;
    readonly headers: HeaderList;
    readonly body?: Buffer;
  },
  signal: AbortSignal,
) => Promise<{ readonly status: number; readonly body: Readable }>;

/** The origins besides the one that `open` asks. */
export interface OtherOrigins {
  readonly count: number;
  /** `open` asks another one from now on. False: no other is up. */
  moveOn(): boolean;
}

export interface FollowerDeps {
  readonly config: JournalConfig;
  /** The configured name of the edge, which the origin lists. */
  readonly edgeName: string;
  /** Random for each start. */
  readonly instance: string;
  readonly open: OpenOrigin;
  /** Absent: there is one origin. */
  readonly others?: OtherOrigins;
  /** The current value of the request field `edge-authorization`. */
  readonly proof: () => string;
  readonly cache: Pick<EdgeCache, 'takeDown' | 'purge' | 'appliedBefore' | 'noteApplied'>;
  /**
   * Called before the takedown is applied to the cache, for what is not in the
   * cache yet: a response on its way from the origin may be older than the takedown.
   */
  readonly onTakedown: (id: MediaId) => void;
  /** The same for a purge of everything. */
  readonly onPurgeAll: () => void;
  /** How often the origin wants use reports; undefined: never. */
  readonly onUseReportsWanted: (everyMs: number | undefined) => void;
  /** The edges behind this one, which are confirmed with it. */
  readonly behind: () => EdgesBehind;
  /** Gets what is applied, for the edges behind this one. */
  readonly applied: AppliedSink;
  /** The folder for the position. */
  readonly folder: string;
  readonly clock: Clock;
  /** From 0 to 1, for jitter. */
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}
