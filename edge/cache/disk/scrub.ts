/**
 * Reads all content again and again at a bounded rate, and drops what is no
 * longer as it was written; drops on its way what has expired for good, so that
 * the bytes of expired media do not lie about until they are evicted. Ends when
 * the signal does.
 */
import { type Clock, type EpochMs, sleep } from '../../../src/clock.js';
import type { OrderRow } from './disk-index.js';
import type { DiskTier } from './tier.js';

const ROWS_PER_STEP = 64;
/** What looking at an entry counts as, beside its bytes. */
const ENTRY_BYTES = 4_096;
/** The least time between the start of two rounds, however little there is to read. */
const ROUND_MS = 60_000;

export interface ScrubDeps {
  readonly tier: DiskTier;
  readonly clock: Clock;
  readonly bytesPerSecond: number;
  readonly signal: AbortSignal;
}

export async function scrub(parts: ScrubDeps): Promise<void> {
  const { clock, signal } = parts;
  while (!signal.aborted) {
    const startedMs = clock.monotonicMs();
    await scrubOnce(parts);
    await pause(clock, Math.max(0, ROUND_MS - (clock.monotonicMs() - startedMs)), signal);
  }
}

async function scrubOnce({ tier, clock, bytesPerSecond, signal }: ScrubDeps): Promise<void> {
  const pace = (bytes: number): Promise<void> => pause(clock, (bytes / bytesPerSecond) * 1_000, signal);
  let seq = 0;
  for (;;) {
    const rows = tier.index.ordered(seq, ROWS_PER_STEP);
    const last = rows.at(-1);
    if (last === undefined) return;
    seq = last.seq + 1;
    for (const row of rows) {
      if (signal.aborted) return;
      await scrubRow(tier, row, clock.now(), pace, signal);
      await pace(ENTRY_BYTES);
    }
  }
}

async function scrubRow(
  tier: DiskTier,
  row: OrderRow,
  now: EpochMs,
  pace: (bytes: number) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const record = tier.index.get(row.digest);
  if (record === undefined) tier.discardRow(row);
  else if (record.entry.deleteAt <= now) tier.remove(record.entry.key);
  else if (record.seq === row.seq) await tier.reader.rehash(record, pace, signal);
}

/** Returns early when the signal aborts. */
async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  await sleep(clock, delayMs, signal).catch(() => undefined);
}
