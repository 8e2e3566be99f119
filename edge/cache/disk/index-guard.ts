/**
 * Checks the index file before it is opened. LMDB maps the file, and a truncated
 * or foreign file would end the process, again at every start. Two checks prevent
 * that: the file's head must be LMDB's and fit its size, and an index is not tried
 * a third time if the process ended twice while reading it.
 */
import { open, readFile, writeFile } from 'node:fs/promises';
import { isMissing } from './files.js';

/** The places in LMDB's first page that are checked. */
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

  /** Why the index must not be opened, or undefined. Counts a start; `proven` must follow when the index was read. */
  async fault(): Promise<string | undefined> {
    const starts = await this.#unprovenStarts();
    if (starts >= STARTS_MAX) return `the process ended ${starts} times while reading it`;
    await writeFile(this.#startsPath, String(starts + 1), { mode: 0o600 });
    return headFault(this.#path);
  }

  /** A new index has replaced the old one. */
  async renew(): Promise<void> {
    await writeFile(this.#startsPath, '1', { mode: 0o600 });
  }

  /** The index has been read completely, or closed properly. */
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
  if (head.readUInt32LE(MAGIC.at) !== MAGIC.value) return 'not an LMDB file';
  const pageBytes = head.readUInt32LE(PAGE_SIZE_AT);
  if (pageBytes < PAGE_BYTES.min || pageBytes > PAGE_BYTES.max) return 'its page size is impossible';
  const lastPage = Number(head.readBigUInt64LE(LAST_PAGE_AT));
  return (lastPage + 1) * pageBytes > sizeBytes ? 'it is truncated' : undefined;
}
