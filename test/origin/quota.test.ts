/** What an upload reserves of its quota, and that it is given back once, whatever becomes of the upload. */
import t from 'tap';
import { createQuotas, fits, type QuotaConfig, quotaSection } from '../../origin/quota.js';
import { ManualClock } from '../kit/clock.js';
import { configured } from '../kit/deps.js';

const HOUR = 3_600_000;

function quotasOf(given: Partial<QuotaConfig>, usage = async () => ({ bytes: 0, files: 0 })) {
  const quotas = createQuotas(configured(quotaSection, { periodMs: HOUR, ...given }), { usage }, new ManualClock());
  const reserve = async (sizeBytes: number | null, files?: 0 | 1) => {
    const outcome = await quotas.reserve('ada', sizeBytes, files);
    return outcome.kind === 'reserved' ? outcome.reservation : undefined;
  };
  return { quotas, reserve };
}

void t.test('a refused upload keeps nothing of the quota', async (t) => {
  const { reserve } = quotasOf({ totalBytes: 100, filesMax: 2 });
  for (let upload = 0; upload < 5; upload += 1) t.equal(await reserve(101), undefined);
  t.ok(await reserve(100));
});

void t.test('nor does one whose usage cannot be read', async (t) => {
  let failing = true;
  const { reserve } = quotasOf({ totalBytes: 100, filesMax: 1 }, async () => {
    if (failing) throw new Error('the database fails');
    return { bytes: 0, files: 0 };
  });
  for (let upload = 0; upload < 3; upload += 1) await t.rejects(reserve(100), { message: 'the database fails' });
  failing = false;
  t.ok(await reserve(100));
});

void t.test('a reservation is given back once', async (t) => {
  const { reserve } = quotasOf({ totalBytes: 100, filesMax: 9 });
  const [one, other] = [await reserve(60), await reserve(40)];
  one?.release();
  one?.release();
  t.equal(await reserve(61), undefined, 'the other one still counts');
  t.ok(await reserve(60));
  other?.release();
});

void t.test('a partial upload that reserves nothing takes nothing from others when it ends', async (t) => {
  const { reserve } = quotasOf({ totalBytes: 100, filesMax: 9 });
  const partial = await reserve(null, 0);
  (await reserve(10))?.release();
  t.ok(await reserve(100));
  partial?.release();
  t.equal(await reserve(1), undefined, 'the whole quota is reserved');
});

void t.test('two uploads that ask at once do not get the same room', async (t) => {
  const { reserve } = quotasOf({ totalBytes: 100, filesMax: 9 });
  const both = await Promise.all([reserve(60), reserve(60)]);
  t.equal(both.filter((each) => each !== undefined).length, 1);
});

void t.test('what fits a quota', (t) => {
  const quota = { periodStartAt: 0, bytesMax: 100, filesMax: 3 };
  const rows: readonly (readonly [bytes: number, files: number, moreBytes: number, moreFiles: number, fit: boolean])[] =
    [
      [0, 0, 100, 3, true],
      [0, 0, 101, 1, false],
      [0, 0, 0, 4, false],
      [99, 2, 1, 1, true],
      [99, 3, 1, 1, false],
      [100, 0, 0, 0, false],
      [99, 0, 0, 1, true],
    ];
  for (const [bytes, files, moreBytes, moreFiles, fit] of rows) {
    t.equal(
      fits({ bytes, files }, quota, moreBytes, moreFiles),
      fit,
      `${bytes} + ${moreBytes}, ${files} + ${moreFiles}`,
    );
  }
  t.end();
});
