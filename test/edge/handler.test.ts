/** The parts that the edge's story decides by, each against its rules; and fills against a model of what readers must see. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { array, assert, asyncProperty, boolean, constantFrom, integer, property, record, string } from 'fast-check';
import t from 'tap';
import { createFlights, type Flight, type FlightSpec } from '../../edge/fetch/flight.js';
import { applyRules, type Rule } from '../../edge/fetch/rules.js';
import { createUncacheableMemory } from '../../edge/fetch/uncacheable.js';
import { keyOf, type TargetRules, targetOf, thumbTarget } from '../../edge/key.js';
import { entry } from '../../edge/main.js';
import { createBreaker } from '../../edge/upstream/breaker.js';
import type { MediaId } from '../../src/ids.js';
import {
  chooseFormat,
  chooseVariant,
  readThumbOptions,
  readThumbSize,
  type ThumbOptions,
} from '../../src/media/thumb-choice.js';
import { ManualClock } from '../kit/clock.js';
import { openTestEdge } from '../kit/edge/edge.js';
import { mediaHead } from '../kit/edge/scripted-origin.js';
import { startDownload } from '../kit/http/download.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const THUMBS: ThumbOptions = {
  variants: [
    { name: 'tall', width: 100, height: 200, fit: 'inside' },
    { name: 'wide', width: 200, height: 100, fit: 'cover' },
    { name: 'medium', width: 320, height: 320, fit: 'inside' },
    { name: 'large', width: 640, height: 640, fit: 'inside' },
  ],
  formats: ['avif', 'webp', 'jpeg'],
  default: 'medium',
};

void t.test('the target is read from the path as received', async (t) => {
  const media: TargetRules = { access: 'media', sharedPaths: new Set(['/.well-known']) };
  const cases: readonly (readonly [string, string, string])[] = [
    ['GET', `/v1/media/${ID}`, 'media original'],
    ['HEAD', `/v1/media/${ID.toLowerCase()}/thumb`, 'media thumb'],
    ['GET', `/v1/media/${ID}/info`, 'media info'],
    ['GET', `/v1/media/${ID}/thumb/info`, 'pass'],
    ['GET', `/v1/media/${ID}/`, 'pass'],
    ['GET', `/v1/media/${ID}/thumb/`, 'pass'],
    ['GET', `/v1/media/${ID}/link`, 'pass'],
    ['GET', `/v1//media/${ID}`, 'pass'],
    ['GET', '/v1/media/', 'pass'],
    ['GET', '/v1/media', 'pass'],
    ['GET', '/v1/media/thumb', 'invalid_id'],
    ['GET', '/v1/media//thumb', 'pass'],
    ['GET', '/v1/media/8ZZZZZZZZZZZZZZZZZZZZZZZZZ', 'invalid_id'],
    ['GET', `/v1/media/%30${ID.slice(1)}`, 'invalid_id'],
    ['DELETE', `/v1/media/${ID}`, 'pass'],
    ['OPTIONS', `/v1/media/${ID}`, 'pass'],
    ['GET', '/.well-known', 'generic'],
    ['GET', '/.well-known/x', 'pass'],
    ['POST', '/.well-known', 'pass'],
    ['GET', '/internal/v1/journal', 'hidden'],
    ['POST', '/internal/v1/journal/confirm', 'hidden'],
  ];
  for (const [method, path, want] of cases) {
    const target = targetOf({ method, path }, media);
    t.equal(target.kind === 'media' ? `media ${target.form}` : target.kind, want, `${method} ${path}`);
    if (target.kind === 'media') t.equal(target.id, ID);
    const off = targetOf({ method, path }, { ...media, access: 'off' });
    t.equal(off.kind, method === 'GET' || method === 'HEAD' ? 'generic' : 'pass');
  }
});

void t.test('keys distinguish what Vary distinguishes, in whatever order it is given', async (t) => {
  t.equal(keyOf('/a', {}), '/a');
  t.equal(keyOf('/a', { b: '1', a: '2' }), keyOf('/a', { a: '2', b: '1' }));
  t.not(keyOf('/a', { a: '1' }), keyOf('/a', { a: '2' }));
  t.not(keyOf('/a', { a: '' }), keyOf('/a', {}));
});

void t.test('the chosen variant covers the size that is requested, and its own size chooses it again', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['', 'medium'],
    ['w=1', 'tall'],
    ['w=150', 'wide'],
    ['h=150', 'tall'],
    ['w=150&h=150', 'medium'],
    ['w=320&h=320', 'medium'],
    ['w=321', 'large'],
    ['w=9999', 'large'],
    ['w=0', 'medium'],
    ['w=1.5', 'medium'],
    ['w=+1', 'medium'],
    ['w=1e1', 'medium'],
    ['w=9999999', 'medium'],
    ['x=1&w=150', 'wide'],
  ];
  for (const [query, want] of cases) t.equal(chooseVariant(THUMBS, readThumbSize(query)).name, want, query);

  const variant = record({ width: integer({ min: 1, max: 8 }), height: integer({ min: 1, max: 8 }) });
  const size = record({ w: integer({ min: 0, max: 9 }), h: integer({ min: 0, max: 9 }) });
  assert(
    property(array(variant, { minLength: 1, maxLength: 6 }), size, (sizes, { w, h }) => {
      const variants = sizes.map((each, index) => ({ ...each, name: String(index), fit: 'inside' as const }));
      const options = { variants, default: '0' };
      const chosen = chooseVariant(options, { w: w === 0 ? undefined : w, h: h === 0 ? undefined : h });
      const again = chooseVariant(options, { w: chosen.width, h: chosen.height });
      const covering = variants.some(({ width, height }) => width >= w && height >= h);
      if (w + h > 0 && covering && (chosen.width < w || chosen.height < h)) return false;
      return again.width === chosen.width && again.height === chosen.height;
    }),
  );
});

void t.test('a format is chosen by the weights of Accept, and never refused', async (t) => {
  const all = THUMBS.formats;
  const cases: readonly (readonly [string | undefined, string])[] = [
    [undefined, 'jpeg'],
    ['', 'jpeg'],
    ['*/*', 'jpeg'],
    ['image/*', 'jpeg'],
    ['image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8', 'avif'],
    ['image/webp,*/*', 'webp'],
    ['IMAGE/WEBP', 'webp'],
    ['image/webp;q=0', 'jpeg'],
    ['image/webp;q=0.000, image/jpeg', 'jpeg'],
    ['image/webp;q=0.2, image/jpeg;q=0.9', 'jpeg'],
    ['image/avif;q=0.5, image/webp;q=0.9', 'webp'],
    ['image/webp;q=2', 'jpeg'],
    ['image/webp;q=x', 'jpeg'],
    ['text/html', 'jpeg'],
    [',,;q=1,image/webp', 'webp'],
  ];
  for (const [accept, want] of cases) t.equal(chooseFormat(accept, all), want, String(accept));
  t.equal(chooseFormat('image/avif, image/webp;q=0.9', ['webp']), 'webp', 'a format that is not enabled is not chosen');
});

