/**
 * After a start, in the background and in small steps: tells the policy of every
 * entry of earlier runs in the order in which they were stored, then removes
 * content that no entry leads to, which a crash may have left. Ends when the
 * signal does.
 */
import type { DiskTier } from './tier.js';

/** Rows told to the policy between two turns of the event loop. */
const ROWS_PER_STEP = 512;

export async function recover(tier: DiskTier, signal: AbortSignal): Promise<void> {
  let seq = 0;
  for (;;) {
    await new Promise(setImmediate);
    if (signal.aborted) return;
    const rows = tier.index.ordered(seq, ROWS_PER_STEP);
    for (const row of rows) tier.recover(row);
    const last = rows.at(-1);
    if (last === undefined) break;
    seq = last.seq + 1;
  }
  await tier.endRecovery();
}

/** Answers how many files it removed. */
export async function sweep(tier: DiskTier, signal: AbortSignal): Promise<number> {
  let removed = 0;
  await tier.content.emptyTrash();
  for await (const contents of tier.content.list()) {
    if (signal.aborted) break;
    for (const sha256 of contents) {
      if (!tier.index.mayHaveContent(sha256) && (await tier.contents.removeIfUnused(sha256))) removed += 1;
    }
    await new Promise(setImmediate);
  }
  return removed;
}
