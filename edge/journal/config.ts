/**
 * What following the journal works with: its settings, and what the composition
 * root hands it. Declarations alone.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { MediaId } from '../../src/ids.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { EdgeCache } from '../cache/cache.js';
import { leaseSection } from './lease.js';

export const journalSection = section('How this edge follows the takedown journal of the origin.', {
  lease: leaseSection,
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
    readonly target: string;
    readonly headers: HeaderList;
    readonly body?: Buffer;
  },
  signal: AbortSignal,
) => Promise<{ readonly status: number; readonly body: Readable }>;

export interface FollowerDeps {
  readonly config: JournalConfig;
  /** The edge's configured name, as the origin will list it. */
  readonly edgeName: string;
  /** Random per start. */
  readonly instance: string;
  readonly open: OpenOrigin;
  /** Value of the request header `edge-authorization`, as it is by now. */
  proof(): string;
  readonly cache: Pick<EdgeCache, 'takeDown' | 'purge'>;
  /**
   * Called before the cache is told, for what is not in it yet: a request under
   * way to the origin, whose answer may be older than the takedown.
   */
  onTakedown(id: MediaId): void;
  /** The same, when everything must go. */
  onPurgeAll(): void;
  /** How often the origin wants to hear what was served; undefined: not at all. */
  onUsesWanted(everyMs: number | undefined): void;
  /** The folder that keeps the position, beside the cache. */
  readonly folder: string;
  readonly clock: Clock;
  /** Between 0 and 1, for jitter. */
  random(): number;
  readonly log: Log;
  readonly metrics: Metrics;
}
