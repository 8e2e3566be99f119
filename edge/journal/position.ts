/**
 * How far this edge has applied the journal, kept in a file beside the cache.
 *
 * Promises: the file is replaced whole or not at all, and what is read back is
 * what was written or is told to be damaged, since a number that is too high
 * would leave out a takedown. Versioned.
 */
import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../src/errors.js';

export interface Position {
  /** Name of the journal that `seq` counts in. */
  readonly journal: string;
  /** The newest number applied. */
  readonly seq: number;
}

export type PositionRead =
  | { readonly kind: 'found'; readonly position: Position }
  | { readonly kind: 'absent' }
  | { readonly kind: 'damaged' };

export interface PositionFile {
  read(): Promise<PositionRead>;
  /** Notes a position; it is on disk soon. Calls that come during a write share the next one. */
  note(position: Position): void;
  /** Resolves when the last position noted is on disk, or rejects with why it is not. */
  flush(): Promise<void>;
}

const VERSION = 1;
const FILE_NAME = 'journal-position.json';

/** `onError` hears of a failed write; the position on disk then stays behind, which costs a replay. */
export async function openPositionFile(folder: string, onError: (thrown: unknown) => void): Promise<PositionFile> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, FILE_NAME);
  let noted: Position | undefined;
  let writing: Promise<void> | undefined;

  async function writeNoted(): Promise<void> {
    while (noted !== undefined) {
      const position = noted;
      noted = undefined;
      await replace(folder, path, encode(position));
    }
  }
  function start(): Promise<void> {
    writing ??= writeNoted().finally(() => {
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
    note(position) {
      noted = position;
      start().catch(onError);
    },
    flush: () => start(),
  };
}

/** Whole or not at all, also when the machine stops in the middle. */
async function replace(folder: string, path: string, text: string): Promise<void> {
  const staged = `${path}.tmp`;
  const file = await open(staged, 'w');
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(staged, path);
  const held = await open(folder, 'r');
  try {
    await held.sync();
  } finally {
    await held.close();
  }
}

function encode({ journal, seq }: Position): string {
  return `${JSON.stringify({ v: VERSION, journal, seq, check: check(journal, seq) })}\n`;
}

function decode(text: string): Position | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { v, journal, seq, check: told } = value as Readonly<Record<string, unknown>>;
  if (v !== VERSION || typeof journal !== 'string' || typeof seq !== 'number' || !Number.isSafeInteger(seq)) {
    return undefined;
  }
  return told === check(journal, seq) ? { journal, seq } : undefined;
}

function check(journal: string, seq: number): string {
  return createHash('sha256').update(`${VERSION}\n${journal}\n${seq}`).digest('hex').slice(0, 16);
}
