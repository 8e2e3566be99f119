/**
 * Decides from the head of an upload whether it may begin. A client that waits for
 * 100 Continue thus never sends a body that would be refused here.
 */
import { formatSize } from '../../src/bytes.js';
import { Fault, faultOf } from '../../src/errors.js';
import type { Metrics } from '../../src/metrics.js';
import type { Sweeper } from '../upkeep/sweeper.js';
import type { UploadConfig } from './config.js';
import type { Room } from './room.js';

export interface Admission {
  /** Releases the reserved room. May be called twice. */
  release(): void;
}

export interface Admissions {
  /** `sizeBytes`: the announced size of the body, null if unknown. `form`: the body is a form around the file. */
  admit(upload: { readonly sizeBytes: number | null; readonly form: boolean }): Promise<Admission>;
  /** Throws a Fault if there is no room for uploads; for what has no body yet. */
  requireRoom(): Promise<void>;
  /** An upload has failed. If the storage was full, room is made for the next one. */
  failed(thrown: unknown): void;
}

export interface AdmissionDeps {
  readonly config: UploadConfig;
  readonly room: Pick<Room, 'takes' | 'noteFull'>;
  /** Frees what nobody needs. */
  readonly relieve: Sweeper['relieve'];
  readonly metrics: Metrics;
}

export function createAdmissions(deps: AdmissionDeps): Admissions {
  const { config, room, relieve } = deps;
  let uploads = 0;
  let announcedBytes = 0;
  const uploadsNow = deps.metrics.gauge('uploads_now', 'Uploads in progress.');
  const bytesNow = deps.metrics.gauge('uploads_now_bytes', 'Bytes announced by uploads in progress.');
  deps.metrics.onCollect(() => {
    uploadsNow.set(uploads);
    bytesNow.set(announcedBytes);
  });

  async function hasRoom(): Promise<boolean> {
    if (await room.takes(announcedBytes)) return true;
    await relieve();
    return await room.takes(announcedBytes);
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
      throw full();
    },
    async requireRoom() {
      if (!(await hasRoom())) throw full();
    },
    failed(thrown) {
      if (faultOf(thrown).code !== 'storage_full') return;
      room.noteFull();
      void relieve();
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

function full(): Fault {
  return new Fault('storage_full', 'The storage has no room left.');
}

export function tooLarge(sizeMaxBytes: number): Fault {
  return new Fault('too_large', `An upload has at most ${formatSize(sizeMaxBytes)} (${sizeMaxBytes} bytes).`, {
    members: { max_size: sizeMaxBytes },
  });
}
