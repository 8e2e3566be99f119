/** Sizes and durations: between numbers and the text in the configuration. */

const SIZE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `10MB` is ten million bytes, `10MiB` is 10 × 2²⁰, a bare number is bytes. Undefined for anything else. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?i?B)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const unit = SIZE_UNITS[(match[2] ?? 'B').toUpperCase()];
  const bytes = unit === undefined ? Number.NaN : Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** `250ms`, `30s`, `5m`, `24h`, `7d`, in milliseconds. Undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(text.trim());
  if (match === null) return undefined;
  const ms = Math.round(Number(match[1]) * (DURATION_UNITS[match[2] ?? ''] ?? Number.NaN));
  return Number.isSafeInteger(ms) ? ms : undefined;
}

/** The shortest exact text for a number of bytes: `10MB`, `64KiB`, `1500B`. */
export function formatSize(sizeBytes: number): string {
  return shortest(sizeBytes, [
    ['TB', 1e12],
    ['TiB', 2 ** 40],
    ['GB', 1e9],
    ['GiB', 2 ** 30],
    ['MB', 1e6],
    ['MiB', 2 ** 20],
    ['KB', 1e3],
    ['KiB', 2 ** 10],
    ['B', 1],
  ]);
}

/** The shortest exact text for a number of milliseconds: `7d`, `90s`, `250ms`. */
export function formatDuration(durationMs: number): string {
  return shortest(durationMs, [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1_000],
    ['ms', 1],
  ]);
}

function shortest(value: number, units: readonly (readonly [string, number])[]): string {
  for (const [name, size] of units) {
    if (value >= size && value % size === 0) return `${value / size}${name}`;
  }
  return `0${units.at(-1)?.[0] ?? ''}`;
}
