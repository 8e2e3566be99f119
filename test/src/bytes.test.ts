import t from 'tap';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/bytes.js';

void t.test('sizes are read in decimal and binary units, and nothing else is', async (t) => {
  t.equal(parseSize('10MB'), 10_000_000);
  t.equal(parseSize('64 KiB'), 65_536);
  t.equal(parseSize('1500'), 1_500);
  for (const wrong of ['', 'MB', '-1', '1e9', '1PB', '10 M B', '9999999TB'])
    t.equal(parseSize(wrong), undefined, wrong);
});

void t.test('durations are read with a unit only', async (t) => {
  t.equal(parseDuration('250ms'), 250);
  t.equal(parseDuration('1.5h'), 5_400_000);
  for (const wrong of ['', '10', '-1s', '1w', 's']) t.equal(parseDuration(wrong), undefined, wrong);
});

void t.test('what is written is read back as the same', async (t) => {
  for (const bytes of [1, 1_500, 65_536, 10_000_000, 2 ** 40]) t.equal(parseSize(formatSize(bytes)), bytes);
  for (const ms of [1, 250, 90_000, 86_400_000]) t.equal(parseDuration(formatDuration(ms)), ms);
});
