/**
 * The audit log: one JSON line for every act of an admin, durable before the act is
 * answered. Lines are never changed or removed. Where several origins may share a
 * database, it is a table there, and a takedown and its line are one transaction.
 * Otherwise it is a file, to which the line is appended after the act. A file that
 * has reached its size is renamed, and a new one begins. On a full disk, lines
 * are written to room that is kept in reserve for them.
 */
import { type FileHandle, link, open, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { EpochMs } from '../src/clock.js';
import { section, size, text, type ValueOf } from '../src/config/field.js';
import { errorCode, Fault, faultOf } from '../src/errors.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { makeFolder, tightenFile } from '../src/private-folder.js';
import { syncPath } from './blobs/files.js';
import { openReserve, type Reserve } from './meta/lmdb/reserve.js';
import type { AuditLine, AuditTable, Note, SharedTables } from './meta/origins/shared.js';

export const auditSection = section(
  'The audit log: one line for every act of an admin. Lines are never changed or removed.',
  {
    file: text({
      default: './data/origin/audit/audit.jsonl',
      help: 'The file. With `meta.adaptor: postgres` the log is the table `audit` in the database instead. Full files are kept beside it, with the time at which they ended in their name.',
    }),
    rotateBytes: size({ default: '64MB', min: 1_000, help: 'Size at which the file is renamed and a new one begins.' }),
  },
);

export type AuditConfig = ValueOf<typeof auditSection>;

export const AUDIT_ACTS = [
  'delete',
  'quarantine',
  'restore',
  'delete_owner',
  'quarantine_owner',
  'restore_owner',
  'scrub',
  'backup',
  'inspect',
  'rotten',
  'thumbs_again',
  'thumbs_retry',
  'thumbs_backfill',
  'webhooks_retry',
  'reload',
] as const;

export interface AuditAct {
  readonly at: EpochMs;
  /** The subject of the admin's token, or `operator` for what came by the operators' listener. */
  readonly by: string;
  readonly act: (typeof AUDIT_ACTS)[number];
  /** Null if the act is not about one media or blob. */
  readonly target: MediaId | Sha256 | null;
  /** How it ended, in the words of the metadata store: `done`, `already`, `unknown`, … */
  readonly outcome: string;
  /** The journal entry that it added or found. */
  readonly seq: number | null;
  readonly reason: string | null;
  /** Of an act on all media of an owner: whose, how many of theirs it changed, and how many of others. */
  readonly owner?: string;
  readonly media?: number;
  readonly others?: number;
  readonly requestId: string | null;
  /** The client's address, as derived from trusted proxies. */
  readonly address: string | null;
}

export interface AuditLog {
  /** Resolves when the line is durable. Lines are in the order of the calls. */
  append(act: AuditAct): Promise<void>;
  /**
   * Makes a change and writes it down, in one transaction if the log is in the database of the change. Then `change` is
   * given the note that belongs into it; otherwise undefined.
   */
  record<T>(actOf: (outcome: T) => AuditAct, change: (note: Note<T> | undefined) => Promise<T>): Promise<T>;
  /** Waits until all lines are written. May be called twice. */
  close(): Promise<void>;
}

interface WaitingLine {
  readonly line: string;
  readonly at: EpochMs;
  written(failure: unknown): void;
}

/** Room for several hundred lines. */
const RESERVE_BYTES = 256 * 1_024;
const RESERVE_NAME = '.reserve';

/** In the database, if several origins may share it. */
export function openAudit(config: AuditConfig, shared: SharedTables | null): Promise<AuditLog> {
  return shared === null ? openAuditLog(config) : Promise.resolve(openAuditTable(shared.audit));
}

export async function openAuditLog(config: AuditConfig): Promise<AuditLog> {
  // The folder may be one for logs of all kinds.
  await makeFolder(dirname(config.file));
  await tightenFile(config.file);
  const reserve = await openReserve(join(dirname(config.file), RESERVE_NAME), RESERVE_BYTES);
  let file = await withReserve(reserve, () => openFile(config.file));
  await reserve.refill();
  let waiting: WaitingLine[] = [];
  let writing: Promise<void> | undefined;
  let closing: Promise<void> | undefined;

  /** Lines that wait at the same time share one sync. */
  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      const taken = waiting;
      waiting = [];
      let failure: unknown;
      try {
        file = await rotateIfFull(file, config, taken[0]?.at ?? 0);
        const lines = taken.map(({ line }) => `${line}\n`).join('');
        await withReserve(reserve, () => append(file, lines));
        if (!reserve.whole) await reserve.refill();
      } catch (thrown) {
        failure = thrown;
      }
      for (const each of taken) each.written(failure);
    }
    writing = undefined;
  }

  const addLine = (act: AuditAct): Promise<void> => {
    if (closing !== undefined) return Promise.reject(new Fault('overloaded', 'The service is shutting down.'));
    return new Promise((resolve, reject) => {
      waiting.push({
        line: lineOf(act),
        at: act.at,
        written: (failure) => (failure === undefined ? resolve() : reject(failure)),
      });
      writing ??= writeAll();
    });
  };

  return {
    append: addLine,
    record: recordAfter(addLine),
    close() {
      closing ??= (async () => {
        await writing;
        await file.handle.close();
      })();
      return closing;
    },
  };
}

/** For a log that is no part of the change. */
export function recordAfter(append: AuditLog['append']): AuditLog['record'] {
  return async (actOf, change) => {
    const outcome = await change(undefined);
    await append(actOf(outcome));
    return outcome;
  };
}

function openAuditTable(table: AuditTable): AuditLog {
  const noteOf = (act: AuditAct): AuditLine => ({ at: act.at, line: lineOf(act) });
  return {
    append: (act) => table.append([noteOf(act)]),
    record: (actOf, change) => change((outcome) => noteOf(actOf(outcome))),
    close: () => Promise.resolve(),
  };
}

/** On a full disk, tries again, each time with another part of the reserve. */
async function withReserve<T>(reserve: Reserve, write: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await write();
    } catch (thrown) {
      if (faultOf(thrown).code !== 'storage_full' || !(await reserve.giveBack())) throw thrown;
    }
  }
}

interface OpenFile {
  readonly handle: FileHandle;
  /** Size of the complete lines. */
  sizeBytes: number;
}

/** A line that a crash cut short is ended, so that the next line begins on its own. */
async function openFile(path: string): Promise<OpenFile> {
  const handle = await open(path, 'a+', 0o600);
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

/** What a failed write has left is removed again, if the disk allows it. */
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

/** False if the name is taken: a full file must never be replaced. */
async function moveAside(path: string, name: string): Promise<boolean> {
  try {
    await link(path, name);
    // Before the old name ends: a power cut could otherwise leave neither.
    await syncPath(dirname(path));
    await unlink(path);
    return true;
  } catch (thrown) {
    if (errorCode(thrown) === 'EEXIST') return false;
    // Already moved: by hand, or by a rotation that failed later.
    if (errorCode(thrown) === 'ENOENT') return true;
    throw thrown;
  }
}

function lineOf({ at, ...act }: AuditAct): string {
  return JSON.stringify({ at: new Date(at).toISOString(), ...act });
}
