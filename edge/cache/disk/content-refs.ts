/**
 * The life of content that several entries may share: what is published and
 * indexed is one step towards what is removed, so that no file goes that an
 * entry has just come to need, and none stays that no entry needs.
 */
import type { ContentStore } from './content-store.js';
import type { DiskIndex } from './disk-index.js';
import type { OpenFile } from './files.js';
import { type DiskRecord, fileBytes } from './record.js';
import type { DiskRoom } from './room.js';

/** Files removed at once. */
const REMOVALS_AT_ONCE = 4;

export interface ContentRefsDeps {
  readonly content: ContentStore;
  readonly index: DiskIndex;
  readonly room: DiskRoom;
  onError(thrown: unknown): void;
}

interface Removal {
  readonly sha256: string;
  readonly bytes: number;
}

export class ContentRefs {
  readonly #parts: ContentRefsDeps;
  /** The latest step on a content that has steps under way. */
  readonly #steps = new Map<string, Promise<unknown>>();
  #removals: Removal[] = [];
  #removing: Promise<void> | undefined;
  /** Contents that somebody is about to read, in two generations of `agePins`. */
  #pinned = new Set<string>();
  #pinnedBefore = new Set<string>();

  constructor(parts: ContentRefsDeps) {
    this.#parts = parts;
  }

  /** Moves a spool to its place and, in the same step, calls `enter` to index it. */
  async publish(spoolPath: string, sha256: string, enter: () => boolean): Promise<boolean> {
    return this.#exclusive(sha256, async () => {
      await this.#parts.content.publish(spoolPath, sha256);
      return enter();
    });
  }

  open(sha256: string): Promise<OpenFile> {
    return this.#parts.content.open(sha256);
  }

  /** Keeps a content that is being removed for one to two generations: a head has gone out, the body is opened next. */
  pin(sha256: string): void {
    this.#pinned.add(sha256);
  }

  agePins(): void {
    this.#pinnedBefore = this.#pinned;
    this.#pinned = new Set();
    this.#keepRemoving();
  }

  /** An entry no longer needs its content; the file goes once no other does. */
  release(record: Pick<DiskRecord, 'content'> & { readonly entry: { readonly sizeBytes: number } }): void {
    if (record.content === null) return;
    const bytes = fileBytes(record.entry.sizeBytes);
    this.#parts.room.removing(bytes);
    this.#removals.push({ sha256: record.content, bytes });
    this.#keepRemoving();
  }

  /** Removes a content that no entry has. True: it was removed. */
  removeIfUnused(sha256: string): Promise<boolean> {
    return this.#exclusive(sha256, async () => {
      if (this.#parts.index.byContent(sha256).length > 0) return false;
      await this.#parts.content.remove(sha256);
      return true;
    });
  }

  /** Resolves when nothing waits to be removed. Pins no longer count. */
  async settled(): Promise<void> {
    this.#pinned.clear();
    this.#pinnedBefore.clear();
    while (this.#removals.length > 0 || this.#removing !== undefined) {
      this.#keepRemoving();
      await this.#removing;
    }
  }

  #keepRemoving(): void {
    if (this.#removing !== undefined || !this.#removals.some((removal) => this.#isFree(removal))) return;
    this.#removing = this.#removeFree().finally(() => {
      this.#removing = undefined;
      this.#keepRemoving();
    });
  }

  #isFree({ sha256 }: Removal): boolean {
    return !this.#pinned.has(sha256) && !this.#pinnedBefore.has(sha256);
  }

  /** All that may go now. First the rows, then the files: a crash in between leaves files without rows, which the sweep finds. */
  async #removeFree(): Promise<void> {
    const free = this.#removals.filter((removal) => this.#isFree(removal));
    this.#removals = this.#removals.filter((removal) => !this.#isFree(removal));
    await this.#parts.index.flushed().catch(() => undefined);
    const remove = async (): Promise<void> => {
      for (let removal = free.pop(); removal !== undefined; removal = free.pop()) await this.#remove(removal);
    };
    await Promise.all(Array.from({ length: REMOVALS_AT_ONCE }, remove));
  }

  async #remove({ sha256, bytes }: Removal): Promise<void> {
    try {
      await this.removeIfUnused(sha256);
    } catch (thrown) {
      this.#parts.onError(thrown);
    } finally {
      this.#parts.room.removed(bytes);
    }
  }

  async #exclusive<T>(sha256: string, step: () => Promise<T>): Promise<T> {
    const before = this.#steps.get(sha256);
    const own = (async () => {
      await before?.catch(() => undefined);
      return step();
    })();
    this.#steps.set(sha256, own);
    try {
      return await own;
    } finally {
      if (this.#steps.get(sha256) === own) this.#steps.delete(sha256);
    }
  }
}
