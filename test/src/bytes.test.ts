/** Sizes and durations as the configuration and messages write them: each unit, read and written. */
import t from 'tap';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/bytes.js';

void t.test('each unit of a size is read, in either case, and written where it is the shortest', async (t) => {
  const units: readonly (readonly [unit: string, bytes: number])[] = [
    ['B', 1],
    ['KB', 1_000],
    ['KiB', 1_024],
    ['MB', 1_000_000],
    ['MiB', 1_048_576],
    ['GB', 1_000_000_000],
    ['GiB', 1_073_741_824],
    ['TB', 1_000_000_000_000],
    ['TiB', 1_099_511_627_776],
  ];
  for (const [unit, bytes] of units) {
    t.equal(formatSize(3 * bytes), `3${unit}`);
    t.equal(formatSize(bytes), `1${unit}`);
    for (const text of [`3${unit}`, `3 ${unit}`, ` 3${unit.toLowerCase()} `, `3${unit.toUpperCase()}`]) {
      t.equal(parseSize(text), 3 * bytes, text);
    }
  }
  t.strictSame(
    [formatSize(0), formatSize(1_500), formatSize(999), formatSize(2_500_000), formatSize(1_536)],
    ['0B', '1500B', '999B', '2500KB', '1536B'],
  );
  t.strictSame([parseSize('1.5KiB'), parseSize('1.5B'), parseSize('0.4B'), parseSize('0')], [1_536, 2, 0, 0]);
  t.equal(parseSize('9007199254740991'), Number.MAX_SAFE_INTEGER);
  for (const wrong of ['9007199254740992', '1iB', '1K', '1.', '.5', '1,5MB', 'x1B', '1Bx']) {
    t.equal(parseSize(wrong), undefined, wrong);
  }
});

void t.test('each unit of a duration is read, and written where it is the shortest', async (t) => {
  const units: readonly (readonly [unit: string, ms: number])[] = [
    ['ms', 1],
    ['s', 1_000],
    ['m', 60_000],
    ['h', 3_600_000],
    ['d', 86_400_000],
  ];
  for (const [unit, ms] of units) {
    t.strictSame([formatDuration(7 * ms), formatDuration(ms)], [`7${unit}`, `1${unit}`]);
    t.strictSame(
      [parseDuration(`7${unit}`), parseDuration(` 7 ${unit} `), parseDuration(`0.5${unit}`)],
      [7 * ms, 7 * ms, Math.round(ms / 2)],
    );
  }
  t.strictSame([formatDuration(0), formatDuration(90_000), formatDuration(1_001)], ['0ms', '90s', '1001ms']);
  for (const wrong of ['1S', '1H', '1 d d', '1', '9007199254740992ms']) t.equal(parseDuration(wrong), undefined, wrong);
});