void t.test('however thumbnails are requested, there are at most three keys for each variant', async (t) => {
  const media = constantFrom('image/avif', 'image/webp', 'image/jpeg', 'image/png', 'image/*', '*/*', 'text/html');
  const weight = constantFrom('', ';q=0', ';q=0.3', ';q=1', ';q=nonsense');
  const accept = array(record({ media, weight }), { maxLength: 6 });
  const keys = new Set<string>();
  assert(
    property(accept, string({ maxLength: 12 }), integer({ min: -5, max: 900 }), (members, noise, w) => {
      const field = members.map((each) => each.media + each.weight).join(', ');
      const query = `w=${w}&${new URLSearchParams({ noise }).toString()}&sig=${noise.length}`;
      const target = thumbTarget(ID, query, { accept: field, destination: undefined }, THUMBS);
      keys.add(target.primaryKey);
      const again = { accept: target.accept ?? '', destination: undefined };
      // The request to the origin chooses the same again.
      return thumbTarget(ID, target.originTarget.split('?')[1] ?? '', again, THUMBS).primaryKey === target.primaryKey;
    }),
    { numRuns: 2_000 },
  );
  t.ok(keys.size <= THUMBS.variants.length * 3, `${keys.size} keys`);
});

void t.test('thumbnail options are read only if they are valid', async (t) => {
  t.same(readThumbOptions(JSON.parse(JSON.stringify(THUMBS))), THUMBS);
  const wrong: readonly unknown[] = [
    null,
    [],
    {},
    { ...THUMBS, variants: [] },
    { ...THUMBS, default: 'none' },
    { ...THUMBS, formats: [1] },
    { ...THUMBS, variants: [...THUMBS.variants, { name: 'x y', width: 1, height: 1, fit: 'cover' }] },
    { ...THUMBS, variants: [...THUMBS.variants, { name: 'x', width: 0, height: 1, fit: 'cover' }] },
    { ...THUMBS, variants: [...THUMBS.variants, { name: 'x', width: 1, height: 1, fit: 'fill' }] },
    { ...THUMBS, variants: [...THUMBS.variants, THUMBS.variants[0]] },
  ];
  for (const value of wrong) t.equal(readThumbOptions(value), undefined, JSON.stringify(value));
});

