/** What an operator reads of an import: how far it is, and what came of it. Pure. */

export interface Counts {
  stored: number;
  duplicates: number;
  /** Done by an earlier run. */
  skipped: number;
  bytes: number;
  /** By code. */
  readonly refused: Map<string, number>;
}

export function noCounts(): Counts {
  return { stored: 0, duplicates: 0, skipped: 0, bytes: 0, refused: new Map() };
}

export function refusedOf({ refused }: Counts): number {
  return [...refused.values()].reduce((sum, count) => sum + count, 0);
}

function seenOf(counts: Counts): number {
  return counts.stored + counts.duplicates + counts.skipped + refusedOf(counts);
}

/** `total`: null if nobody knows. The rate is that of this run, without what was done before. */
export function progressLine(counts: Counts, total: number | null, elapsedMs: number): string {
  const seen = seenOf(counts);
  const seconds = Math.max(elapsedMs, 1) / 1_000;
  const rate = (seen - counts.skipped) / seconds;
  const of = total === null ? '' : ` of ${total}${total === 0 ? '' : ` (${Math.floor((seen / total) * 100)} %)`}`;
  const left = total === null || rate === 0 ? '' : `, about ${timeOf((total - seen) / rate)} left`;
  return `${seen}${of} files, ${refusedOf(counts)} refused; ${rate.toFixed(rate < 10 ? 1 : 0)} files and ${bytesOf(counts.bytes / seconds)} a second${left}`;
}

/** `verb`: what became of those that were not refused. */
export function resultLine(counts: Counts, verb: string): string {
  const parts = [`${counts.stored} ${verb} (${bytesOf(counts.bytes)})`];
  if (counts.duplicates > 0) parts.push(`${counts.duplicates} were there already`);
  if (counts.skipped > 0) parts.push(`${counts.skipped} done before`);
  const codes = [...counts.refused].toSorted(([, one], [, other]) => other - one);
  const why = codes.length === 0 ? '' : ` (${codes.map(([code, count]) => `${code} ${count}`).join(', ')})`;
  return `${parts.join(', ')}; ${refusedOf(counts)} refused${why}`;
}

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB'] as const;

function bytesOf(bytes: number): string {
  const power = Math.min(UNITS.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1_000 ** power;
  return `${value.toFixed(power === 0 || value >= 100 ? 0 : 1)} ${UNITS[power] ?? ''}`;
}

function timeOf(seconds: number): string {
  const minutes = Math.ceil(seconds / 60);
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}
