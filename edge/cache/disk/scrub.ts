/**
 * Reads all contents again and again at a limited rate and removes entries whose
 * content is not what was written. Also removes expired entries, so that their
 * bytes do not stay until they are evicted. Ends when the signal aborts.
 */
import { type Clock, type EpochMs, sleep } from '../../../src/clock.js';
import type { DiskIndex, OrderRow } from './disk-index.js';
import type { DiskEntries } from './entries.js';
import type { DiskReader } from './reader.js';

const ROWS_PER_STEP = 64;
/** The bytes that an entry counts as, beside its content. */
const ENTRY_BYTES = 4_096;
/** The least time from the start of one round to the next, however little there is to read. */
const ROUND_MS = 60_000;

export interface ScrubDeps {
  readonly index: DiskIndex;
  readonly entries: DiskEntries;
  readonly reader: DiskReader;
  readonly clock: Clock;
  readonly bytesPerSecond: number;
  readonly signal: AbortSignal;
}

export async function scrub(deps: ScrubDeps): Promise<void> {
  const { clock, signal } = deps;
  while (!signal.aborted) {
    const startedMs = clock.monotonicMs();
    await scrubOnce(deps);
    await pause(clock, Math.max(0, ROUND_MS - (clock.monotonicMs() - startedMs)), signal);
  }
}

async function scrubOnce(deps: ScrubDeps): Promise<void> {
  const { index, clock, bytesPerSecond, signal } = deps;
  const pace = (bytes: number): Promise<void> => pause(clock, (bytes / bytesPerSecond) * 1_000, signal);
  for (const rows of index.inOrder(ROWS_PER_STEP)) {
    for (const row of rows) {
      if (signal.aborted) return;
      await scrubRow(deps, row, clock.now(), pace);
      await pace(ENTRY_BYTES);
    }
  }
}

async function scrubRow(
  { index, entries, reader, signal }: ScrubDeps,
  row: OrderRow,
  now: EpochMs,
  pace: (bytes: number) => Promise<void>,
): Promise<void> {
  const record = index.get(row.digest);
  if (record === undefined) entries.discard(row);
  else if (record.entry.deleteAt <= now) entries.remove(record.entry.key);
  else if (record.seq === row.seq) await reader.rehash(record, pace, signal);
}

/** Resolves early when the signal aborts. */
async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  await sleep(clock, delayMs, signal).catch(() => undefined);
}
