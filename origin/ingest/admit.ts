/**
 * Decides from the head of an upload whether it may begin. A client that waits for
 * 100 Continue thus never sends a body that would be refused here.
 */
import { formatSize } from '../../src/bytes.js';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { Metrics } from '../../src/metrics.js';
import type { BlobStore } from '../blobs/blob-store.js';
import type { UploadConfig } from './config.js';

export interface Admission {
  /** Releases the reserved room. May be called twice. */
  release(): void;
}

export interface Admissions {
  /** `sizeBytes`: the announced size of the body, null if unknown. `form`: the body is a form around the file. */
  admit(upload: { readonly sizeBytes: number | null; readonly form: boolean }): Promise<Admission>;
}

export interface AdmissionDeps {
  readonly config: UploadConfig;
  readonly blobs: Pick<BlobStore, 'freeBytes'>;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** How long a measured free size is used again. Measuring it for each upload would cost too much. */
const FREE_BYTES_FRESH_MS = 500;

export function createAdmissions(deps: AdmissionDeps): Admissions {
  const { config, clock } = deps;
  let uploads = 0;
  let announcedBytes = 0;
  let free: { readonly at: number; readonly bytes: Promise<number | null> } | undefined;
  const uploadsNow = deps.metrics.gauge('uploads_now', 'Uploads in progress.');
  const bytesNow = deps.metrics.gauge('uploads_now_bytes', 'Bytes announced by uploads in progress.');
  deps.metrics.onCollect(() => {
    uploadsNow.set(uploads);
    bytesNow.set(announcedBytes);
  });

  async function hasRoom(): Promise<boolean> {
    const at = clock.monotonicMs();
    const known = free !== undefined && at - free.at < FREE_BYTES_FRESH_MS ? free : undefined;
    if (known !== undefined && isEnough(await known.bytes)) return true;
    // An upload is refused only by a fresh measurement.
    free = { at, bytes: deps.blobs.freeBytes() };
    return isEnough(await free.bytes);
  }

  function isEnough(left: number | null): boolean {
    return left === null || left - announcedBytes >= config.freeMinBytes;
  }

  return {
    async admit({ sizeBytes, form }) {
      const sizeMaxBytes = config.sizeMaxBytes + (form ? config.form.overheadMaxBytes : 0);
      if (sizeBytes !== null && sizeBytes > sizeMaxBytes) throw tooLarge(config.sizeMaxBytes);
      if (sizeBytes === 0) throw new Fault('empty', 'The upload has no bytes.');
      const reservedBytes = sizeBytes ?? sizeMaxBytes;
      const retryAfter = { headers: { 'retry-after': String(Math.ceil(config.retryAfterMs / 1_000)) } };
      // One upload is always admitted, or a bound below the largest size would refuse it for ever.
      if (uploads >= config.uploadsMax || (uploads > 0 && announcedBytes + reservedBytes > config.inHandMaxBytes)) {
        throw new Fault('overloaded', 'Too many uploads are in progress.', retryAfter);
      }
      // Reserved before the wait below, so that no other upload gets the same room.
      const admission = take(reservedBytes);
      try {
        if (await hasRoom()) return admission;
      } catch (thrown) {
        admission.release();
        throw thrown;
      }
      admission.release();
      throw new Fault('storage_full', 'The storage has no room left.');
    },
  };

  function take(bytes: number): Admission {
    let released = false;
    uploads += 1;
    announcedBytes += bytes;
    return {
      release() {
        if (released) return;
        released = true;
        uploads -= 1;
        announcedBytes -= bytes;
      },
    };
  }
}

export function tooLarge(sizeMaxBytes: number): Fault {
  return new Fault('too_large', `An upload has at most ${formatSize(sizeMaxBytes)} (${sizeMaxBytes} bytes).`, {
    members: { max_size: sizeMaxBytes },
  });
}