void t.test('the first rule that matches decides', async (t) => {
  const any: Rule = {
    path: 'any',
    type: '*/*',
    fromBytes: 0,
    toBytes: 1e12,
    ttlMs: null,
    staleWhileRevalidateMs: null,
    staleIfErrorMs: null,
    tiers: 'both',
    admission: 'as_set',
    warm: 'as_set',
  };
  const rules: readonly Rule[] = [
    { ...any, path: 'thumb', ttlMs: 1 },
    { ...any, type: 'image/*', toBytes: 100, ttlMs: 2, tiers: 'memory', admission: 'second_hit' },
    { ...any, type: 'video/mp4', ttlMs: 3, tiers: 'disk', warm: 'now' },
    { ...any, fromBytes: 1_000, ttlMs: 4, tiers: 'none' },
  ];
  const cases = [
    ['thumb', 'video/mp4', 5, 1],
    ['original', 'image/png', 100, 2],
    ['original', 'IMAGE/PNG; x=y', 0, 2],
    ['original', 'image/png', 101, null],
    ['original', 'video/mp4', 5_000, 3],
    ['original', 'video/webm', 5_000, 4],
    ['original', undefined, 1, null],
    ['other', 'images/png', 1, null],
  ] as const;
  for (const [pathKind, contentType, sizeBytes, ttlMs] of cases) {
    const headers = contentType === undefined ? [] : ([['content-type', contentType]] as const);
    t.equal(applyRules(rules, { pathKind, headers, sizeBytes }).ttlMs, ttlMs, `${contentType} ${sizeBytes}`);
  }
  const video = applyRules(rules, { pathKind: 'original', headers: [['content-type', 'video/mp4']], sizeBytes: null });
  t.same([video.tiers, video.warm], [{ memory: false, disk: true }, 'now']);
  const image = applyRules(rules, { pathKind: 'original', headers: [['content-type', 'image/png']], sizeBytes: 9 });
  t.same(image.tiers, { memory: true, disk: false, admission: 'second_hit' });
});

void t.test('a configuration is checked for what the edge needs', async (t) => {
  const nothing = { env: () => undefined, file: () => undefined };
  const faultsOf = (text: string): readonly string[] => {
    const read = entry.read(join(t.testdir({ 'config.yaml': text }), 'config.yaml'), nothing);
    return (read.kind === 'faulty' ? read.faults : []).map(({ path, message }) => `${path}: ${message}`);
  };
  t.same(faultsOf('edge: { access: "off" }'), [], 'a generic cache needs no secrets');
  t.match(faultsOf('edge: { access: media }').join('\n'), /access\.edge_secret: the file .* cannot be read/);
  t.match(faultsOf('edge: { access: "off", rules: [{ from: 2KB, to: 1KB }] }'), [/^edge\.rules\.0: /]);
  t.match(faultsOf('edge: { access: "off", trusted_proxies: ["1.2.3.4/99"] }'), [/^edge\.trusted_proxies\.0: /]);
  t.match(faultsOf('edge: { access: "off", rules: [{ tiers: tape }] }'), [/^edge\.rules\.0\.tiers: /]);
});

