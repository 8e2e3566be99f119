/**
 * Quotas per subject: bytes and files per period, counting only what was
 * stored. `reserve` is asked before the body is read, so that a client over its
 * quota never sends it; the count itself, and the last word, are the commit's,
 * in its own transaction (UploadQuota). Between the two a reservation counts what
 * is under way, so that many uploads at once cannot each see the same room.
 */
import type { Clock, EpochMs } from '../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../src/config/field.js';
import type { MetaStore, UploadQuota, Usage } from './meta/store.js';

export const quotaSection = section(
  'Quotas per subject. Only what was stored counts: no duplicates, no refused uploads.',
  {
    periodMs: duration({ default: '24h', min: 60_000, help: 'Length of a period; usage starts at zero with each.' }),
    totalBytes: size({ default: '0', help: 'Bytes that a subject may store per period; 0: no limit.' }),
    filesMax: integer({ default: 0, min: 0, help: 'Files that a subject may store per period; 0: no limit.' }),
  },
);

export type QuotaConfig = ValueOf<typeof quotaSection>;

export type QuotaOutcome =
  | { readonly kind: 'reserved'; readonly reservation: Reservation }
  | { readonly kind: 'refused'; readonly retryAfterMs: number };

export interface Reservation {
  /** For NewMedia.quota; undefined where no quota is configured. */
  readonly quota: UploadQuota | undefined;
  /** Must be called however the upload ends. May be called twice. */
  release(): void;
}

export interface Quotas {
  /** `sizeBytes`: what the request announces, or null where it does not say. */
  reserve(owner: string, sizeBytes: number | null): Promise<QuotaOutcome>;
  /** How long until the period ends, for Retry-After of a refusal at the commit. */
  retryAfterMs(): number;
}

export function createQuotas(config: QuotaConfig, store: Pick<MetaStore, 'usage'>, clock: Clock): Quotas {
  const bytesMax = config.totalBytes === 0 ? Number.POSITIVE_INFINITY : config.totalBytes;
  const filesMax = config.filesMax === 0 ? Number.POSITIVE_INFINITY : config.filesMax;
  const limited = Number.isFinite(bytesMax) || Number.isFinite(filesMax);
  const underWay = new Map<string, { bytes: number; files: number }>();

  function retryAfterMs(): number {
    const now = clock.now();
    return periodStart(now, config.periodMs) + config.periodMs - now;
  }

  function take(owner: string, bytes: number): () => void {
    const held = underWay.get(owner) ?? { bytes: 0, files: 0 };
    underWay.set(owner, held);
    held.bytes += bytes;
    held.files += 1;
    let released = false;
    return () => {
      if (released) return;
      released = true;
      held.bytes -= bytes;
      held.files -= 1;
      if (held.files === 0) underWay.delete(owner);
    };
  }

  return {
    retryAfterMs,
    async reserve(owner, sizeBytes) {
      if (!limited) return { kind: 'reserved', reservation: { quota: undefined, release: () => undefined } };
      const quota: UploadQuota = { periodStartAt: periodStart(clock.now(), config.periodMs), bytesMax, filesMax };
      const bytes = sizeBytes ?? 0;
      const others = underWay.get(owner) ?? { bytes: 0, files: 0 };
      // Counted before the look at the store, so that a second caller sees it.
      const seen = { ...others };
      const release = take(owner, bytes);
      try {
        const usage = await store.usage(owner, quota.periodStartAt);
        if (fits(usage, quota, seen.bytes + bytes, seen.files + 1)) {
          return { kind: 'reserved', reservation: { quota, release } };
        }
      } catch (thrown) {
        release();
        throw thrown;
      }
      release();
      return { kind: 'refused', retryAfterMs: retryAfterMs() };
    },
  };
}

/** Whether so much more stays within the quota. An upload of unknown size needs at least some room. */
export function fits(usage: Usage, quota: UploadQuota, moreBytes: number, moreFiles: number): boolean {
  return (
    usage.files + moreFiles <= quota.filesMax &&
    usage.bytes < quota.bytesMax &&
    usage.bytes + moreBytes <= quota.bytesMax
  );
}

export function periodStart(now: EpochMs, periodMs: number): EpochMs {
  return Math.floor(now / periodMs) * periodMs;
}
