/**
 * A file for the lines of a log: appended to, rotated by its size, and opened
 * again when something else has moved it away.
 *
 * Promises: nothing waits for the disk but the lines themselves. A chunk of lines
 * is appended whole, so that several processes may write to one file. A write that
 * fails loses its lines and nothing else; the next one is tried as if nothing had
 * happened, and starts on a line of its own.
 */
import { close, fstat, fstatSync, mkdirSync, open, openSync, write, writeSync } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { errorCode } from '../errors.js';
import type { Output } from './lines.js';

export interface LogFileConfig {
  readonly path: string;
  /** A file that would grow beyond it is rotated; 0: never. */
  readonly sizeMaxBytes: number;
  /** How many older files are kept. */
  readonly keep: number;
}

export interface LogFile extends Output {
  /** Opens the path again before the next lines. One that cannot be opened stays as it was. */
  reopen(): void;
}

interface Opened {
  readonly fd: number;
  readonly inode: number;
  sizeBytes: number;
}

const MODE = 0o600;
const FOLDER_MODE = 0o700;
const NEWLINE = Buffer.from('\n');

const opening = promisify(open);
const measuring = promisify(fstat);
const closing = promisify(close);

/** Throws if the file cannot be opened. `onTrouble` hears of what went wrong beside writing. */
export function openLogFile(config: LogFileConfig, onTrouble: (thrown: unknown) => void): LogFile {
  const { path, sizeMaxBytes, keep } = config;
  mkdirSync(dirname(path), { recursive: true, mode: FOLDER_MODE });
  let file = openNow(path);
  let stale = false;
  /** The last line is a part of one, since the disk was full. */
  let torn = false;

  async function renew(): Promise<void> {
    const fd = await opening(path, 'a', MODE);
    const { ino, size } = await measuring(fd);
    const before = file.fd;
    file = { fd, inode: ino, sizeBytes: size };
    stale = false;
    torn = false;
    await closing(before);
  }

  async function rotate(): Promise<void> {
    const found = await stat(path).catch(() => undefined);
    // Somebody else has moved it already.
    if (found?.ino === file.inode) {
      for (let number = keep - 1; number >= 1; number -= 1) await move(`${path}.${number}`, `${path}.${number + 1}`);
      if (keep > 0) await move(path, `${path}.1`);
      else await rm(path, { force: true });
    }
    await renew();
  }

  async function prepare(bytes: number): Promise<void> {
    try {
      const full = sizeMaxBytes > 0 && file.sizeBytes > 0 && file.sizeBytes + bytes > sizeMaxBytes;
      if (full) await rotate();
      else if (stale) await renew();
    } catch (thrown) {
      onTrouble(thrown);
    }
  }

  async function append(chunk: Buffer): Promise<void> {
    await prepare(chunk.length);
    const whole = torn ? Buffer.concat([NEWLINE, chunk]) : chunk;
    for (let at = 0; at < whole.length; ) {
      const taken = await writeSome(file.fd, whole.subarray(at)).catch((thrown: unknown) => {
        torn = torn || at > 0;
        // Not of a full disk: what the path names now may be sound.
        stale = !FULL.has(errorCode(thrown) ?? '');
        throw thrown;
      });
      at += taken;
      file.sizeBytes += taken;
    }
    torn = false;
  }

  async function put(chunk: Buffer, done: Parameters<Output['write']>[1]): Promise<void> {
    let failure: Error | null = null;
    try {
      await append(chunk);
    } catch (thrown) {
      failure = thrown instanceof Error ? thrown : new Error(String(thrown));
    }
    done(failure);
  }

  return {
    write: (chunk, done) => void put(chunk, done),
    // What was given to the system is taken as written: nothing is written twice.
    unsentBytes: () => 0,
    writeSync: (chunk) => writeSync(file.fd, chunk),
    reopen() {
      stale = true;
    },
  };
}

const FULL: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);

function openNow(path: string): Opened {
  const fd = openSync(path, 'a', MODE);
  const { ino, size } = fstatSync(fd);
  return { fd, inode: ino, sizeBytes: size };
}

function writeSome(fd: number, bytes: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, (thrown, taken) => (thrown === null ? resolve(taken) : reject(thrown)));
  });
}

async function move(from: string, to: string): Promise<void> {
  await rename(from, to).catch((thrown: unknown) => {
    if (errorCode(thrown) !== 'ENOENT') throw thrown;
  });
}