void t.test('the breaker opens for an outage, not for a burst', async (t) => {
  const clock = new ManualClock();
  const breaker = createBreaker({ enabled: true, failures: 3, afterMs: 100, openMs: 1_000 }, clock);
  for (let time = 0; time < 50; time += 1) breaker.failed();
  t.equal(breaker.enter(), 'let_in', 'all at one instant');
  clock.advance(100);
  breaker.failed();
  t.equal(breaker.enter(), 'refused');
  clock.advance(1_000);
  t.same([breaker.enter(), breaker.enter()], ['let_in', 'refused'], 'one tries');
  breaker.failed();
  t.equal(breaker.enter(), 'refused');
  clock.advance(1_000);
  t.equal(breaker.enter(), 'let_in');
  breaker.abandoned();
  t.equal(breaker.enter(), 'let_in', 'an attempt that was given up says nothing');
  breaker.succeeded();
  t.same([breaker.enter(), breaker.enter(), breaker.state], ['let_in', 'let_in', 'closed']);
  const off = createBreaker({ enabled: false, failures: 1, afterMs: 0, openMs: 1_000 }, clock);
  off.failed();
  t.equal(off.enter(), 'let_in');
});

void t.test('that a response cannot be shared is remembered for a while, within a bound', async (t) => {
  const clock = new ManualClock();
  const memory = createUncacheableMemory(() => ({ aloneMax: 2, aloneMs: 100 }), clock);
  for (const key of ['a', 'b', 'c']) memory.remember(key, 'private');
  t.same(
    ['a', 'b', 'c'].map((key) => memory.recall(key)),
    [undefined, 'private', 'private'],
  );
  clock.advance(99);
  memory.remember('b', 'large');
  clock.advance(1);
  t.same(
    ['b', 'c'].map((key) => memory.recall(key)),
    ['large', undefined],
  );
  memory.forget('b');
  t.equal(memory.recall('b'), undefined);
});

void t.test('flights are shared, counted and ended', async (t) => {
  const spec = (key: string, rest: Partial<FlightSpec<string>> = {}): FlightSpec<string> => ({
    key,
    primaryKey: key,
    mediaId: null,
    background: false,
    run: () => new Promise(() => undefined),
    ...rest,
  });
  const client = (): AbortController => new AbortController();

  await t.test('a flight ends when its last caller leaves', async (t) => {
    const flights = createFlights<string>(() => ({ concurrentMax: 10, waitersMax: 10 }));
    const [one, other] = [client(), client()];
    const started = flights.joinOrStart(spec('a'), one.signal);
    const joined = flights.joinOrStart(spec('a'), other.signal);
    t.same([started.kind, joined.kind, flights.underWay], ['started', 'joined', 1]);
    const { signal } = flights.find('a') as Flight<string>;
    one.abort();
    t.notOk(signal.aborted);
    other.abort();
    t.match(signal.reason, { why: 'unwanted' });
    t.equal(flights.find('a'), undefined, 'nobody joins what was ended');
    t.equal(flights.underWay, 1, 'but it is in progress until it has finished');
  });

  await t.test('flights and their callers have limits', async (t) => {
    const flights = createFlights<string>(() => ({ concurrentMax: 1, waitersMax: 1 }));
    flights.joinOrStart(spec('a'), client().signal);
    t.match(flights.joinOrStart(spec('a'), client().signal), { kind: 'full', limit: 'waiters' });
    t.match(flights.joinOrStart(spec('b'), client().signal), { kind: 'full', limit: 'flights' });
    t.match(flights.joinOrStart(spec('a'), undefined), { kind: 'joined' }, 'in the background nobody waits');
  });

  await t.test('a background flight goes on without callers', async (t) => {
    const flights = createFlights<string>(() => ({ concurrentMax: 9, waitersMax: 9 }));
    const one = client();
    flights.joinOrStart(spec('a'), one.signal);
    flights.joinOrStart(spec('a', { background: true }), undefined);
    one.abort();
    t.notOk(flights.find('a')?.signal.aborted);
  });

  await t.test('flights are ended by media, by key, and all of them at the end', async (t) => {
    const flights = createFlights<string>(() => ({ concurrentMax: 9, waitersMax: 9 }));
    const ended: string[] = [];
    const run = (flight: Flight<string>): Promise<string> =>
      new Promise((resolve) => {
        flight.signal.addEventListener('abort', () => {
          ended.push(`${flight.spec.key} ${(flight.signal.reason as { why: string }).why}`);
          flight.finish();
          resolve('ended');
        });
      });
    for (const key of ['a', 'a/thumb']) flights.joinOrStart(spec(key, { mediaId: ID, run }), client().signal);
    for (const key of ['b', 'c']) flights.joinOrStart(spec(key, { run }), client().signal);
    flights.breakOff(ID);
    t.same(ended, ['a taken_down', 'a/thumb taken_down']);
    flights.breakOffWhere((key) => key === 'b');
    await flights.close();
    t.same(ended.slice(2), ['b purged', 'c closing']);
    t.equal(flights.underWay, 0);
    t.match(flights.joinOrStart(spec('d'), client().signal), { kind: 'full' });
  });
});

