/**
 * Room on a disk for writes that must not fail: a file without meaning. When the
 * disk is full, its owner gives a part of the file back to the file system and
 * writes again. Later it takes the room back.
 *
 * Its bytes are random, because some file systems store equal bytes only once.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, stat, statfs, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface Reserve {
  /** Whether all of the room is kept. */
  readonly whole: boolean;
  /** Gives a part back to the file system. False if nothing was left. Never rejects. */
  giveBack(): Promise<boolean>;
  /** Takes the missing room if the disk has it. Resolves with `whole`. Never rejects. */
  refill(): Promise<boolean>;
}

/** The number of parts in which the room is given back. */
const PARTS = 8;
const CHUNK_BYTES = 2 ** 20;
/** Room that others must have left for the reserve to be taken, or it would be given back at once. */
const SPARE_BYTES = 2 ** 20;

/** Knows what an earlier run has kept, and takes nothing yet. */
export async function openReserve(path: string, sizeBytes: number): Promise<Reserve> {
  let keptBytes = Math.min(sizeBytes, await sizeOf(path));
  let last: Promise<boolean> = Promise.resolve(false);

  /** One change at a time. */
  function inTurn(change: () => Promise<boolean>): Promise<boolean> {
    last = last.then(change);
    return last;
  }

  return {
    get whole() {
      return keptBytes === sizeBytes;
    },
    giveBack: () =>
      inTurn(async () => {
        keptBytes = Math.min(keptBytes, await sizeOf(path));
        if (keptBytes === 0) return false;
        const left = Math.max(0, keptBytes - Math.ceil(sizeBytes / PARTS));
        try {
          await truncate(path, left);
        } catch {
          return false;
        }
        keptBytes = left;
        return true;
      }),
    refill: () =>
      inTurn(async () => {
        if (keptBytes === sizeBytes) return true;
        if (!(await extend(path, keptBytes, sizeBytes))) return false;
        keptBytes = sizeBytes;
        return true;
      }),
  };
}

/** All missing bytes or none. */
async function extend(path: string, fromBytes: number, toBytes: number): Promise<boolean> {
  try {
    const { bavail, bsize } = await statfs(dirname(path));
    if (bavail * bsize < toBytes - fromBytes + SPARE_BYTES) return false;
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      for (let at = fromBytes; at < toBytes; ) {
        const chunk = randomBytes(Math.min(CHUNK_BYTES, toBytes - at));
        at += (await file.write(chunk, 0, chunk.length, at)).bytesWritten;
      }
      await file.truncate(toBytes);
      return true;
    } catch {
      await file.truncate(fromBytes).catch(() => undefined);
      return false;
    } finally {
      await file.close();
    }
  } catch {
    return false;
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    return 0;
  }
}
