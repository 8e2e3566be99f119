/**
 * The position file: how far this edge has applied the journal.
 *
 * Promises: the file is replaced completely or not at all, and damage is noticed
 * by a checksum, since a number that is too high would skip a takedown. The form
 * has a version; version 1, which has no mark, is read.
 */

import { createHash } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../src/errors.js';
import { isMark, type JournalPosition } from '../../src/journal/entry.js';
import { openPrivateFolder } from '../../src/private-folder.js';

export type PositionRead =
  | { readonly kind: 'found'; readonly position: JournalPosition }
  | { readonly kind: 'absent' }
  | { readonly kind: 'damaged' };

export interface PositionFile {
  read(): Promise<PositionRead>;
  /** Starts to write a position. Calls during a write share the next write. */
  save(position: JournalPosition): void;
  /** Resolves when the last position is on disk. Rejects if it cannot be written. */
  flush(): Promise<void>;
}

const VERSION = 2;
const FILE_NAME = 'journal-position.json';

/** Never rejects: an edge also follows the journal where its disk cannot be written to. `onError` is called for a failed write. The position on disk is then too low: entries are applied again. */
export async function openPositionFile(folder: string, onError: (thrown: unknown) => void): Promise<PositionFile> {
  await openPrivateFolder(folder).catch(onError);
  const path = join(folder, FILE_NAME);
  let unwritten: JournalPosition | undefined;
  let writing: Promise<void> | undefined;

  async function writeLatest(): Promise<void> {
    while (unwritten !== undefined) {
      const position = unwritten;
      unwritten = undefined;
      await replace(folder, path, encode(position));
    }
  }
  function start(): Promise<void> {
    writing ??= writeLatest().finally(() => {
      writing = undefined;
    });
    return writing;
  }
  return {
    async read() {
      try {
        const position = decode(await readFile(path, 'utf8'));
        return position === undefined ? { kind: 'damaged' } : { kind: 'found', position };
      } catch (thrown) {
        return { kind: errorCode(thrown) === 'ENOENT' ? 'absent' : 'damaged' };
      }
    },
    save(position) {
      unwritten = position;
      start().catch(onError);
    },
    flush: () => start(),
  };
}

/** Replaces the file completely or not at all, even if the machine stops meanwhile. */
async function replace(folder: string, path: string, text: string): Promise<void> {
  const staged = `${path}.tmp`;
  const file = await open(staged, 'w', 0o600).catch(async (thrown: unknown) => {
    if (errorCode(thrown) !== 'ENOENT') throw thrown;
    await openPrivateFolder(folder);
    return await open(staged, 'w', 0o600);
  });
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(staged, path);
  const directory = await open(folder, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function encode({ journal, seq, mark }: JournalPosition): string {
  return `${JSON.stringify({ v: VERSION, journal, seq, mark, check: check([VERSION, journal, seq, mark]) })}\n`;
}

function decode(text: string): JournalPosition | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { v, journal, seq, mark = null, check: stored } = value as Readonly<Record<string, unknown>>;
  if (typeof journal !== 'string' || typeof seq !== 'number' || !Number.isSafeInteger(seq)) return undefined;
  if (mark !== null && !isMark(mark)) return undefined;
  switch (v) {
    case 1:
      return stored === check([1, journal, seq]) ? { journal, seq, mark: null } : undefined;
    case 2:
      return stored === check([2, journal, seq, mark]) ? { journal, seq, mark } : undefined;
    default:
      return undefined;
  }
}

function check(fields: readonly (string | number | null)[]): string {
  return createHash('sha256').update(fields.join('\n')).digest('hex').slice(0, 16);
}
