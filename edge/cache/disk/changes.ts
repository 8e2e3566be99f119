/** The changes of the disk index that one commit will make, found as the committed records are. */
import type { MediaId } from '../../../src/ids.js';
import { KeyIndex } from '../key-index.js';
import type { DiskRecord, KeyDigest } from './record.js';

export interface Change {
  /** The committed record, which the change replaces or removes. */
  before: DiskRecord | undefined;
  after: DiskRecord | undefined;
}

export class Changes {
  readonly #changes = new Map<KeyDigest, Change>();
  /** Also of records that a later change has replaced: whoever asks looks at the record itself. */
  readonly #byMedia = new KeyIndex<MediaId, KeyDigest>();
  readonly #byPrimary = new KeyIndex<string, KeyDigest>();
  readonly #byContent = new KeyIndex<string, KeyDigest>();

  get size(): number {
    return this.#changes.size;
  }

  get(digest: KeyDigest): Change | undefined {
    return this.#changes.get(digest);
  }

  /** `before` counts only for the first change of a key. */
  add(digest: KeyDigest, before: () => DiskRecord | undefined, after: DiskRecord | undefined): void {
    const change = this.#changes.get(digest);
    if (change === undefined) this.#changes.set(digest, { before: before(), after });
    else change.after = after;
    if (after === undefined) return;
    const { entry, content } = after;
    this.#byPrimary.add(entry.primaryKey, digest);
    if (entry.mediaId !== null) this.#byMedia.add(entry.mediaId, digest);
    if (content !== null) this.#byContent.add(content, digest);
  }

  ofMedia(id: string): readonly KeyDigest[] {
    return this.#byMedia.membersOf(id as MediaId);
  }

  ofPrimary(primaryKey: string): readonly KeyDigest[] {
    return this.#byPrimary.membersOf(primaryKey);
  }

  ofContent(sha256: string): readonly KeyDigest[] {
    return this.#byContent.membersOf(sha256);
  }

  [Symbol.iterator](): IterableIterator<[KeyDigest, Change]> {
    return this.#changes[Symbol.iterator]();
  }
}
