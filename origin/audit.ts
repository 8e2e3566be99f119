/**
 * The audit log: one JSON line for every administrative act, appended to a file
 * and synced before the act is answered. Nothing is ever changed or removed; a
 * file that has grown large is renamed and a new one begun.
 */
import { type FileHandle, link, mkdir, open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { EpochMs } from '../src/clock.js';
import { section, size, text, type ValueOf } from '../src/config/field.js';
import { errorCode, Fault } from '../src/errors.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { syncPath } from './blobs/sync-path.js';

export const auditSection = section('The audit log: a line for every act of an admin, never changed or removed.', {
  file: text({
    default: './data/origin/audit/audit.jsonl',
    help: 'The file. Full ones stand beside it, with the instant of their end in the name.',
  }),
  rotateBytes: size({ default: '64MB', min: 1_000, help: 'A file of this size is ended and a new one begun.' }),
});

export type AuditConfig = ValueOf<typeof auditSection>;

export const AUDIT_ACTS = ['delete', 'quarantine', 'restore', 'scrub', 'backup', 'inspect'] as const;

export interface AuditAct {
  readonly at: EpochMs;
  /** The subject of the admin's token, or the name of a command. */
  readonly by: string;
  readonly act: (typeof AUDIT_ACTS)[number];
  /** What it was done to; null where it concerns no one media. */
  readonly target: MediaId | Sha256 | null;
  /** How it ended, as the store said: `done`, `already`, `unknown`, … */
  readonly outcome: string;
  /** The journal entry that it made or met. */
  readonly seq: number | null;
  readonly reason: string | null;
  readonly requestId: string | null;
  /** The client's address as the origin takes it to be. */
  readonly address: string | null;
}

export interface AuditLog {
  /** Resolves once the line is synced. Lines stand in the order of the calls. */
  append(act: AuditAct): Promise<void>;
  /** Waits for what was appended. May be called twice. */
  close(): Promise<void>;
}

interface Waiting {
  readonly line: string;
  readonly at: EpochMs;
  settle(failure: unknown): void;
}

export async function openAuditLog(config: AuditConfig): Promise<AuditLog> {
  await mkdir(dirname(config.file), { recursive: true });
  let file = await openFile(config.file);
  let waiting: Waiting[] = [];
  let writing: Promise<void> | undefined;
  let closing: Promise<void> | undefined;

  /** Lines that wait together share a sync. */
  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      const taken = waiting;
      waiting = [];
      let failure: unknown;
      try {
        file = await rotateIfFull(file, config, taken[0]?.at ?? 0);
        await append(file, taken.map(({ line }) => line).join(''));
      } catch (thrown) {
        failure = thrown;
      }
      for (const one of taken) one.settle(failure);
    }
    writing = undefined;
  }

  return {
    append(act) {
      if (closing !== undefined) return Promise.reject(new Fault('overloaded', 'The service is shutting down.'));
      return new Promise((resolve, reject) => {
        waiting.push({
          line: lineOf(act),
          at: act.at,
          settle: (failure) => (failure === undefined ? resolve() : reject(failure)),
        });
        writing ??= writeAll();
      });
    },
    close() {
      closing ??= (async () => {
        await writing;
        await file.handle.close();
      })();
      return closing;
    },
  };
}

interface OpenFile {
  readonly handle: FileHandle;
  /** Bytes that are known to be whole lines. */
  sizeBytes: number;
}

/** A line that a crash cut short is closed off, so that the next one stands by itself. */
async function openFile(path: string): Promise<OpenFile> {
  const handle = await open(path, 'a+');
  try {
    const file = { handle, sizeBytes: (await handle.stat()).size };
    if (file.sizeBytes > 0) {
      const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, file.sizeBytes - 1);
      if (buffer[0] !== NEWLINE) await append(file, '\n');
    }
    await syncPath(dirname(path));
    return file;
  } catch (thrown) {
    await handle.close();
    throw thrown;
  }
}

const NEWLINE = 10;

/** A write that fails half way is cut off again, as far as the disk allows. */
async function append(file: OpenFile, lines: string): Promise<void> {
  try {
    await file.handle.appendFile(lines);
    await file.handle.datasync();
    file.sizeBytes += Buffer.byteLength(lines);
  } catch (thrown) {
    await file.handle.truncate(file.sizeBytes).catch(() => undefined);
    throw thrown;
  }
}

async function rotateIfFull(file: OpenFile, config: AuditConfig, at: EpochMs): Promise<OpenFile> {
  if (file.sizeBytes < config.rotateBytes) return file;
  const ended = `${config.file}.${new Date(at).toISOString().replaceAll(':', '')}`;
  for (let nth = 0; ; nth += 1) {
    const name = nth === 0 ? ended : `${ended}-${nth}`;
    if (await moveAside(config.file, name)) break;
  }
  const next = await openFile(config.file);
  await file.handle.close();
  return next;
}

/** False where the name is taken: a file that was ended must not be replaced. */
async function moveAside(path: string, name: string): Promise<boolean> {
  try {
    await link(path, name);
    await unlink(path);
    return true;
  } catch (thrown) {
    if (errorCode(thrown) === 'EEXIST') return false;
    // Moved already, by hand or by a rotation that failed after this.
    if (errorCode(thrown) === 'ENOENT') return true;
    throw thrown;
  }
}

function lineOf({ at, ...act }: AuditAct): string {
  return `${JSON.stringify({ at: new Date(at).toISOString(), ...act })}\n`;
}
