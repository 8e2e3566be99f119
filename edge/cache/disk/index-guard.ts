/**
 * Stands before the index is opened: LMDB maps its file and ends the process
 * on one that is cut off or is none at all, and would do so again at every
 * start. Two looks prevent that: the head of the file must be LMDB's and agree
 * with its size, and an index during whose reading the process ended twice in a
 * row is not tried a third time.
 */
import { open, readFile, writeFile } from 'node:fs/promises';
import { isMissing } from './files.js';

/** Where LMDB's first page holds what is looked at here. */
const MAGIC = { at: 24, value: 0xbeef_c0de } as const;
const PAGE_SIZE_AT = 48;
const LAST_PAGE_AT = 144;
const HEAD_BYTES = 160;
const PAGE_BYTES = { min: 512, max: 65_536 } as const;

const STARTS_MAX = 2;

export class IndexGuard {
  readonly #path: string;
  readonly #startsPath: string;

  /** `path` is the index's file. */
  constructor(path: string) {
    this.#path = path;
    this.#startsPath = `${path}-starts`;
  }

  /** Why the index must not be opened, or undefined. Counts a start that `proven` has to follow. */
  async fault(): Promise<string | undefined> {
    const starts = await this.#unprovenStarts();
    if (starts >= STARTS_MAX) return `the process ended ${starts} times while it read the index`;
    await writeFile(this.#startsPath, String(starts + 1), { mode: 0o600 });
    return headFault(this.#path);
  }

  /** The index has been replaced by a new one. */
  async renew(): Promise<void> {
    await writeFile(this.#startsPath, '1', { mode: 0o600 });
  }

  /** The index was read from end to end, or closed in good order. */
  async proven(): Promise<void> {
    await writeFile(this.#startsPath, '0', { mode: 0o600 });
  }

  async #unprovenStarts(): Promise<number> {
    try {
      const starts = Number(await readFile(this.#startsPath, 'utf8'));
      return Number.isSafeInteger(starts) ? starts : 0;
    } catch (thrown) {
      if (isMissing(thrown)) return 0;
      throw thrown;
    }
  }
}

async function headFault(path: string): Promise<string | undefined> {
  const head = Buffer.alloc(HEAD_BYTES);
  let sizeBytes = 0;
  try {
    const file = await open(path, 'r');
    try {
      await file.read(head, 0, HEAD_BYTES, 0);
      sizeBytes = (await file.stat()).size;
    } finally {
      await file.close();
    }
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw thrown;
  }
  if (sizeBytes === 0) return undefined;
  if (head.readUInt32LE(MAGIC.at) !== MAGIC.value) return 'it is not an LMDB file';
  const pageBytes = head.readUInt32LE(PAGE_SIZE_AT);
  if (pageBytes < PAGE_BYTES.min || pageBytes > PAGE_BYTES.max) return 'its pages have an impossible size';
  const lastPage = Number(head.readBigUInt64LE(LAST_PAGE_AT));
  return (lastPage + 1) * pageBytes > sizeBytes ? 'its end is missing' : undefined;
}