void t.test('whatever readers, aborts and faults there are, a complete read has the bytes of the origin', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  const reader = record({ startsAt: integer({ min: 0, max: 5 }), leaves: boolean(), ranged: boolean() });
  const fault = constantFrom('none', 'none', 'short', 'reset', 'wrong_byte', 'taken_down');
  let round = 0;
  await assert(
    asyncProperty(
      integer({ min: 1, max: 60_000 }),
      array(reader, { minLength: 1, maxLength: 5 }),
      fault,
      async (size, readers, how) => {
        round += 1;
        const id = `01J9ZC8GZ${String(round).padStart(17, '0')}` as MediaId;
        const path = `/v1/media/${id}`;
        const bytes = randomBytes(size);
        const sent =
          how === 'wrong_byte' ? Buffer.from(bytes.map((byte, at) => (at === size - 1 ? byte ^ 1 : byte))) : bytes;
        const pieces = Array.from({ length: 5 }, (_, n) => sent.subarray((n * size) / 5, ((n + 1) * size) / 5));
        let step = 0;
        edge.origin.on(path, async (_seen, answer) => {
          answer.head(200, mediaHead({ bytes }));
          for (const piece of pieces) {
            step += 1;
            if (step === 3 && how === 'taken_down') await edge.takeDown(id);
            if (step === 3 && how === 'reset') return answer.reset();
            if (step === 5 && how === 'short') return answer.hangUp();
            await answer.write(piece);
            await new Promise(setImmediate);
          }
          answer.end();
        });
        const reads = readers.map(async ({ startsAt, leaves, ranged }) => {
          for (let turn = 0; turn < startsAt; turn += 1) await new Promise(setImmediate);
          const first = Math.floor(size / 3);
          const range = ranged ? { range: `bytes=${first}-` } : {};
          const headers = { authorization: 'Bearer reader', ...range };
          // Broken off before its head: there is nothing to compare.
          const reading = await startDownload(edge.url + path, headers).catch(() => undefined);
          if (reading === undefined) return true;
          if (leaves) reading.abort();
          const { bytes: got, whole } = await reading.ended;
          const want = reading.status === 206 ? bytes.subarray(first) : bytes;
          return !whole || reading.status >= 400 || got.equals(want);
        });
        return (await Promise.all(reads)).every((right) => right);
      },
    ),
    { numRuns: 40 },
  );
  while (edge.engine.flights.underWay > 0) await new Promise(setImmediate);
  t.equal(edge.engine.cache.stats().fills, 0, 'no fill is left');
});
