/**
 * After a start, in the background and in small steps: recovery tells the policy
 * of every entry of earlier runs, in the order in which they were stored; the
 * sweep removes content files without an entry, which a crash may have left.
 */
import type { ContentRefs } from './content-refs.js';
import type { ContentStore } from './content-store.js';
import type { DiskIndex } from './disk-index.js';
import type { DiskEntries } from './entries.js';

/** The rows that are handled between two turns of the event loop. */
const ROWS_PER_STEP = 512;

/** Resolves with false if the signal has aborted it. */
export async function recover(index: DiskIndex, entries: DiskEntries, signal: AbortSignal): Promise<boolean> {
  await new Promise(setImmediate);
  for (const rows of index.inOrder(ROWS_PER_STEP)) {
    if (signal.aborted) return false;
    for (const row of rows) entries.recover(row);
    await new Promise(setImmediate);
  }
  if (signal.aborted) return false;
  entries.endRecovery();
  return true;
}

/** Ends early when the signal aborts. Resolves with the number of files that it removed. */
export async function sweep(
  index: DiskIndex,
  contentStore: ContentStore,
  contentRefs: ContentRefs,
  signal: AbortSignal,
): Promise<number> {
  let removed = 0;
  await contentStore.emptyTrash();
  for await (const contents of contentStore.list()) {
    if (signal.aborted) break;
    for (const sha256 of contents) {
      if (!index.mayHaveContent(sha256) && (await contentRefs.removeIfUnused(sha256))) removed += 1;
    }
    await new Promise(setImmediate);
  }
  return removed;
}
