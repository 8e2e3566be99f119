/**
 * Content files that stay open between two reads, so that the next one needs no
 * `open` and no `close`. Bounded: the file that was read longest ago is closed first.
 *
 * Promises: a content that is replaced or removed is not read from its old file any
 * more, except by those who read it already. What they end with closes it.
 */
import type { OpenFile } from './files.js';

interface Kept {
  readonly file: Promise<OpenFile>;
  readers: number;
  /** Nobody else may read it: it is closed after its last reader. */
  dropped: boolean;
}

export class KeptFiles {
  readonly #max: number;
  readonly #open: (sha256: string) => Promise<OpenFile>;
  readonly #onError: (thrown: unknown) => void;
  /** The one that was read longest ago first. */
  readonly #kept = new Map<string, Kept>();

  constructor(max: number, open: (sha256: string) => Promise<OpenFile>, onError: (thrown: unknown) => void) {
    this.#max = max;
    this.#open = open;
    this.#onError = onError;
  }

  /** How many are open, those without a reader included. */
  get count(): number {
    return this.#kept.size;
  }

  /** Lends the file to a reader, who closes it. Rejects as `open` does. */
  async lend(sha256: string): Promise<OpenFile> {
    const kept = this.#kept.get(sha256) ?? { file: this.#open(sha256), readers: 0, dropped: false };
    kept.readers += 1;
    this.#kept.delete(sha256);
    this.#kept.set(sha256, kept);
    this.#closeOldest();
    try {
      return lent(await kept.file, () => this.#giveBack(kept));
    } catch (thrown) {
      if (this.#kept.get(sha256) === kept) this.#kept.delete(sha256);
      throw thrown;
    }
  }

  /** The content is replaced or removed, or may be wrong. */
  drop(sha256: string): void {
    const kept = this.#kept.get(sha256);
    if (kept === undefined) return;
    this.#kept.delete(sha256);
    kept.dropped = true;
    if (kept.readers === 0) this.#close(kept);
  }

  dropAll(): void {
    for (const sha256 of this.#kept.keys()) this.drop(sha256);
  }

  #closeOldest(): void {
    if (this.#kept.size <= this.#max) return;
    const [oldest] = this.#kept.keys();
    if (oldest !== undefined) this.drop(oldest);
  }

  #giveBack(kept: Kept): void {
    kept.readers -= 1;
    if (kept.readers === 0 && kept.dropped) this.#close(kept);
  }

  #close(kept: Kept): void {
    kept.file.then((file) => file.close()).catch(this.#onError);
  }
}

/** The file of one reader, who may close it twice. */
function lent(file: OpenFile, giveBack: () => void): OpenFile {
  let open = true;
  return {
    write: (block, at) => file.write(block, at),
    read: (into, at) => file.read(into, at),
    sizeBytes: () => file.sizeBytes(),
    async close() {
      if (open) giveBack();
      open = false;
    },
  };
}
