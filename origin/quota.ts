/**
 * Quotas per subject: bytes and files per period. Only what was stored counts.
 * `reserve` is called before the body is read, so that a client over its quota
 * need not send it. The commit decides and counts, in its transaction
 * (UploadQuota). Until then a reservation counts the upload, so that several
 * uploads at once cannot use the same quota.
 */
import type { Clock, EpochMs } from '../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../src/config/field.js';
import type { MetaStore, UploadQuota, Usage } from './meta/store.js';

export const quotaSection = section(
  'Quotas per subject. Only what was stored counts, not duplicates or refused uploads.',
  {
    periodMs: duration({
      default: '24h',
      min: 60_000,
      live: true,
      help: 'Length of a period. Usage starts at zero with each period.',
    }),
    totalBytes: size({ default: '0', live: true, help: 'Bytes that a subject may store per period; 0: no limit.' }),
    filesMax: integer({
      default: 0,
      min: 0,
      live: true,
      help: 'Files that a subject may store per period; 0: no limit.',
    }),
  },
);

export type QuotaConfig = ValueOf<typeof quotaSection>;

export type QuotaOutcome =
  | { readonly kind: 'reserved'; readonly reservation: Reservation }
  | { readonly kind: 'refused'; readonly retryAfterMs: number };

export interface Reservation {
  /** For NewMedia.quota; undefined if no quota is configured. */
  readonly quota: UploadQuota | undefined;
  /** Call it however the upload ends. May be called twice. */
  release(): void;
}

export interface Quotas {
  /**
   * `sizeBytes`: the announced size, or null if there is none. `files`: 0 for a partial upload, which becomes a file only
   * together with others.
   */
  reserve(owner: string, sizeBytes: number | null, files?: 0 | 1): Promise<QuotaOutcome>;
  /** Time until the period ends, for the Retry-After of a refusal by the commit. */
  retryAfterMs(): number;
}

export function createQuotas(config: QuotaConfig, store: Pick<MetaStore, 'usage'>, clock: Clock): Quotas {
  const underWay = new Map<string, { bytes: number; files: number }>();

  function retryAfterMs(): number {
    const now = clock.now();
    return periodStart(now, config.periodMs) + config.periodMs - now;
  }

  function take(owner: string, bytes: number, files: 0 | 1): () => void {
    const reserved = underWay.get(owner) ?? { bytes: 0, files: 0 };
    underWay.set(owner, reserved);
    reserved.bytes += bytes;
    reserved.files += files;
    let released = false;
    return () => {
      if (released) return;
      released = true;
      reserved.bytes -= bytes;
      reserved.files -= files;
      // A partial upload of unknown size reserves nothing, so another object may have taken the place of this one.
      const isEmpty = reserved.files === 0 && reserved.bytes === 0;
      if (isEmpty && underWay.get(owner) === reserved) underWay.delete(owner);
    };
  }

  return {
    retryAfterMs,
    async reserve(owner, sizeBytes, files = 1) {
      const bytesMax = limitOf(config.totalBytes);
      const filesMax = limitOf(config.filesMax);
      if (!Number.isFinite(bytesMax) && !Number.isFinite(filesMax)) {
        return { kind: 'reserved', reservation: { quota: undefined, release: () => undefined } };
      }
      const quota: UploadQuota = { periodStartAt: periodStart(clock.now(), config.periodMs), bytesMax, filesMax };
      const bytes = sizeBytes ?? 0;
      const others = underWay.get(owner) ?? { bytes: 0, files: 0 };
      // Counted before the store is read, so that a second upload sees it.
      const seen = { ...others };
      const release = take(owner, bytes, files);
      try {
        const usage = await store.usage(owner, quota.periodStartAt);
        if (fits(usage, quota, seen.bytes + bytes, Math.max(1, seen.files + files))) {
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

function limitOf(max: number): number {
  return max === 0 ? Number.POSITIVE_INFINITY : max;
}

/** Whether this much more stays within the quota. An upload of unknown size needs some bytes to be left. */
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
