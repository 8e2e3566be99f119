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
  /**
   * Reserves room for a body of which so many bytes have arrived, unless it is reserved already. Rejects with a Fault if
   * there is none; the admission is then still to be released.
   */
  hold(receivedBytes: number): Promise<void> | undefined;
  /** Releases the reserved room. May be called twice. */
  release(): void;
}

export interface Arrival {
  readonly subject: string;
  /** The announced size of the body, null if unknown. */
  readonly sizeBytes: number | null;
  /** Whether the body is a form around the file. */
  readonly form: boolean;
}

export interface Admissions {
  admit(upload: Arrival): Promise<Admission>;
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

/** What is reserved at first for a body of unknown length. Then the reservation doubles. */
const STEP_BYTES = 256 * 1_024;

interface InHand {
  uploads: number;
  bytes: number;
}

export function createAdmissions(deps: AdmissionDeps): Admissions {
  const { config, room, relieve } = deps;
  const all: InHand = { uploads: 0, bytes: 0 };
  /** Holds no subject that has nothing in hand. */
  const bySubject = new Map<string, InHand>();
  const uploadsNow = deps.metrics.gauge('uploads_now', 'Uploads in progress.');
  const bytesNow = deps.metrics.gauge('uploads_now_bytes', 'Bytes announced by uploads in progress.');
  deps.metrics.onCollect(() => {
    uploadsNow.set(all.uploads);
    bytesNow.set(all.bytes);
  });

  async function hasRoom(): Promise<boolean> {
    if (await room.takes(all.bytes)) return true;
    await relieve();
    return await room.takes(all.bytes);
  }

  return {
    async admit({ subject, sizeBytes, form }) {
      const sizeMaxBytes = config.sizeMaxBytes + (form ? config.form.overheadMaxBytes : 0);
      if (sizeBytes !== null && sizeBytes > sizeMaxBytes) throw tooLarge(config.sizeMaxBytes);
      if (sizeBytes === 0) throw new Fault('empty', 'The upload has no bytes.');
      const own = bySubject.get(subject) ?? { uploads: 0, bytes: 0 };
      const firstBytes = sizeBytes ?? Math.min(sizeMaxBytes, STEP_BYTES);
      requireShares(config, all, own, { uploads: 1, bytes: firstBytes });
      // Reserved before the wait below, so that no other upload gets the same room.
      bySubject.set(subject, own);
      const admission = take(subject, own, firstBytes, sizeMaxBytes);
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

  function take(subject: string, own: InHand, firstBytes: number, sizeMaxBytes: number): Admission {
    let heldBytes = 0;
    let released = false;
    const add = (uploads: number, bytes: number): void => {
      for (const inHand of [all, own]) {
        inHand.uploads += uploads;
        inHand.bytes += bytes;
      }
      heldBytes += bytes;
    };
    const grow = async (moreBytes: number): Promise<void> => {
      requireShares(config, all, own, { uploads: 0, bytes: moreBytes });
      add(0, moreBytes);
      if (!(await hasRoom())) throw full();
    };
    add(1, firstBytes);
    return {
      hold(receivedBytes) {
        if (receivedBytes <= heldBytes || heldBytes >= sizeMaxBytes || released) return undefined;
        return grow(Math.min(sizeMaxBytes, Math.max(receivedBytes, 2 * heldBytes)) - heldBytes);
      },
      release() {
        if (released) return;
        released = true;
        add(-1, -heldBytes);
        if (own.uploads === 0) bySubject.delete(subject);
      },
    };
  }
}

/**
 * Throws a Fault if there is no share for more. One upload is always admitted, or a bound below the largest size would
 * refuse it for ever.
 */
function requireShares(config: UploadConfig, all: InHand, own: InHand, more: InHand): void {
  const { uploadsMax, inHandMaxBytes, uploadsPerSubjectMax, inHandPerSubjectMaxBytes, retryAfterMs } = config;
  const retryAfter = { headers: { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) } };
  const exceeds = (inHand: InHand, uploads: number, bytes: number): boolean =>
    (more.uploads > 0 && inHand.uploads >= uploads) ||
    (inHand.uploads > 1 - more.uploads && inHand.bytes + more.bytes > bytes);
  if (exceeds(own, limitOf(uploadsPerSubjectMax), limitOf(inHandPerSubjectMaxBytes))) {
    throw new Fault('rate_limited', 'Too many of your uploads are in progress.', retryAfter);
  }
  if (exceeds(all, uploadsMax, inHandMaxBytes)) {
    throw new Fault('overloaded', 'Too many uploads are in progress.', retryAfter);
  }
}

function limitOf(max: number): number {
  return max === 0 ? Number.POSITIVE_INFINITY : max;
}

function full(): Fault {
  return new Fault('storage_full', 'The storage has no room left.');
}

export function tooLarge(sizeMaxBytes: number): Fault {
  return new Fault('too_large', `An upload has at most ${formatSize(sizeMaxBytes)} (${sizeMaxBytes} bytes).`, {
    members: { max_size: sizeMaxBytes },
  });
}
