/**
 * Checks the index file before it is opened. LMDB maps the file, and a truncated
 * or foreign file would end the process, again at every start. Two checks prevent
 * that: the file's head must be LMDB's and fit its size, and an index is not tried
 * a third time if the process ended twice while reading it.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { readLmdbHead } from '../../../src/lmdb-head.js';
import { isMissing } from './files.js';

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
  const head = await readLmdbHead(path);
  if (head.kind === 'foreign') return head.why;
  if (head.kind !== 'lmdb') return undefined;
  return (head.lastPage + 1) * head.pageBytes > head.sizeBytes ? 'it is truncated' : undefined;
}
