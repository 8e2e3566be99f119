/**
 * Whether there is room for uploads: in every file system that the origin writes
 * to, and in the metadata. Measuring it for each upload would cost too much, so a
 * measurement that found room is used again for a moment. Nothing is refused by an
 * old one.
 */
import { statfs } from 'node:fs/promises';
import type { Clock } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import type { BlobStore } from '../blobs/blob-store.js';
import type { MetaStore, RecordsRoom } from '../meta/store.js';
import type { UploadConfig } from './config.js';

/** `records_full`: the metadata have reached the limit of their own, and the disks have room. */
export type RoomState = 'enough' | 'disk_full' | 'records_full';

export interface Room {
  /** Whether so many bytes of bodies may still arrive. */
  takes(bodyBytes: number): Promise<boolean>;
  /** For those who make room. Measures anew. */
  state(): Promise<RoomState>;
  /** A write has failed for lack of room. For a moment the state says so, whatever is measured. */
  noteFull(): void;
  /** Rejects with the reason if no upload could be stored. */
  require(): Promise<void>;
}

export interface RoomDeps {
  readonly config: Pick<UploadConfig, 'freeMinBytes'>;
  readonly blobs: Pick<BlobStore, 'freeBytes' | 'stageFolder'>;
  readonly meta: Pick<MetaStore, 'freeBytes' | 'room'>;
  /** Other folders that the origin writes to. */
  readonly folders: readonly string[];
  readonly clock: Clock;
}

const FRESH_MS = 500;
const NOTED_MS = 60_000;

interface Measured {
  /** Where bodies are written. */
  readonly bodiesBytes: number;
  /** In the other file systems, the least. */
  readonly othersBytes: number;
  readonly records: RecordsRoom;
}

export function createRoom({ config, blobs, meta, folders, clock }: RoomDeps): Room {
  let known: { readonly atMs: number; readonly measured: Promise<Measured> } | undefined;
  let notedMs = Number.NEGATIVE_INFINITY;

  async function measure(): Promise<Measured> {
    const [stored, staged, recorded, records, ...rest] = await Promise.all([
      blobs.freeBytes(),
      freeIn(blobs.stageFolder),
      meta.freeBytes(),
      meta.room(),
      ...folders.map(freeIn),
    ]);
    return { bodiesBytes: least([stored, staged]), othersBytes: least([recorded, ...rest]), records };
  }

  function measureNow(): Promise<Measured> {
    const measured = measure();
    known = { atMs: clock.monotonicMs(), measured };
    return measured;
  }

  /** Why there is no room, or undefined. */
  function lack(measured: Measured, bodyBytes: number): string | undefined {
    const { bodiesBytes, othersBytes, records } = measured;
    const { freeMinBytes } = config;
    const freeBytes = Math.min(bodiesBytes - bodyBytes, othersBytes);
    if (freeBytes < freeMinBytes) return `${freeBytes} bytes are free, ${freeMinBytes} are needed`;
    switch (records) {
      case 'enough':
        return undefined;
      case 'data_max':
        return 'the metadata have reached `data_max`';
      case 'no_reserve':
        return 'the disk of the metadata has no room for their reserve';
    }
  }

  return {
    async takes(bodyBytes) {
      if (known !== undefined && clock.monotonicMs() - known.atMs < FRESH_MS) {
        // Its rejection is for whoever began it.
        const recent = await known.measured.catch(() => undefined);
        if (recent !== undefined && lack(recent, bodyBytes) === undefined) return true;
      }
      return lack(await measureNow(), bodyBytes) === undefined;
    },
    async state() {
      const measured = await measureNow();
      if (lack(measured, 0) === undefined) return clock.monotonicMs() - notedMs < NOTED_MS ? 'disk_full' : 'enough';
      return measured.records === 'data_max' ? 'records_full' : 'disk_full';
    },
    noteFull() {
      notedMs = clock.monotonicMs();
    },
    async require() {
      const reason = lack(await measureNow(), 0);
      if (reason !== undefined) throw new Error(reason);
    },
  };
}

function least(sizes: readonly (number | null)[]): number {
  return Math.min(...sizes.map((bytes) => bytes ?? Number.POSITIVE_INFINITY));
}

/** Null for a folder that somebody removed: whoever writes to it makes it again, or fails. */
async function freeIn(folder: string): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT' || errorCode(thrown) === 'ENOTDIR') return null;
    throw thrown;
  }
}
