/**
 * When content files come and go; several entries may share one. Publishing a
 * file together with its index row, and removing a file, exclude each other for
 * each content: no file is removed that a new entry needs, and none stays that
 * no entry needs.
 */
import type { ContentStore } from './content-store.js';
import type { DiskIndex } from './disk-index.js';
import type { OpenFile } from './files.js';
import type { Pieces } from './pieces.js';
import { type DiskRecord, fileBytes } from './record.js';
import type { DiskRoom } from './room.js';

/** The files that are removed at the same time. */
const REMOVALS_AT_ONCE = 4;

export interface ContentRefsDeps {
  readonly contentStore: ContentStore;
  readonly index: DiskIndex;
  readonly room: DiskRoom;
  onError(thrown: unknown): void;
}

interface Removal {
  readonly sha256: string;
  readonly bytes: number;
}

export class ContentRefs {
  readonly #deps: ContentRefsDeps;
  /** The last of the steps that a content waits for. */
  readonly #steps = new Map<string, Promise<unknown>>();
  #removals: Removal[] = [];
  #removing: Promise<void> | undefined;
  /** Contents that a caller is about to read: pinned since the last `agePins`, and since the one before. */
  #pinned = new Set<string>();
  #pinnedBefore = new Set<string>();

  constructor(deps: ContentRefsDeps) {
    this.#deps = deps;
  }

  /**
   * Moves a spool file to its place, or writes `bytes` there, and, in the same step, calls `enter`, which puts the entry
   * into the index.
   */
  async publish(spoolPath: string, sha256: string, bytes: Buffer | undefined, enter: () => boolean): Promise<boolean> {
    const { contentStore } = this.#deps;
    return this.#exclusive(sha256, async () => {
      if (bytes === undefined) await contentStore.publish(spoolPath, sha256);
      else await contentStore.write(bytes, sha256, spoolPath);
      return enter();
    });
  }

  open(sha256: string): Promise<OpenFile> {
    return this.#deps.contentStore.open(sha256);
  }

  /** As `open`, but the file may stay open for the next reader. */
  lend(sha256: string): Promise<OpenFile> {
    return this.#deps.contentStore.lend(sha256);
  }

  /** The next reader opens and reads the file again. */
  forget(sha256: string): void {
    this.#deps.contentStore.forget(sha256);
  }

  /** What was read last. */
  get pieces(): Pieces {
    return this.#deps.contentStore.pieces;
  }

  /** Delays the removal of a content until the second `agePins`: a head has been sent, and the body is opened next. */
  pin(sha256: string): void {
    this.#pinned.add(sha256);
  }

  agePins(): void {
    this.#pinnedBefore = this.#pinned;
    this.#pinned = new Set();
    this.#startRemoving();
  }

  /** An entry no longer needs its content. The file is removed unless another entry needs it. */
  release(record: Pick<DiskRecord, 'content'> & { readonly entry: { readonly sizeBytes: number } }): void {
    if (record.content === null) return;
    const bytes = fileBytes(record.entry.sizeBytes);
    this.#deps.contentStore.forget(record.content);
    this.#deps.room.removing(bytes);
    this.#removals.push({ sha256: record.content, bytes });
    this.#startRemoving();
  }

  /** Removes a content unless an entry needs it. Resolves with whether it was removed. */
  removeIfUnused(sha256: string): Promise<boolean> {
    return this.#exclusive(sha256, async () => {
      if (this.#deps.index.anyWithContent(sha256) !== undefined) return false;
      await this.#deps.contentStore.remove(sha256);
      return true;
    });
  }

  /** Resolves when all removals are done. Pins no longer delay them. */
  async removalsDone(): Promise<void> {
    this.#pinned.clear();
    this.#pinnedBefore.clear();
    while (this.#removals.length > 0 || this.#removing !== undefined) {
      this.#startRemoving();
      await this.#deps.index.flushed().catch(() => undefined);
      await this.#removing;
    }
  }

  #startRemoving(): void {
    if (this.#removing !== undefined || !this.#removals.some((removal) => !this.#isPinned(removal))) return;
    this.#removing = this.#removeUnpinned().finally(() => {
      this.#removing = undefined;
      this.#startRemoving();
    });
  }

  #isPinned({ sha256 }: Removal): boolean {
    return this.#pinned.has(sha256) || this.#pinnedBefore.has(sha256);
  }

  /** Removes the files that are not pinned, after their rows. A crash in between leaves files for the sweep. */
  async #removeUnpinned(): Promise<void> {
    const unpinned = this.#removals.filter((removal) => !this.#isPinned(removal));
    this.#removals = this.#removals.filter((removal) => this.#isPinned(removal));
    await this.#deps.index.settled();
    const remove = async (): Promise<void> => {
      for (let removal = unpinned.pop(); removal !== undefined; removal = unpinned.pop()) await this.#remove(removal);
    };
    await Promise.all(Array.from({ length: REMOVALS_AT_ONCE }, remove));
  }

  async #remove({ sha256, bytes }: Removal): Promise<void> {
    try {
      await this.removeIfUnused(sha256);
    } catch (thrown) {
      this.#deps.onError(thrown);
    } finally {
      this.#deps.room.removed(bytes);
    }
  }

  /** Runs the steps on one content one after the other. */
  async #exclusive<T>(sha256: string, step: () => Promise<T>): Promise<T> {
    const previous = this.#steps.get(sha256);
    const current = (async () => {
      await previous?.catch(() => undefined);
      return step();
    })();
    this.#steps.set(sha256, current);
    try {
      return await current;
    } finally {
      if (this.#steps.get(sha256) === current) this.#steps.delete(sha256);
    }
  }
}
