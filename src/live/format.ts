/** Numbers, sizes and times as operators read them. */

export function count(value: number | null): string {
  return value === null ? '–' : value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 1 : 0 });
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number | null): string {
  if (value === null) return '–';
  let rest = value;
  let unit = 0;
  while (rest >= 1_024 && unit < UNITS.length - 1) {
    rest /= 1_024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(rest) : rest.toFixed(rest < 10 ? 2 : 1)} ${UNITS[unit]}`;
}

export function percent(ratio: number | null): string {
  return ratio === null ? '–' : `${(ratio * 100).toFixed(ratio > 0.995 && ratio < 1 ? 2 : 1).replace(/\.0+$/, '')} %`;
}

export function milliseconds(value: number | null): string {
  if (value === null) return '–';
  return value < 1_000 ? `${value.toFixed(value > 0 && value < 10 ? 1 : 0)} ms` : `${(value / 1_000).toFixed(1)} s`;
}

/** A span of time, roughly. */
export function span(ms: number | null): string {
  if (ms === null) return '–';
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** An instant (RFC 3339) as date and time in UTC, as the logs have it. */
export function instant(text: string): string {
  return text.slice(0, 19).replace('T', ' ');
}
