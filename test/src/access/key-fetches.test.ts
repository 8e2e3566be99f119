/** When the keys of one Authentication Service are fetched again, what counts until then, and what stays over a restart. */
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { loadKeySet, saveKeySet } from '../../../src/access/kept-keys.js';
import { KeyRing } from '../../../src/access/key-ring.js';
import {
  type AuthService,
  accessConfig,
  JWKS_PATH,
  type Members,
  makeKey,
  openAuthService,
  sendJson,
} from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { until } from '../../kit/until.js';

const ED = makeKey('ed', 'EdDSA');
const EC = makeKey('ec', 'ES256');

interface Stage {
  readonly auth: AuthService;
  readonly clock: ManualClock;
  readonly ring: KeyRing;
  readonly fetches: string[];
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** Another ring for the same service. */
  readonly another: () => KeyRing;
}

async function setUp(
  t: Test,
  keys: Members = {},
  prepare: (auth: AuthService) => unknown = () => undefined,
): Promise<Stage> {
  const clock = new ManualClock();
  const auth = await openAuthService(clock, [ED]);
  await prepare(auth);
  const { log, lines } = testDeps();
  const fetches: string[] = [];
  const another = (): KeyRing => {
    const ring = new KeyRing({
      issuer: auth.issuer,
      jwksUrl: auth.jwksUrl,
      config: accessConfig({ keys: { refetch_interval: '10s', refresh: '10m', refetch_burst: 2, keep: '1h', ...keys } })
        .keys,
      clock,
      log,
      fetches: { add: (_amount, labels) => void fetches.push(String(labels?.outcome)) },
    });
    t.teardown(() => ring.close());
    return ring;
  };
  const ring = another();
  t.teardown(() => auth.close());
  return { auth, clock, ring, fetches, lines, another };
}

const fails = (auth: AuthService): void =>
  auth.override(JWKS_PATH, (_request, response) => response.writeHead(500).end());

void t.test('after failures it is asked again at growing intervals, none longer than the usual one', async (t) => {
  const { auth, clock, ring, fetches } = await setUp(t, {}, fails);
  for (const [at, seconds] of [10, 20, 40, 80, 160, 320, 600, 600].entries()) {
    await clock.timerSet(seconds * 1_000);
    t.equal(clock.pending, 1, 'one timer and no other');
    t.equal(auth.seen(JWKS_PATH), at + 1);
    t.equal(ring.state(), 'unknown');
    clock.advance(seconds * 1_000);
  }
  await until('the last fetch', () => fetches.length === 9);
  t.strictSame(new Set(fetches), new Set(['failed']));
  auth.override(JWKS_PATH, undefined);
  clock.advance(600_000);
  await until('the keys', () => ring.state() === 'current');
  fails(auth);
  await clock.timerSet(600_000);
  clock.advance(600_000);
  await clock.timerSet(10_000);
  t.equal(ring.state(), 'kept', 'and the count begins anew');
});

void t.test('keys count for as long as they may be kept, from the last time that they were confirmed', async (t) => {
  const { auth, clock, ring, lines } = await setUp(t, { refresh: '1d' });
  await ring.probe();
  await clock.timerSet(86_400_000);
  const [key] = ring.find('ed', 'EdDSA');
  t.ok(key);
  t.strictSame([ring.find('ed', 'ES256'), ring.find('other', 'EdDSA')], [[], []]);
  t.same(ring.find(undefined, 'EdDSA'), [key]);
  fails(auth);
  clock.advance(3_599_999);
  t.equal(ring.state(), 'current');
  t.same(ring.find('ed', 'EdDSA'), [key]);
  clock.advance(1);
  t.equal(ring.state(), 'unknown');
  t.strictSame(ring.find('ed', 'EdDSA'), []);
  t.equal(key?.withdrawn, false);
  await t.rejects(ring.probe(), /answered 500/);
  t.equal(key?.withdrawn, true, 'what it verified is forgotten with it');
  t.match(lines.at(-1), { level: 'error', msg: 'no public key is trusted any more: none was confirmed for 1h' });
});

