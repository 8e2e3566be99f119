/** The cache of an edge as the journal sees it: a set of ids. */
import type { AppliedToCache } from '../../../edge/cache/cache.js';
import type { MediaId } from '../../../src/ids.js';
import type { JournalPosition } from '../../../src/journal/entry.js';

export class StoredIds {
  readonly stored = new Set<MediaId>();
  readonly takenDown: MediaId[] = [];
  purges = 0;
  appliedBefore: AppliedToCache = { kind: 'nothing_stored' };
  readonly noted: JournalPosition[] = [];
  /** Every takedown waits for it. */
  gate: Promise<void> = Promise.resolve();
  failing = false;

  async takeDown(id: MediaId): Promise<number> {
    if (this.failing) throw new Error('disk');
    const had = this.stored.delete(id);
    await this.gate;
    this.takenDown.push(id);
    return had ? 1 : 0;
  }

  noteApplied(position: JournalPosition): void {
    this.noted.push(position);
  }

  async purge(): Promise<number> {
    if (this.failing) throw new Error('disk');
    const count = this.stored.size;
    this.stored.clear();
    this.purges += 1;
    return count;
  }
}
