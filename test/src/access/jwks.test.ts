/** Key sets as they are published: which of their keys are used, for which algorithms, and how a key is known again. */
import { createSecretKey, generateKeyPairSync, type JsonWebKey, type KeyObject } from 'node:crypto';
import t from 'tap';
import { fittingKeys, readKeySet } from '../../../src/access/jwks.js';

type Jwk = JsonWebKey & Readonly<Record<string, unknown>>;

const publicOf = (key: KeyObject): Jwk => key.export({ format: 'jwk' });
const EC = publicOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey);
const EC384 = publicOf(generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey);
const EC521 = publicOf(generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey);
const ED = publicOf(generateKeyPairSync('ed25519').publicKey);
const X25519 = publicOf(generateKeyPairSync('x25519').publicKey);
const RSA = publicOf(generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey);
const SHORT_RSA = publicOf(generateKeyPairSync('rsa', { modulusLength: 2_040 }).publicKey);

const usable = (...keys: readonly unknown[]) => readKeySet({ keys }, 100);

void t.test('a set is an object with a list of keys, and at most so many of them are used', async (t) => {
  for (const document of [null, undefined, 'keys', 5, [], {}, { keys: {} }, { keys: null }]) {
    t.throws(() => readKeySet(document, 9), { message: 'not a JSON Web Key Set' }, JSON.stringify(document));
  }
  t.strictSame(readKeySet({ keys: [] }, 9), []);
  const three = [
    { ...EC, kid: 'a' },
    { kty: 'oct', k: 'x' },
    { ...EC, kid: 'b' },
  ];
  t.strictSame(
    [0, 1, 2, 3].map((keysMax) => readKeySet({ keys: three }, keysMax).map(({ kid }) => kid)),
    [[], ['a'], ['a'], ['a', 'b']],
  );
});

void t.test('a key is used if it is public, checks signatures and is long enough', async (t) => {
  const { k } = createSecretKey(Buffer.alloc(32, 1)).export({ format: 'jwk' });
  const cases: readonly (readonly [what: string, key: unknown, used: boolean])[] = [
    ['an EC key', EC, true],
    ['an Ed25519 key', ED, true],
    ['an RSA key of 2048 bits', RSA, true],
    ['an RSA key of fewer', SHORT_RSA, false],
    ['for signatures', { ...EC, use: 'sig' }, true],
    ['for encryption', { ...EC, use: 'enc' }, false],
    ['to verify', { ...EC, key_ops: ['verify'] }, true],
    ['to sign and verify', { ...EC, key_ops: ['sign', 'verify'] }, true],
    ['to sign', { ...EC, key_ops: ['sign'] }, false],
    ['for nothing', { ...EC, key_ops: [] }, false],
    ['operations that are no list', { ...EC, key_ops: 'verify' }, false],
    ['a secret', { kty: 'oct', k }, false],
    ['a secret called EC', { kty: 'EC', k }, false],
    ['a curve that has no points like this', { ...EC, crv: 'P-384' }, false],
    ['a key with a member that is not text', { ...EC, x: 5 }, false],
    ['an RSA key without its exponent', { ...RSA, e: undefined }, false],
    ['no type', { ...EC, kty: undefined }, false],
    ['null', null, false],
    ['text', 'EC', false],
  ];
  for (const [what, key, used] of cases) t.equal(usable(key).length, used ? 1 : 0, what);
  t.equal(usable(...cases.map(([, key]) => key)).length, cases.filter(([, , used]) => used).length, 'side by side');
});

void t.test('the private part of a key is never taken', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const [key] = usable({ ...privateKey.export({ format: 'jwk' }) });
  t.equal(key?.key.type, 'public');
});

void t.test('each type of key fits its algorithms alone', async (t) => {
  const ALGORITHMS = 'RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519 HS256 none RS25 XRS256'.split(
    ' ',
  );
  for (const [what, key, fitting] of [
    ['RSA', RSA, 'RS256 RS384 RS512 PS256 PS384 PS512'],
    ['P-256', EC, 'ES256'],
    ['P-384', EC384, 'ES384'],
    ['P-521', EC521, 'ES512'],
    ['Ed25519', ED, 'EdDSA Ed25519'],
    ['X25519', X25519, ''],
    ['RSA for one algorithm', { ...RSA, alg: 'PS384' }, 'PS384'],
    ['an EC key for another one', { ...EC, alg: 'ES384' }, ''],
    ['Ed25519 under its older name', { ...ED, alg: 'EdDSA' }, 'EdDSA Ed25519'],
    ['Ed25519 under its newer name', { ...ED, alg: 'Ed25519' }, 'EdDSA Ed25519'],
    ['an algorithm that is not text', { ...EC, alg: 5 }, 'ES256'],
  ] as const) {
    const keys = usable(key);
    const found = ALGORITHMS.filter((algorithm) => fittingKeys(keys, undefined, algorithm).length > 0);
    t.strictSame(found, fitting === '' ? [] : fitting.split(' '), what);
  }
});

void t.test('a token with a name of a key is tried with all keys of that name, and one without with all', async (t) => {
  const keys = usable(
    { ...EC, kid: 'a' },
    { ...EC, kid: 'b' },
    { ...ED, kid: 'a' },
    { ...EC, kid: 5 },
    { ...EC384, kid: 'a' },
  );
  t.strictSame(
    keys.map(({ kid }) => kid),
    ['a', 'b', 'a', undefined, 'a'],
  );
  const places = (kid: string | undefined, algorithm: string) =>
    fittingKeys(keys, kid, algorithm).map((key) => keys.indexOf(key));
  t.strictSame(places('a', 'ES256'), [0]);
  t.strictSame(places('a', 'EdDSA'), [2]);
  t.strictSame(places('b', 'ES256'), [1]);
  t.strictSame(places('c', 'ES256'), []);
  t.strictSame(places(undefined, 'ES256'), [0, 1, 3]);
});

void t.test('a key is known again by its name, its algorithm and itself', async (t) => {
  const fingerprint = (key: unknown): string | undefined => usable(key)[0]?.fingerprint;
  const key = { ...EC, kid: 'a', alg: 'ES256' };
  const other = publicOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey);
  t.equal(fingerprint(key), fingerprint({ ...key, use: 'sig', x5t: 'x' }));
  const distinct = [
    key,
    { ...key, kid: 'b' },
    { ...key, kid: undefined },
    { ...key, alg: undefined },
    { ...key, x: other.x, y: other.y },
  ];
  t.equal(new Set(distinct.map(fingerprint)).size, distinct.length);
  t.equal(usable(key)[0]?.withdrawn, false);
});