void t.test(
  'an unknown key causes so many fetches, then one in each interval, and it is said when the next one may be',
  async (t) => {
    const { auth, clock, ring } = await setUp(t, {}, fails);
    await clock.timerSet(10_000);
    const seek = async () => {
      const before = auth.seen(JWKS_PATH);
      const outcome = await ring.seek('ed', 'EdDSA');
      return [auth.seen(JWKS_PATH) - before, outcome];
    };
    t.strictSame(await seek(), [1, { kind: 'unavailable', retryAfterMs: 1_000 }]);
    t.strictSame(await seek(), [1, { kind: 'unavailable', retryAfterMs: 10_000 }]);
    t.strictSame(await seek(), [0, { kind: 'unavailable', retryAfterMs: 10_000 }]);
    clock.advance(2_500);
    t.strictSame(await seek(), [0, { kind: 'unavailable', retryAfterMs: 7_500 }]);
    clock.advance(7_500);
    auth.override(JWKS_PATH, undefined);
    const [, found] = await seek();
    t.match(found, { kind: 'found', keys: [{ kid: 'ed' }] });
    t.strictSame(await ring.seek('none', 'EdDSA'), { kind: 'unknown' });
  },
);

void t.test('a key that was tried is not offered again, and one that was published since is', async (t) => {
  const { auth, clock, ring } = await setUp(t);
  await ring.probe();
  const tried = ring.find('ed', 'EdDSA');
  t.equal(tried.length, 1);
  const before = auth.seen(JWKS_PATH);
  t.strictSame(await ring.seek('ed', 'EdDSA', tried), { kind: 'unknown' });
  t.equal(auth.seen(JWKS_PATH), before + 1);
  auth.keys = [ED, EC];
  t.match(await ring.seek('ec', 'ES256', tried), { kind: 'found', keys: [{ kid: 'ec' }] });
  t.equal(auth.seen(JWKS_PATH), before + 2);
  t.match(await ring.seek('ec', 'ES256', tried), { kind: 'found' });
  t.equal(auth.seen(JWKS_PATH), before + 2, 'one that is known needs no fetch');
  auth.keys = [EC];
  clock.advance(10_000);
  await ring.seek('none', 'ES256');
  t.strictSame([ring.find('ed', 'EdDSA'), tried[0]?.withdrawn], [[], true]);
  t.equal(ring.find('ec', 'ES256')[0]?.withdrawn, false);
});

void t.test('a ring that is closed fetches nothing more', async (t) => {
  const { auth, clock, ring } = await setUp(t);
  await ring.probe();
  await clock.timerSet(600_000);
  await ring.close();
  t.equal(clock.pending, 0);
  const seen = auth.seen(JWKS_PATH);
  t.strictSame(await ring.seek('none', 'EdDSA'), { kind: 'unknown' });
  t.equal(auth.seen(JWKS_PATH), seen);
  t.equal(clock.pending, 0);
});

void t.test('keys over a plain connection are warned of, except on this machine', async (t) => {
  const { auth, lines } = await setUp(t);
  t.strictSame(lines, []);
  const warned = (issuer: string, jwksUrl: string | null): boolean => {
    const { log, lines: own } = testDeps();
    const config = accessConfig({}).keys;
    const ring = new KeyRing({
      issuer,
      jwksUrl,
      config,
      clock: new ManualClock(),
      log,
      fetches: { add: () => undefined },
    });
    void ring.close();
    return own.some(({ msg }) => /without TLS/.test(String(msg)));
  };
  const { port } = new URL(auth.issuer);
  for (const [url, warns] of [
    [`http://127.0.0.1:${port}`, false],
    [`http://127.1.2.3:${port}`, false],
    [`http://localhost:${port}`, false],
    [`http://[::1]:${port}`, false],
    [`https://0.0.0.0:${port}`, false],
    [`http://0.0.0.0:${port}`, true],
  ] as const) {
    t.equal(warned(url, null), warns, url);
    t.equal(warned('an issuer that is no URL', url), warns, url);
  }
});

