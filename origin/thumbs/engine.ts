/**
 * The thumbnail engine: takes jobs from the durable queue, has them rendered in
 * child processes, keeps the results in the blob store and ends each job in one
 * transaction.
 */
import type { Clock } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { BlobStore } from '../blobs/blob-store.js';
import type { ThumbFormat, ThumbState } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import type { ThumbsConfig } from './config.js';

export interface ThumbsParts {
  readonly config: ThumbsConfig;
  readonly meta: MetaStore;
  readonly blobs: BlobStore;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** From 0 up to 1, for jitter and names. */
  readonly random?: () => number;
}

export interface ThumbCapabilities {
  readonly variants: readonly {
    readonly name: string;
    readonly width: number;
    readonly height: number;
    readonly fit: 'inside' | 'cover';
    readonly default: boolean;
  }[];
  readonly formats: readonly ThumbFormat[];
  readonly animated: boolean;
  /** Media types of which thumbnails are made. */
  readonly types: readonly string[];
  /** Whether ffmpeg was found: posters, durations and HEIC. */
  readonly video: { readonly available: boolean; readonly reason: string | null };
}

export interface ThumbsStatus {
  readonly waiting: number;
  readonly leased: number;
  readonly dead: number;
  readonly children: number;
  readonly running: number;
}

export interface Thumbs {
  /** Whether a job is to be queued for media of this type; otherwise `unsupported_type` stands at once. */
  accepts(mime: string): boolean;
  /** Somebody asks for it now: the job goes to the front. */
  hurry(sha256: Sha256): Promise<void>;
  /** The state as soon as it is no longer pending, or what it is after `waitMs`. Rejects when the signal aborts. */
  wait(sha256: Sha256, waitMs: number, signal: AbortSignal): Promise<ThumbState>;
  capabilities(): ThumbCapabilities;
  status(): Promise<ThumbsStatus>;
  close(): Promise<void>;
}

export function openThumbs(_parts: ThumbsParts): Promise<Thumbs> {
  return Promise.reject(new Error('the thumbnail engine has not landed yet'));
}
