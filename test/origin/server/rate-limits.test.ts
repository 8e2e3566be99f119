/** What the rate limits admit, count and tell, on a clock that the test moves. */
import t from 'tap';
import { createRateLimits, NO_RATE_LIMITS, rateLimitsSection } from '../../../origin/server/rate-limits.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';

const NONE = { requestsMax: 0, uploadedMaxBytes: 0, downloadedMaxBytes: 0 };
type Rates = Partial<typeof NONE>;

function setUp(subject: Rates, address: Rates, windowMs = 10_000, origins?: () => number) {
  const config = configured(rateLimitsSection, {
    windowMs,
    subject: { ...NONE, ...subject },
    address: { ...NONE, ...address },
    keysMax: 100,
  });
  const clock = new ManualClock();
  const { metrics, sample } = testDeps();
  const limits = createRateLimits(config, clock, metrics, origins);
  const meter = (address: string) => limits.meter(address);
  return { clock, sample, meter, unlimited: limits.unlimited };
}

const told = (headers: readonly (readonly [string, string])[]) => Object.fromEntries(headers);
const refusal = (seconds: number) => ({ code: 'rate_limited', headers: { 'retry-after': String(seconds) } });

void t.test('without a limit nothing is counted or told', async (t) => {
  const { meter, unlimited } = setUp({}, {});
  const counting = meter('192.0.2.1');
  for (let request = 0; request < 100; request += 1) t.doesNotThrow(() => counting.address());
  t.same(counting.headers(), []);
  t.equal(NO_RATE_LIMITS.meter('192.0.2.1'), NO_RATE_LIMITS.unlimited);
  for (const verb of ['address', 'admitDownload'] as const) t.doesNotThrow(() => unlimited[verb]());
  unlimited.subject('ann');
  unlimited.admitUpload(5);
  unlimited.uploaded(5);
  unlimited.downloaded(5);
  t.same(unlimited.headers(), []);
});

void t.test('several origins share a limit, whatever their number is at the moment', async (t) => {
  let origins = 3;
  const { meter, clock } = setUp({}, { requestsMax: 12 }, 10_000, () => origins);
  const admitted = (): number => {
    for (let count = 0; ; count += 1) {
      try {
        meter('192.0.2.1').address();
      } catch {
        return count;
      }
    }
  };
  const first = meter('192.0.2.1');
  first.address();
  t.same(told(first.headers()), { 'ratelimit-policy': '"address";q=4;w=10', ratelimit: '"address";r=3;t=3' });
  t.equal(admitted(), 3);
  clock.advance(10_000);
  origins = 1;
  t.equal(admitted(), 12);
  clock.advance(10_000);
  origins = 100;
  t.equal(admitted(), 1, 'each grants something');
});

void t.test('a request counts once for its address and once for its subject', async (t) => {
  const { meter, clock, sample } = setUp({ requestsMax: 2 }, { requestsMax: 4 });
  const ask = (address: string, subject: string | undefined) => {
    const one = meter(address);
    one.address();
    if (subject !== undefined) one.subject(subject);
    return told(one.headers());
  };
  t.same(ask('192.0.2.1', 'ann'), {
    'ratelimit-policy': '"address";q=4;w=10, "subject";q=2;w=10',
    ratelimit: '"address";r=3;t=3, "subject";r=1;t=5',
  });
  t.same(ask('192.0.2.2', undefined), { 'ratelimit-policy': '"address";q=4;w=10', ratelimit: '"address";r=3;t=3' });
  ask('192.0.2.1', 'ann');
  const third = meter('192.0.2.3');
  third.address();
  t.throws(() => third.subject('ann'), refusal(5), 'at every address');
  t.same(told(third.headers())['ratelimit'], '"address";r=3;t=3, "subject";r=0;t=10', 'which the refusal tells');
  t.equal(await sample('rate_limited_total{limit="subject"}'), 1);
  for (let count = 0; count < 2; count += 1) ask('192.0.2.1', `other ${count}`);
  t.throws(() => meter('192.0.2.1').address(), refusal(3));
  t.equal(await sample('rate_limited_total{limit="address"}'), 1);
  clock.advance(2_400);
  t.throws(() => meter('192.0.2.1').address(), refusal(1), 'never less than a second');
  clock.advance(100);
  meter('192.0.2.1').address();
  clock.advance(2_500);
  third.subject('ann');
});

void t.test('a network of IPv6 is one address', async (t) => {
  const { meter } = setUp({}, { requestsMax: 1 });
  meter('2001:db8::1').address();
  t.throws(() => meter('2001:db8::2').address(), { code: 'rate_limited' });
  meter('2001:db8:0:1::1').address();
});

void t.test('bytes of an upload count when they are announced, or else as they arrive', async (t) => {
  const { meter, clock, sample } = setUp({ uploadedMaxBytes: 1_000 }, { uploadedMaxBytes: 2_000 });
  const upload = (sizeBytes: number | null, subject: string | undefined = 'ann') => {
    const one = meter('192.0.2.1');
    if (subject !== undefined) one.subject(subject);
    one.admitUpload(sizeBytes);
    return one;
  };
  const announced = upload(600);
  announced.uploaded(600);
  t.same(told(announced.headers()), {
    'ratelimit-policy':
      '"subject-bytes";q=1000;w=10;qu="content-bytes", "address-bytes";q=2000;w=10;qu="content-bytes"',
    ratelimit: '"subject-bytes";r=400;t=6, "address-bytes";r=1400;t=3',
  });
  clock.advance(10_000);
  const quiet = upload(null);
  t.same(quiet.headers(), [], 'nothing has arrived');
  quiet.uploaded(300);
  quiet.uploaded(900);
  t.equal(told(quiet.headers())['ratelimit'], '"subject-bytes";r=0;t=12, "address-bytes";r=800;t=6');
  t.throws(() => upload(1), refusal(3), 'until what was too much is made up for');
  t.equal(await sample('rate_limited_total{limit="subject-bytes"}'), 1);
  clock.advance(2_010);
  upload(2_000);
  t.throws(() => upload(1, 'bob'), { code: 'rate_limited' }, 'the address has sent too much');
  t.equal(await sample('rate_limited_total{limit="address-bytes"}'), 1);
});

void t.test('bytes that are sent count, and the next download waits for them', async (t) => {
  const { meter, clock, sample } = setUp({ downloadedMaxBytes: 1_000 }, {});
  const one = meter('192.0.2.1');
  one.admitDownload();
  one.downloaded(500);
  t.same(one.headers(), [], 'without a subject there is no limit');
  one.subject('ann');
  one.admitDownload();
  one.downloaded(1_500);
  t.same(told(one.headers()), {
    'ratelimit-policy': '"subject-download-bytes";q=1000;w=10;qu="content-bytes"',
    ratelimit: '"subject-download-bytes";r=0;t=15',
  });
  t.throws(() => one.admitDownload(), refusal(6));
  t.equal(await sample('rate_limited_total{limit="subject-download-bytes"}'), 1);
  clock.advance(5_010);
  one.admitDownload();
});

void t.test('what is left of a limit is told from a tenth on', async (t) => {
  const { meter } = setUp({}, { requestsMax: 100 }, 20_000_000);
  const one = meter('192.0.2.1');
  for (let count = 0; count < 9; count += 1) one.address();
  t.same(one.headers(), []);
  one.address();
  t.same(told(one.headers()), { 'ratelimit-policy': '"address";q=100;w=20000', ratelimit: '"address";r=90;t=2000' });
});