void t.test('a set is kept with its source and the time at which it was confirmed, and by itself', async (t) => {
  const folder = join(t.testdir(), 'keys');
  const saved = { issuer: 'i', jwksUrl: 'u', confirmedAt: 5, document: { keys: [1] } };
  t.equal(await loadKeySet(t.testdirName, saved), undefined);
  await saveKeySet(folder, saved);
  const [name = ''] = await readdir(folder);
  t.match(name, /^[0-9a-f]{32}\.json$/);
  t.strictSame(JSON.parse(await readFile(join(folder, name), 'utf8')), { format: 1, ...saved });
  t.strictSame(await loadKeySet(folder, saved), saved);
  t.equal(await loadKeySet(folder, { issuer: 'i', jwksUrl: null }), undefined);
  for (const change of [{ format: 2 }, { issuer: 'x' }, { jwksUrl: null }, { confirmedAt: '5' }]) {
    await writeFile(join(folder, name), JSON.stringify({ format: 1, ...saved, ...change }));
    t.equal(await loadKeySet(folder, saved), undefined, JSON.stringify(change));
  }
  await writeFile(join(folder, name), 'no JSON');
  await t.rejects(loadKeySet(folder, saved));
  await saveKeySet(folder, saved);
  t.strictSame(await loadKeySet(folder, saved), saved, 'it is replaced');
  t.strictSame(await readdir(folder), [name], 'nothing else is left');
  t.equal((await stat(join(folder, name))).mode & 0o777, 0o600, 'nobody else reads or changes it');
  await rm(join(folder, name));
  await mkdir(join(folder, name, 'full'), { recursive: true });
  await t.rejects(saveKeySet(folder, saved), /EISDIR|ENOTEMPTY|EEXIST/);
  t.strictSame(await readdir(folder), [name], 'what could not be put in place is removed');
  await t.rejects(loadKeySet(folder, saved), /EISDIR/, 'what cannot be read is not taken for none');
});

void t.test('kept keys count from the start, unless they are of the future or too old', async (t) => {
  for (const [confirmedAgoMs, state] of [
    [0, 'kept'],
    [3_599_999, 'kept'],
    [3_600_000, 'unknown'],
    [-1, 'unknown'],
  ] as const) {
    const folder = join(t.testdir({}), `of-${confirmedAgoMs}`);
    const { auth, clock, another, ring } = await setUp(t, { folder }, fails);
    await clock.timerSet(10_000);
    t.equal(ring.state(), 'unknown');
    const confirmedAt = clock.now() - confirmedAgoMs;
    await saveKeySet(folder, { issuer: auth.issuer, jwksUrl: auth.jwksUrl, confirmedAt, document: { keys: [ED.jwk] } });
    const later = another();
    if (state === 'kept') await later.probe();
    else await t.rejects(later.probe());
    t.equal(later.state(), state, String(confirmedAgoMs));
    t.equal(later.find('ed', 'EdDSA').length, state === 'kept' ? 1 : 0);
  }
});

void t.test('a set whose keys cannot be kept is used all the same', async (t) => {
  const folder = join(t.testdir({ file: 'x' }), 'file');
  const { ring, lines, clock } = await setUp(t, { folder });
  await ring.probe();
  await clock.timerSet(600_000);
  t.equal(ring.state(), 'current');
  t.ok(lines.some(({ msg }) => msg === 'the public keys cannot be saved for the next start'));
});

void t.test('fetches at the same time are one', async (t) => {
  const waiting: (() => void)[] = [];
  const { auth, ring } = await setUp(t, {}, (auth) =>
    auth.override(JWKS_PATH, (_request, response) => waiting.push(() => sendJson(response, { keys: [ED.jwk] }))),
  );
  const all = [ring.probe(), ring.probe(), ring.seek('ed', 'EdDSA')];
  await until('the fetch', () => waiting.length > 0);
  for (const answer of waiting) answer();
  await Promise.all(all);
  t.equal(auth.seen(JWKS_PATH), 1);
});
