import { hash } from 'node:crypto';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { type AccessConfig, accessFaults, accessSection } from '../../../src/access/config.js';
import { createEdgeCheck, edgeProof } from '../../../src/access/edge-proof.js';
import { openGate } from '../../../src/access/gate.js';
import {
  type Caller,
  type Credentials,
  type Gate,
  type Grant,
  isAdmin,
  mayRead,
  mayUpload,
} from '../../../src/access/grant.js';
import { checkLink, type LinkRules, type LinkTarget, signLink } from '../../../src/access/link.js';
import { faultOfGrant } from '../../../src/access/refusal.js';
import { parseConfig } from '../../../src/config/load.js';
import { issueToken, openDevAuth } from '../../../src/dev/auth-service.js';
import type { MediaId } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import {
  type AuthService,
  accessConfig,
  configFor,
  DISCOVERY_PATH,
  forgeToken,
  JWKS_PATH,
  type Members,
  makeKey,
  openAuthService,
  type SigningKey,
  sendJson,
  signToken,
  TEST_SECRET,
} from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';
import { until } from '../../kit/until.js';

const ID = '01HZXK3V9QW8E7R6T5Y4M3N2B1' as MediaId;
const PATH = `/v1/media/${ID}`;

const RSA = makeKey('rsa', 'RS256');
const EC = makeKey('ec', 'ES256');
const ED = makeKey('ed', 'EdDSA');
const FOREIGN = makeKey('ed', 'EdDSA');

interface Stage {
  readonly clock: ManualClock;
  readonly auth: AuthService;
  readonly gate: Gate;
  readonly lines: string[];
  readonly open: (token: string, over?: Partial<Credentials>) => Promise<Grant>;
  readonly metrics: () => Promise<string>;
}

/** A gate that trusts one service. */
async function setUp(
  t: Test,
  section: Members | ((auth: AuthService) => Members) = {},
  keys: readonly SigningKey[] = [RSA, EC, ED],
): Promise<Stage> {
  const clock = new ManualClock();
  const auth = await openAuthService(clock, keys);
  const given = typeof section === 'function' ? section(auth) : section;
  const { gate, lines, metrics } = gateFor(t, clock, configFor(auth, given));
  t.teardown(() => auth.close());
  const open = async (token: string, over: Partial<Credentials> = {}): Promise<Grant> =>
    await gate.open(bearing(token, over));
  return { clock, auth, gate, lines, open, metrics };
}

function gateFor(
  t: Test,
  clock: ManualClock,
  config: AccessConfig,
): { gate: Gate; lines: string[]; metrics: () => Promise<string> } {
  const lines: string[] = [];
  const log = createLog('test', { level: 'debug' }, { write: (line) => void lines.push(line) });
  const metrics = createMetrics('media_');
  const gate = openGate({ config, clock, log, metrics });
  t.teardown(() => gate.close());
  return { gate, lines, metrics: async () => (await metrics.render()).text };
}

function bearing(token: string, over: Partial<Credentials> = {}): Credentials {
  return { method: 'GET', path: PATH, query: '', authorization: `Bearer ${token}`, ...over };
}

function refused(refusal: string): Members {
  return { kind: 'anonymous', refusal };
}

function callerOf(grant: Grant): Caller {
  if (grant.kind !== 'caller') throw new Error(`not a caller: ${JSON.stringify(grant)}`);
  return grant.caller;
}

void t.test('a valid token names its caller', async (t) => {
  const { auth, clock, open } = await setUp(t, { algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'] });
  const at = Math.floor(clock.now() / 1_000);

  await t.test('with every type of key', async (t) => {
    for (const key of [RSA, EC, ED]) {
      const caller = callerOf(await open(auth.token({}, key)));
      t.same(
        { subject: caller.subject, issuer: caller.issuer, scope: caller.scope, admin: caller.roles.has('admin') },
        { subject: 'alice', issuer: auth.issuer, scope: 'all', admin: false },
        key.algorithm,
      );
      t.equal(caller.expiresAt, (at + 3_600) * 1_000);
    }
  });

  await t.test('also if it is unusual but correct', async (t) => {
    for (const [name, token] of [
      ['several audiences', auth.token({ aud: ['other', 'media'] })],
      ['no nbf', auth.token({ nbf: undefined })],
      ['nbf within the tolerance', auth.token({ nbf: at + 5 })],
      ['exp within the tolerance', auth.token({ exp: at - 4 })],
      ['no typ', signToken(ED, auth.claims(), { typ: undefined })],
      ['at+jwt', signToken(ED, auth.claims(), { typ: 'at+jwt' })],
      ['an exp beyond all instants', auth.token({ exp: 1e300 })],
      ['a subject of 255 characters', auth.token({ sub: 'ü'.repeat(255) })],
    ] as const) {
      t.equal((await open(token)).kind, 'caller', name);
    }
    for (const scheme of ['bearer', 'BEARER', 'bEARER  ', 'Bearer  ']) {
      t.equal((await open('', { authorization: `${scheme} ${auth.token()}` })).kind, 'caller', scheme);
    }
  });

  await t.test('and its roles and limits are read from the configured claims', async (t) => {
    const standard = accessConfig();
    for (const [claims, section, roles, scope] of [
      [{ scope: 'a media:admin b' }, standard, ['admin'], 'all'],
      [{ scope: ['media:admin'] }, standard, ['admin'], 'all'],
      [{ scope: 'media:administrator' }, standard, [], 'all'],
      [{ scope: 'media:read' }, standard, [], 'read'],
      [{ scope: 'media:upload' }, standard, [], 'upload'],
      [{ scope: 'media:upload media:read' }, standard, [], 'all'],
      [{ scope: 7 }, standard, [], 'all'],
      [{ scope: 'media:read' }, { scope_claim: { name: null } }, [], 'all'],
      [{ realm: { roles: ['boss'] } }, { admin_claim: { name: 'realm.roles', value: 'boss' } }, ['admin'], 'all'],
      [{ 'https://a.b/c': 'x' }, { admin_claim: { name: 'https://a.b/c', value: 'x' } }, ['admin'], 'all'],
      [{ a: 'x' }, { admin_claim: { name: 'a.b.constructor', value: 'x' } }, [], 'all'],
    ] as const) {
      const { gate } = gateFor(t, clock, configFor(auth, section === standard ? {} : section));
      const caller = callerOf(await gate.open(bearing(auth.token(claims))));
      t.same([[...caller.roles], caller.scope], [roles, scope], JSON.stringify(claims));
    }
  });
});

void t.test('an invalid token is refused, with the reason', async (t) => {
  const { auth, clock, open, lines, metrics } = await setUp(t, { algorithms: ['RS256', 'ES256', 'EdDSA'] });
  const at = Math.floor(clock.now() / 1_000);
  const claims = auth.claims();
  const publicPem = JSON.stringify(RSA.jwk);
  const spki = Buffer.from(String(RSA.jwk.n), 'base64url');
  const good = auth.token({}, ED);
  const [header = '', body = '', signature = ''] = good.split('.');
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const attacker = makeKey('attacker', 'RS256');

  const attacks: readonly (readonly [name: string, token: string, refusal: string])[] = [
    ['no algorithm', forgeToken({ alg: 'none' }, claims), 'token_algorithm'],
    ['no algorithm, in other letters', forgeToken({ alg: 'NonE' }, claims), 'token_algorithm'],
    ['a missing algorithm', forgeToken({ typ: 'JWT' }, claims), 'token_algorithm'],
    ['an algorithm that is not text', forgeToken({ alg: ['RS256'] }, claims), 'token_algorithm'],
    [
      'HS256 with the public key as JWK',
      forgeToken({ alg: 'HS256', kid: 'rsa' }, claims, publicPem),
      'token_algorithm',
    ],
    ['HS256 with the modulus', forgeToken({ alg: 'HS256', kid: 'rsa' }, claims, spki), 'token_algorithm'],
    ['an algorithm not on the list', signToken({ ...RSA, algorithm: 'PS256' }, claims), 'token_algorithm'],
    ['a listed algorithm that the key is not for', signToken(ED, claims, { alg: 'RS256' }), 'token_unknown_key'],
    ['a key of another type', signToken(EC, claims, { kid: 'rsa' }), 'token_unknown_key'],
    ['the wrong key under a known kid', signToken(FOREIGN, claims), 'token_signature'],
    ['an unknown kid', signToken(FOREIGN, claims, { kid: 'nobody' }), 'token_unknown_key'],
    ['a kid that is a path', signToken(FOREIGN, claims, { kid: '../../dev/null' }), 'token_unknown_key'],
    [
      'a key of its own in the header',
      signToken(attacker, claims, { jwk: attacker.jwk, kid: 'rsa' }),
      'token_signature',
    ],
    [
      'a key set of its own',
      signToken(attacker, claims, { jku: 'http://127.0.0.1:1/k', kid: 'rsa' }),
      'token_signature',
    ],
    [
      'a certificate of its own',
      signToken(attacker, claims, { x5u: 'http://127.0.0.1:1/c', kid: 'rsa' }),
      'token_signature',
    ],
    ['a chain of its own', signToken(attacker, claims, { x5c: ['MII'], kid: 'rsa' }), 'token_signature'],
    ['a critical extension', signToken(ED, claims, { crit: ['exp'], exp: 1 }), 'token_malformed'],
    ['an unencoded payload', signToken(ED, claims, { crit: ['b64'], b64: false }), 'token_malformed'],
    ['a changed payload', `${header}.${encode({ ...claims, sub: 'mallory' })}.${signature}`, 'token_signature'],
    ['a changed header', `${encode({ alg: 'EdDSA', kid: 'ed', typ: 'x' })}.${body}.${signature}`, 'token_signature'],
    ['a truncated signature', `${header}.${body}.${signature.slice(0, -4)}`, 'token_signature'],
    ['no signature', `${header}.${body}.`, 'token_signature'],
    [
      'the signature of another token',
      `${header}.${body}.${auth.token({ sub: 'b' }, ED).split('.')[2]}`,
      'token_signature',
    ],
    ['a foreign issuer', auth.token({ iss: 'https://elsewhere.example' }), 'token_issuer'],
    ['an issuer with another slash', auth.token({ iss: `${auth.issuer}/` }), 'token_issuer'],
    ['no issuer', auth.token({ iss: undefined }), 'token_issuer'],
    ['a list of issuers', auth.token({ iss: [auth.issuer] }), 'token_issuer'],
    ['another audience', auth.token({ aud: 'mail' }), 'token_audience'],
    ['no audience', auth.token({ aud: undefined }), 'token_audience'],
    ['an audience that only begins like the right one', auth.token({ aud: 'media2' }), 'token_audience'],
    ['expired', auth.token({ exp: at - 5 }), 'token_expired'],
    ['expired long ago', auth.token({ exp: 1 }), 'token_expired'],
    ['expired and forged', signToken(FOREIGN, { ...claims, exp: 1 }), 'token_expired'],
    ['no expiry', auth.token({ exp: undefined }), 'token_malformed'],
    ['an expiry that is text', auth.token({ exp: String(at + 60) }), 'token_malformed'],
    ['not valid yet', auth.token({ nbf: at + 6 }), 'token_not_yet_valid'],
    ['an nbf that is text', auth.token({ nbf: 'now' }), 'token_malformed'],
    ['no subject', auth.token({ sub: undefined }), 'token_no_subject'],
    ['an empty subject', auth.token({ sub: '' }), 'token_no_subject'],
    ['a subject that is not text', auth.token({ sub: 7 }), 'token_no_subject'],
    ['a subject that is too long', auth.token({ sub: 'x'.repeat(256) }), 'token_no_subject'],
    ['a subject with a line break', auth.token({ sub: 'a\nb' }), 'token_no_subject'],
    ['an enormous token', auth.token({ pad: 'x'.repeat(9_000) }), 'token_too_large'],
    ['one part', 'abc', 'token_malformed'],
    ['two parts', `${header}.${body}`, 'token_malformed'],
    ['four parts', `${good}.x`, 'token_malformed'],
    ['five parts, as if encrypted', `${good}.x.y`, 'token_malformed'],
    ['no base64', '!.!.!', 'token_malformed'],
    ['no JSON', 'YWJj.YWJj.YWJj', 'token_malformed'],
    ['JSON that is not an object', `${encode(null)}.${encode([])}.${signature}`, 'token_malformed'],
    ['nothing', '', 'token_malformed'],
    ['two tokens', `${good} ${good}`, 'token_malformed'],
  ];
  for (const [name, token, refusal] of attacks) t.match(await open(token), refused(refusal), name);

  await t.test('another scheme counts as no token', async (t) => {
    for (const authorization of [undefined, '', 'Basic YTpi', `Bearerx ${good}`, good]) {
      t.same(await open('', { authorization }), refused('none'), String(authorization));
    }
  });

  await t.test('no part of a token is logged, and every refusal is counted', async (t) => {
    const text = lines.join('');
    for (const [name, token] of attacks) {
      for (const part of token.split('.').filter((part) => part.length > 20)) t.notOk(text.includes(part), name);
    }
    const counted = await metrics();
    t.match(
      counted,
      `media_access_grants_total{outcome="token_signature"} ${attacks.filter(([, , refusal]) => refusal === 'token_signature').length}`,
    );
    t.match(counted, 'media_access_grants_total{outcome="none"} 5');
  });

  await t.test('unknown keys cause a limited number of fetches', async (t) => {
    t.ok(auth.seen(JWKS_PATH) <= 6, `${auth.seen(JWKS_PATH)} fetches`);
  });
});

void t.test('a verified token is remembered', async (t) => {
  await t.test('and its requests are answered at once until it expires', async (t) => {
    const { auth, clock, gate, metrics } = await setUp(t);
    const token = auth.token();
    const first = gate.open(bearing(token));
    t.ok(first instanceof Promise);
    const grant = await first;
    t.equal(gate.open(bearing(token)), grant, 'the same grant, without a promise');
    t.match(await metrics(), 'media_access_tokens_remembered 1');
    clock.advance(3_604_999);
    t.equal(gate.open(bearing(token)), grant, 'within the tolerance');
    clock.advance(1);
    t.same(gate.open(bearing(token)), refused('token_expired'));
    t.same(await gate.open(bearing(token)), refused('token_expired'));
  });

  await t.test('but only a limited number, the latest ones', async (t) => {
    const { auth, gate, open } = await setUp(t, { tokens_remembered_max: 2 });
    const tokens = ['a', 'b', 'c'].map((sub) => auth.token({ sub }));
    for (const token of tokens) await open(token);
    t.same(
      tokens.map((token) => gate.open(bearing(token)) instanceof Promise),
      [true, false, false],
    );
  });

  await t.test('with its carrier, which saves hashing the token and grants nothing else', async (t) => {
    const { auth, clock, gate, open } = await setUp(t);
    const carriers = ['a', 'b'].map((sub) => ({ carrier: {}, token: auth.token({ sub }) }));
    for (const { token, carrier } of carriers) await open(token, { carrier });
    const subjects = carriers.map(
      ({ token, carrier }) => callerOf(gate.open(bearing(token, { carrier })) as Grant).subject,
    );
    t.same(subjects, ['a', 'b'], 'each carrier belongs to its own token');
    const unknown = {};
    t.same(await open('no.good.token', { carrier: unknown }), refused('token_malformed'));
    t.same(await open('no.good.token', { carrier: unknown }), refused('token_malformed'));
    clock.advance(3_605_000);
    for (const { token, carrier } of carriers) {
      t.same(gate.open(bearing(token, { carrier })), refused('token_expired'), 'and expires with it');
    }
  });

  await t.test('but a refused token is not', async (t) => {
    const { auth, gate, open } = await setUp(t);
    const token = signToken(FOREIGN, auth.claims());
    await open(token);
    t.ok(gate.open(bearing(token)) instanceof Promise);
  });
});

void t.test('keys change without a restart', async (t) => {
  await t.test('a new key is fetched with its first token, once for all requests at that time', async (t) => {
    const { auth, open } = await setUp(t, {}, [RSA]);
    await open(auth.token());
    auth.keys = [RSA, ED];
    const fetched = auth.seen(JWKS_PATH);
    const grants = await Promise.all(['a', 'b', 'c'].map((sub) => open(auth.token({ sub }, ED))));
    t.ok(grants.every(({ kind }) => kind === 'caller'));
    t.equal(auth.seen(JWKS_PATH), fetched + 1);
  });

  await t.test('a withdrawn key is dropped by the next refresh, with the tokens that it verified', async (t) => {
    const { auth, clock, gate, open } = await setUp(t, { keys: { refresh: '10m' } }, [RSA, ED]);
    const [old, kept] = [auth.token({}, RSA), auth.token({}, ED)];
    await Promise.all([open(old), open(kept)]);
    auth.keys = [ED];
    const fetched = auth.next(JWKS_PATH);
    clock.advance(600_000);
    await fetched;
    await until('the old key to be withdrawn', () => gate.open(bearing(old)) instanceof Promise);
    t.same(await open(old), refused('token_unknown_key'));
    t.equal((gate.open(bearing(kept)) as Grant).kind, 'caller', 'the other key was not touched');
  });

  await t.test('a key replaced under the same kid is another key, fetched when its first token comes', async (t) => {
    const { auth, clock, gate, open } = await setUp(t, {}, [ED]);
    const token = auth.token();
    t.equal((await open(token)).kind, 'caller');
    auth.keys = [FOREIGN];
    const fetched = auth.seen(JWKS_PATH);
    t.equal((await open(auth.token({}, FOREIGN))).kind, 'caller');
    t.equal(auth.seen(JWKS_PATH), fetched + 1);
    t.ok(gate.open(bearing(token)) instanceof Promise, 'what the old one verified is not remembered any more');
    t.same(await open(token), refused('token_signature'));
    clock.advance(600_000);
  });

  await t.test('of several keys under one kid, or without a kid, each that fits is tried', async (t) => {
    const second = makeKey('rsa', 'RS256');
    const stranger = makeKey('rsa', 'RS256');
    const unnamed = makeKey('unnamed', 'RS256');
    const { auth, open } = await setUp(t, {}, [
      EC,
      RSA,
      second,
      { ...unnamed, jwk: { ...unnamed.jwk, kid: undefined } },
    ]);
    for (const [name, key, kid, kind] of [
      ['the first of the kid', RSA, 'rsa', 'caller'],
      ['the second of the kid', second, 'rsa', 'caller'],
      ['none of the kid', stranger, 'rsa', 'token_signature'],
      ['one under another kid', unnamed, 'rsa', 'token_signature'],
      ['the first, without a kid', RSA, undefined, 'caller'],
      ['the second, without a kid', second, undefined, 'caller'],
      ['one that has none itself', unnamed, undefined, 'caller'],
      ['the only one of its kind, without a kid', EC, undefined, 'caller'],
      ['none, without a kid', stranger, undefined, 'token_signature'],
      ['none of its kind, without a kid', FOREIGN, undefined, 'token_unknown_key'],
    ] as const) {
      const grant = await open(signToken(key, auth.claims({ sub: name }), { kid }));
      t.equal(grant.kind === 'anonymous' ? grant.refusal : grant.kind, kind, name);
    }
  });

  await t.test('an invalid claim is reported for the key that made the signature', async (t) => {
    const second = makeKey('ed');
    const { auth, open } = await setUp(t, {}, [ED, second]);
    t.same(await open(auth.token({ aud: 'mail' }, second)), refused('token_audience'));
  });

  await t.test('a set without keys is believed only if it is still there an interval later', async (t) => {
    const { auth, clock, gate, lines, open } = await setUp(t, { keys: { refetch_interval: '10s', refresh: '10m' } }, [
      ED,
    ]);
    const token = auth.token();
    const newcomer = (): Promise<Grant> => open(signToken(FOREIGN, auth.claims(), { kid: 'new' }));
    const fetched = async (afterMs: number): Promise<void> => {
      const next = auth.next(JWKS_PATH);
      await clock.advanceAsync(afterMs);
      await next;
    };
    await open(token);
    auth.keys = [];
    t.match(await newcomer(), { kind: 'unavailable' });
    t.match(await newcomer(), { kind: 'unavailable' }, 'the service is asked again at once');
    t.equal((gate.open(bearing(token)) as Grant).kind, 'caller');
    t.same(gate.issuers(), { [auth.issuer]: 'kept' });
    auth.keys = [ED];
    await fetched(20_000);
    await until('the keys are current', () => gate.issuers()[auth.issuer] === 'current');
    auth.keys = [];
    await fetched(600_000);
    await until('the keys are kept', () => gate.issuers()[auth.issuer] === 'kept');
    t.equal((gate.open(bearing(token)) as Grant).kind, 'caller', 'a set with keys starts the interval again');
    await fetched(10_000);
    await until('the keys are unknown', () => gate.issuers()[auth.issuer] === 'unknown');
    t.same(await open(token), refused('token_unknown_key'), 'remembered tokens end with it');
    t.match(lines.join(''), 'the published set stays empty');
    await t.rejects(gate.probe(), /has no key/);
    auth.keys = [FOREIGN];
    t.equal((await open(auth.token({}, FOREIGN))).kind, 'caller', 'and the next key is believed at once');
  });

  await t.test('unknown keys cause a burst of fetches, then one in each interval', async (t) => {
    const { auth, clock, open } = await setUp(t, {
      keys: { refetch_burst: 3, refetch_interval: '10s', refresh: '1d' },
    });
    await open(auth.token());
    const unknown = async (count: number): Promise<number> => {
      const before = auth.seen(JWKS_PATH);
      for (let at = 0; at < count; at += 1) {
        const token = signToken(FOREIGN, auth.claims(), { kid: `unknown ${at}` });
        t.same(await open(token), refused('token_unknown_key'));
      }
      return auth.seen(JWKS_PATH) - before;
    };
    t.equal(await unknown(20), 3);
    clock.advance(10_000);
    t.equal(await unknown(20), 1);
    clock.advance(3_000_000);
    t.equal(await unknown(20), 3, 'never more than the burst');
  });

  await t.test('the key of one issuer opens no token of another', async (t) => {
    const clock = new ManualClock();
    const [one, two] = await Promise.all([openAuthService(clock, [ED]), openAuthService(clock, [EC])]);
    t.teardown(() => Promise.all([one.close(), two.close()]));
    const [first, second] = [one, two].map(({ issuer, jwksUrl }) => ({ issuer, jwks_url: jwksUrl }));
    const { gate } = gateFor(t, clock, accessConfig({ issuers: [first, { ...second, subject_prefix: 'two:' }] }));
    await gate.probe();
    t.equal(callerOf(await gate.open(bearing(one.token()))).subject, 'alice');
    t.equal(
      callerOf(await gate.open(bearing(two.token()))).subject,
      'two:alice',
      'and the same name of two issuers means two callers',
    );
    t.same(await gate.open(bearing(one.token({}, EC))), refused('token_unknown_key'));
    t.same(await gate.open(bearing(two.token({}, ED))), refused('token_unknown_key'));
  });

  await t.test('unusable keys in a set are ignored', async (t) => {
    const odd = (jwk: Members): SigningKey => ({ ...ED, jwk: { ...ED.jwk, ...jwk } });
    const secret = { ...ED, jwk: { kty: 'oct', k: 'c2VjcmV0', kid: 'oct' } };
    const broken = { ...ED, jwk: { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA', kid: 'broken' } };
    const keys = [
      secret,
      broken,
      odd({ kid: 'enc', use: 'enc' }),
      odd({ kid: 'ops', key_ops: ['sign'] }),
      odd({ kid: 'with private part', d: 'AAAA' }),
      odd({ kid: 'other', alg: 'ES256' }),
    ];
    const { auth, open } = await setUp(t, { algorithms: ['EdDSA', 'ES256'] }, keys);
    for (const kid of ['oct', 'broken', 'enc', 'ops', 'other']) {
      t.same(await open(signToken(ED, auth.claims(), { kid })), refused('token_unknown_key'), kid);
    }
    t.equal((await open(signToken(ED, auth.claims(), { kid: 'with private part' }))).kind, 'caller');
  });
});

void t.test('while the Authentication Service is down', async (t) => {
  await t.test('known keys stay valid, and tokens of unknown ones cannot be checked', async (t) => {
    const { auth, clock, gate, lines, open } = await setUp(t, {}, [ED]);
    await open(auth.token());
    await auth.close();
    t.equal((await open(auth.token({ sub: 'somebody new' }))).kind, 'caller');
    const grant = await open(auth.token({}, RSA));
    t.match(grant, { kind: 'unavailable' });
    t.ok(grant.kind === 'unavailable' && grant.retryAfterMs > 0);
    t.match(lines.join(''), 'the public keys of the Authentication Service cannot be fetched');
    await gate.probe();
    clock.advance(6 * 86_400_000);
    const later = auth.token({ sub: 'days later' });
    t.equal((await open(later)).kind, 'caller', 'for days');
    t.match(await open(auth.token({ iss: 'https://elsewhere.example' })), refused('token_issuer'), 'this needs no key');
  });

  await t.test('known keys stay valid for the configured time, and remembered tokens end with them', async (t) => {
    const { auth, clock, gate, lines, open } = await setUp(t, { keys: { keep: '1h', refresh: '10m' } }, [ED]);
    const token = auth.token({ exp: Math.floor(clock.now() / 1_000) + 86_400 });
    await open(token);
    await auth.close();
    for (let minutes = 0; minutes < 72; minutes += 12) {
      await clock.advanceAsync(12 * 60_000);
      // A refused connection takes real time.
      await new Promise<void>((resolve) => {
        const server = createServer().listen(0, '127.0.0.1', () => server.close(() => resolve()));
      });
    }
    await until('the keys to end', () => lines.some((line) => line.includes('no public key is trusted any more')));
    t.match(await open(token), { kind: 'unavailable' });
    await t.rejects(gate.probe(), /gave no usable document/);
  });

  await t.test('a gate that never reached it checks nothing, says when to retry, and recovers', async (t) => {
    const clock = new ManualClock();
    const auth = await openAuthService(clock, [ED]);
    t.teardown(() => auth.close());
    auth.override(JWKS_PATH, (request) => request.socket.destroy());
    const { gate } = gateFor(t, clock, configFor(auth, { keys: { refetch_burst: 1, refetch_interval: '30s' } }));
    t.match(await gate.open(bearing(auth.token())), { kind: 'unavailable' });
    t.match(await gate.open(bearing(auth.token({ sub: 'b' }))), { kind: 'unavailable' });
    const fetched = auth.seen(JWKS_PATH);
    const third = await gate.open(bearing(auth.token({ sub: 'c' })));
    t.ok(third.kind === 'unavailable' && third.retryAfterMs > 1_000 && third.retryAfterMs <= 30_000);
    t.equal(auth.seen(JWKS_PATH), fetched, 'the budget is used up');
    await t.rejects(gate.probe(), /gave no usable document/);
    auth.override(JWKS_PATH, undefined);
    clock.advance(30_000);
    t.equal((await gate.open(bearing(auth.token()))).kind, 'caller');
    await gate.probe();
  });

  await t.test(
    'while the keys of one issuer are missing, tokens of another stay valid, and the gate says so',
    async (t) => {
      const clock = new ManualClock();
      const [here, away] = await Promise.all([openAuthService(clock, [ED]), openAuthService(clock, [EC])]);
      t.teardown(() => Promise.all([here.close(), away.close()]));
      away.override(JWKS_PATH, (request) => request.socket.destroy());
      const issuers = [away, here].map(({ issuer, jwksUrl }) => ({ issuer, jwks_url: jwksUrl }));
      const { gate } = gateFor(t, clock, accessConfig({ issuers, keys: { refetch_burst: 5 } }));
      await gate.probe();
      t.same(gate.issuers(), { [away.issuer]: 'unknown', [here.issuer]: 'current' });
      t.equal((await gate.open(bearing(here.token()))).kind, 'caller');
      t.match(await gate.open(bearing(away.token())), { kind: 'unavailable' });
      away.override(JWKS_PATH, undefined);
      t.equal((await gate.open(bearing(away.token()))).kind, 'caller');
      t.same(gate.issuers(), { [away.issuer]: 'current', [here.issuer]: 'current' });
    },
  );

  await t.test('a restarted gate still knows the keys of the last run, unless they are too old', async (t) => {
    const folder = join(t.testdir(), 'keys');
    const clock = new ManualClock();
    const auth = await openAuthService(clock, [ED]);
    const config = configFor(auth, { keys: { folder } });
    const first = gateFor(t, clock, config).gate;
    t.equal((await first.open(bearing(auth.token()))).kind, 'caller');
    await first.close();
    await auth.close();
    t.equal((await readdir(folder)).length, 1);
    const second = gateFor(t, clock, config).gate;
    t.equal((await second.open(bearing(auth.token()))).kind, 'caller');
    clock.advance(7 * 86_400_000);
    const third = gateFor(t, clock, config).gate;
    t.match(await third.open(bearing(auth.token())), { kind: 'unavailable' });
  });

  await t.test('a key file that is broken or of another source is ignored', async (t) => {
    const folder = t.testdir();
    const clock = new ManualClock();
    const auth = await openAuthService(clock, [ED]);
    t.teardown(() => auth.close());
    const name = `${hash('sha256', JSON.stringify([auth.issuer, auth.jwksUrl])).slice(0, 32)}.json`;
    for (const text of [
      '{',
      '{}',
      'null',
      JSON.stringify({ format: 1, issuer: 'x', jwksUrl: null, confirmedAt: 1, document: {} }),
    ]) {
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, name), text);
      const { gate } = gateFor(t, clock, configFor(auth, { keys: { folder } }));
      t.equal((await gate.open(bearing(auth.token()))).kind, 'caller', text);
      await gate.close();
    }
  });
});

void t.test('unreasonable answers of the Authentication Service do no harm', async (t) => {
  const elsewhere = createServer((_, response) => sendJson(response, { keys: [ED.jwk] }));
  await new Promise<void>((resolve) => {
    elsewhere.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => elsewhere.close());
  const elsewhereUrl = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;

  await t.test('as a key set', async (t) => {
    for (const [name, answer] of [
      ['a redirect to another host', (_, response) => response.writeHead(302, { location: elsewhereUrl }).end()],
      ['an error', (_, response) => response.writeHead(500).end('{"keys":[]}')],
      ['no JSON', (_, response) => response.end('<html>')],
      ['no key set', (_, response) => sendJson(response, { kees: [] })],
      ['null', (_, response) => sendJson(response, null)],
      ['a set of no keys', (_, response) => sendJson(response, { keys: [] })],
      ['a body without end', (_, response) => void response.write(`{"keys":["${'x'.repeat(300_000)}`)],
      ['a body that breaks off', (_, response) => void response.write('{"keys":[', () => response.destroy())],
    ] satisfies [string, Parameters<AuthService['override']>[1]][]) {
      const clock = new ManualClock();
      const auth = await openAuthService(clock, [ED]);
      auth.override(JWKS_PATH, answer);
      const { gate, lines } = gateFor(t, clock, configFor(auth));
      t.match(await gate.open(bearing(auth.token())), { kind: 'unavailable' }, name);
      t.match(lines.join(''), /gave no usable document|JSON Web Key Set/, name);
      await gate.close();
      await auth.close();
    }
  });

  await t.test('as one that never comes', async (t) => {
    const clock = new ManualClock();
    const auth = await openAuthService(clock, [ED]);
    t.teardown(() => auth.close());
    auth.override(JWKS_PATH, () => {});
    const { gate } = gateFor(t, clock, configFor(auth, { keys: { timeout: '5s' } }));
    const grant = gate.open(bearing(auth.token()));
    await until('the fetch', () => auth.seen(JWKS_PATH) === 1);
    clock.advance(5_000);
    t.match(await grant, { kind: 'unavailable' });
  });

  await t.test('as a discovery document', async (t) => {
    const clock = new ManualClock();
    const auth = await openAuthService(clock, [ED]);
    t.teardown(() => auth.close());
    const discovered = accessConfig({ issuers: [{ issuer: auth.issuer }] });
    const { gate } = gateFor(t, clock, discovered);
    t.equal((await gate.open(bearing(auth.token()))).kind, 'caller', 'a right one leads to the keys');
    t.equal(auth.seen(DISCOVERY_PATH), 1);
    for (const [name, document] of [
      ['another issuer', { issuer: elsewhereUrl, jwks_uri: auth.jwksUrl }],
      ['no keys', { issuer: auth.issuer }],
      ['keys that are no URL', { issuer: auth.issuer, jwks_uri: 'keys' }],
      ['keys in a file', { issuer: auth.issuer, jwks_uri: 'file:///etc/passwd' }],
      ['null', null],
    ] as const) {
      auth.override(DISCOVERY_PATH, (_, response) => sendJson(response, document));
      const fresh = gateFor(t, clock, discovered).gate;
      t.match(await fresh.open(bearing(auth.token())), { kind: 'unavailable' }, name);
      await fresh.close();
    }
  });
});

void t.test('introspection (RFC 7662)', async (t) => {
  const PATH = '/introspect';
  const introspecting = (auth: AuthService): Members => ({
    introspection: {
      url: `${auth.issuer}${PATH}`,
      client_id: 'media service',
      client_secret: 'env:SECRET',
      cache: '30s',
      retry: '2s',
    },
  });

  await t.test('an active token is valid for the time of the cache, then the service is asked again', async (t) => {
    const { auth, clock, gate, open } = await setUp(t, introspecting);
    const asked: string[] = [];
    let active = true;
    auth.override(PATH, (request, response) => {
      asked.push(String(request.headers.authorization));
      sendJson(response, { active });
    });
    const token = auth.token();
    const grants = await Promise.all(Array.from({ length: 50 }, () => open(token)));
    t.ok(grants.every(({ kind }) => kind === 'caller'));
    t.equal(asked.length, 1, 'fifty callers, one question');
    t.equal(
      asked[0],
      `Basic ${Buffer.from(`media+service:${encodeURIComponent(TEST_SECRET).replaceAll('%20', '+')}`).toString('base64')}`,
    );
    t.notOk(gate.open(bearing(token)) instanceof Promise);
    active = false;
    clock.advance(29_999);
    t.equal((gate.open(bearing(token)) as Grant).kind, 'caller');
    clock.advance(1);
    t.same(await open(token), refused('token_revoked'));
    t.same(gate.open(bearing(token)), refused('token_revoked'), 'the refusal is remembered as well');
    t.equal(asked.length, 2);
    active = true;
    clock.advance(30_000);
    t.equal((await open(token)).kind, 'caller');
  });

  await t.test(
    'without a usable answer, the token cannot be checked, and there is a pause before the next request',
    async (t) => {
      for (const [name, answer] of [
        ['an error', (_, response) => response.writeHead(401).end()],
        ['silence on the matter', (_, response) => sendJson(response, { token: 1 })],
        ['a yes that is text', (_, response) => sendJson(response, { active: 'true' })],
        ['a broken connection', (request) => request.socket.destroy()],
      ] satisfies [string, Parameters<AuthService['override']>[1]][]) {
        const { auth, clock, open } = await setUp(t, introspecting);
        auth.override(PATH, answer);
        const token = auth.token();
        t.match(await open(token), { kind: 'unavailable', retryAfterMs: 2_000 }, name);
        t.match(await open(auth.token({ sub: 'b' })), { kind: 'unavailable' }, name);
        t.equal(auth.seen(PATH), 1, name);
        auth.override(PATH, (_, response) => sendJson(response, { active: true }));
        clock.advance(2_000);
        t.equal((await open(token)).kind, 'caller', `${name}: an outage is not remembered of a token`);
        t.equal(auth.seen(PATH), 2, name);
      }
    },
  );

  await t.test('the service is never asked about a forged token', async (t) => {
    const { auth, open } = await setUp(t, introspecting);
    await open(signToken(FOREIGN, auth.claims()));
    t.equal(auth.seen(PATH), 0);
  });
});

void t.test('a caller that leaves stops waiting, and the check continues for the others', async (t) => {
  const { auth, gate } = await setUp(t, (auth) => ({ introspection: { url: `${auth.issuer}/introspect` } }));
  let answer: (() => void) | undefined;
  auth.override('/introspect', (_, response) => {
    answer = () => sendJson(response, { active: true });
  });
  const leaving = new AbortController();
  const [left, stays] = [gate.open(bearing(auth.token()), leaving.signal), gate.open(bearing(auth.token()))];
  await until('the question', () => answer !== undefined);
  leaving.abort(new Error('left'));
  await t.rejects(Promise.resolve(left), { message: 'left' });
  answer?.();
  t.equal((await stays).kind, 'caller');
  await t.rejects(Promise.resolve(gate.open(bearing(auth.token({ sub: 'b' })), leaving.signal)), { message: 'left' });
});

void t.test('closing a gate ends its fetches, and may be repeated', async (t) => {
  const clock = new ManualClock();
  const auth = await openAuthService(clock, [ED]);
  t.teardown(() => auth.close());
  auth.override(JWKS_PATH, () => {});
  const { gate } = gateFor(t, clock, configFor(auth));
  const grant = gate.open(bearing(auth.token()));
  await until('the fetch', () => auth.seen(JWKS_PATH) === 1);
  await gate.close();
  await gate.close();
  t.match(await grant, { kind: 'unavailable' });
  t.equal(clock.pending, 0, 'no timer is left');
});

const LINK_KEYS = [
  { kid: 'new', secret: 'the newer secret of at least thirty-two characters' },
  { kid: 'old', secret: 'the older secret of at least thirty-two characters' },
] as const;
const NOW = Date.UTC(2026, 0, 1);
const RULES: LinkRules = { keys: LINK_KEYS, lifetimeMaxMs: 3_600_000, clockToleranceMs: 5_000 };
const ORIGINAL: LinkTarget = { kind: 'original', id: ID };
const thumb = (width: number | null, height: number | null): LinkTarget => ({ kind: 'thumb', id: ID, width, height });

function follow(link: string, over: { method?: string; now?: number; rules?: LinkRules } = {}): string {
  const [path = '', query = ''] = link.split('?');
  const outcome = checkLink({ method: over.method ?? 'GET', path, query }, over.rules ?? RULES, over.now ?? NOW);
  return outcome.kind === 'refused' ? outcome.refusal : outcome.kind;
}

void t.test('signed links', async (t) => {
  const expiresAt = NOW + 60_000;
  const link = signLink(ORIGINAL, expiresAt, LINK_KEYS[0]);
  const small = signLink(thumb(320, null), expiresAt, LINK_KEYS[0]);
  const [path = '', query = ''] = link.split('?');

  await t.test('are signed as documented', async (t) => {
    const { createHmac } = await import('node:crypto');
    const exp = expiresAt / 1_000;
    const sig = createHmac('sha256', LINK_KEYS[0].secret)
      .update(`GET\n${PATH}/thumb?w=320&h=200\n${exp}`)
      .digest('base64url');
    t.equal(
      signLink(thumb(320, 200), expiresAt, LINK_KEYS[0]),
      `${PATH}/thumb?w=320&h=200&exp=${exp}&kid=new&sig=${sig}`,
    );
  });

  await t.test('open what they were signed for', async (t) => {
    for (const [name, opened] of [
      ['the original', follow(link)],
      ['by HEAD', follow(link, { method: 'HEAD' })],
      ['an id in lower case', follow(link.replace(ID, ID.toLowerCase()))],
      ['parameters in another order', follow(`${path}?${query.split('&').toReversed().join('&')}`)],
      ['beside a parameter of no meaning', follow(`${link}&download=1&download=2`)],
      ['an original has no width to speak of', follow(`${link}&w=10`)],
      ['a name written in percent', follow(link.replace('sig=', '%73ig='))],
      ['a thumbnail', follow(small)],
      ['the default thumbnail', follow(signLink(thumb(null, null), expiresAt, LINK_KEYS[0]))],
      ['the older secret', follow(signLink(ORIGINAL, expiresAt, LINK_KEYS[1]))],
      ['at the last moment', follow(link, { now: expiresAt - 1 })],
      ['for the longest time', follow(signLink(ORIGINAL, NOW + 3_605_000, LINK_KEYS[0]))],
    ] as const) {
      t.equal(opened, 'valid', name);
    }
  });

  await t.test('open nothing else', async (t) => {
    const sig = /sig=(.{43})/.exec(link)?.[1] ?? '';
    const lastChanged = `${sig.slice(0, -1)}${String.fromCharCode(sig.charCodeAt(42) + 1)}`;
    for (const [name, opened, expected] of [
      ['another method', follow(link, { method: 'DELETE' }), 'absent'],
      ['a POST', follow(link, { method: 'POST' }), 'absent'],
      ['no credentials', follow(`${path}?w=1`), 'absent'],
      ['another media', follow(link.replace(ID, `${ID.slice(0, -1)}2`)), 'signature'],
      ['its thumbnail', follow(link.replace('?', '/thumb?')), 'signature'],
      ['the original of a thumbnail', follow(small.replace('/thumb', '')), 'signature'],
      ['another width', follow(small.replace('w=320', 'w=640')), 'signature'],
      ['a height beside', follow(`${small}&h=200`), 'signature'],
      ['no width', follow(small.replace('w=320&', '')), 'signature'],
      ['a width in percent', follow(`${signLink(thumb(null, null), expiresAt, LINK_KEYS[0])}&%77=640`), 'signature'],
      ['a later end', follow(link.replace(/exp=\d+/, `exp=${expiresAt / 1_000 + 60}`)), 'signature'],
      [
        'a signature changed',
        follow(link.replace(sig, sig.replace(/^./, sig.startsWith('A') ? 'B' : 'A'))),
        'signature',
      ],
      ['another spelling of the same signature', follow(link.replace(sig, lastChanged)), 'signature'],
      ['under another name', follow(link.replace('kid=new', 'kid=old')), 'signature'],
      ['an unknown name', follow(link.replace('kid=new', 'kid=other')), 'unknown_key'],
      ['without any secret', follow(link, { rules: { ...RULES, keys: [] } }), 'unknown_key'],
      ['a signature cut', follow(link.slice(0, -1)), 'malformed'],
      ['a signature padded', follow(`${link}=`), 'malformed'],
      ['no signature', follow(link.replace(/&sig=.*/, '')), 'malformed'],
      ['no end', follow(link.replace(/exp=\d+&/, '')), 'malformed'],
      ['no name', follow(link.replace('&kid=new', '')), 'malformed'],
      ['two ends', follow(`${link}&exp=${expiresAt / 1_000}`), 'malformed'],
      ['two names', follow(`${link}&kid=new`), 'malformed'],
      ['two signatures', follow(`${link}&sig=${sig}`), 'malformed'],
      ['two widths', follow(`${small}&w=320`), 'malformed'],
      ['an end with a sign', follow(link.replace('exp=', 'exp=%2B')), 'malformed'],
      ['an end with a zero before', follow(link.replace('exp=', 'exp=0')), 'malformed'],
      ['an end in another notation', follow(link.replace(/exp=\d+/, 'exp=1e12')), 'malformed'],
      ['a width of nothing', follow(small.replace('w=320', 'w=')), 'malformed'],
      ['a width with a zero before', follow(small.replace('w=320', 'w=0320')), 'malformed'],
      ['a path below', follow(link.replace('?', '/link?')), 'malformed'],
      ['a path with a slash more', follow(link.replace('?', '/?')), 'malformed'],
      ['the id in percent', follow(link.replace(ID, `%30${ID.slice(1)}`)), 'malformed'],
      ['no id', follow(link.replace(ID, 'I'.repeat(26))), 'malformed'],
      ['after its end', follow(link, { now: expiresAt }), 'expired'],
      ['for too long', follow(signLink(ORIGINAL, NOW + 3_606_000, LINK_KEYS[0])), 'too_long'],
    ] as const) {
      t.equal(opened, expected, name);
    }
  });

  const target = fc.oneof(
    fc.constant(ORIGINAL),
    fc
      .record({
        width: fc.option(fc.integer({ min: 1, max: 999_999 })),
        height: fc.option(fc.integer({ min: 1, max: 999_999 })),
      })
      .map(({ width, height }) => thumb(width, height)),
  );

  await t.test('open their target in any spelling, and no other target', async () => {
    fc.assert(
      fc.property(
        target,
        target,
        fc.array(fc.tuple(fc.constantFrom('x', 'W', 'download', 'expires'), fc.string())),
        fc.nat(),
        (one, other, noise, turn) => {
          const signed = signLink(one, expiresAt, LINK_KEYS[0]);
          const [at = '', parameters = ''] = signed.split('?');
          const all = [...new URLSearchParams(parameters), ...noise];
          const turned = [...all.slice(turn % all.length), ...all.slice(0, turn % all.length)];
          if (follow(`${at.replace(ID, ID.toLowerCase())}?${new URLSearchParams(turned).toString()}`) !== 'valid')
            return false;
          const [otherAt = '', otherQuery = ''] = signLink(other, expiresAt, LINK_KEYS[1]).split('?');
          const stolen = new URLSearchParams(otherQuery);
          for (const name of ['kid', 'sig']) stolen.set(name, new URLSearchParams(parameters).get(name) ?? '');
          return (
            (follow(`${otherAt}?${stolen.toString()}`) === 'valid') === (JSON.stringify(one) === JSON.stringify(other))
          );
        },
      ),
      { numRuns: 300 },
    );
  });

  await t.test('never throw, whatever is sent', async () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom('exp', 'kid', 'sig', 'w', 'h', '=', '&', '%', '%zz', '1767225700'),
    );
    fc.assert(
      fc.property(fc.array(word), fc.string(), (words, tail) => {
        const request = { method: 'GET', path: `${PATH}${tail}`, query: words.join('') };
        return checkLink(request, RULES, NOW).kind !== 'valid';
      }),
      { numRuns: 500 },
    );
  });
});

void t.test('a token and a link together', async (t) => {
  const { auth, clock, gate, open } = await setUp(t, { links: { secrets: [{ kid: 'a', secret: 'env:A' }] } });
  const [, query = ''] = signLink(ORIGINAL, clock.now() + 60_000, { kid: 'a', secret: TEST_SECRET }).split('?');
  const bad = query.replace('kid=a', 'kid=b');
  const [good, expired] = [auth.token(), auth.token({ exp: 1 })];
  for (const [name, grant, expected] of [
    ['a valid token counts', await open(good, { query }), { kind: 'caller' }],
    ['and needs no link', await open(good, { query: bad }), { kind: 'caller' }],
    ['a link counts if the token is not valid', await open(expired, { query }), { kind: 'link' }],
    [
      'if both are invalid, the answer is about the token',
      await open(expired, { query: bad }),
      refused('token_expired'),
    ],
    ['only a bad link', await open('', { authorization: undefined, query: bad }), refused('link_unknown_key')],
    ['a link counts with another scheme', await open('', { authorization: 'Basic x', query }), { kind: 'link' }],
    ['a link never deletes', await open('', { authorization: undefined, query, method: 'DELETE' }), refused('none')],
  ] as const) {
    t.match(grant, expected, name);
  }
  t.same(gate.open(bearing('', { authorization: undefined, query })), {
    kind: 'link',
    expiresAt: clock.now() + 60_000,
  });
});

void t.test('each grant allows what it should, and has its own answer where it allows too little', async (t) => {
  const caller = (scope: Caller['scope'], ...roles: 'admin'[]): Grant => ({
    kind: 'caller',
    caller: { subject: 'a', issuer: 'i', roles: new Set(roles), scope, expiresAt: 1 },
  });
  for (const [name, grant, may] of [
    ['a token', caller('all'), { private: true, public: true, upload: true, admin: false }],
    ['a token for reading', caller('read'), { private: true, public: true, upload: false, admin: false }],
    ['a token for uploads', caller('upload'), { private: false, public: true, upload: true, admin: false }],
    ['an admin', caller('all', 'admin'), { private: true, public: true, upload: true, admin: true }],
    ['a link', { kind: 'link', expiresAt: 1 }, { private: true, public: true, upload: false, admin: false }],
    ['nobody', { kind: 'anonymous', refusal: 'none' }, { private: false, public: true, upload: false, admin: false }],
    [
      'a bad token',
      { kind: 'anonymous', refusal: 'token_expired' },
      { private: false, public: true, upload: false, admin: false },
    ],
    [
      'no way to tell',
      { kind: 'unavailable', retryAfterMs: 1 },
      { private: false, public: false, upload: false, admin: false },
    ],
  ] as const) {
    t.same(
      { private: mayRead(grant, false), public: mayRead(grant, true), upload: mayUpload(grant), admin: isAdmin(grant) },
      may,
      name,
    );
  }

  for (const [grant, status, code, headers] of [
    [{ kind: 'anonymous', refusal: 'none' }, 401, 'unauthorized', { 'www-authenticate': 'Bearer realm="media"' }],
    [
      { kind: 'anonymous', refusal: 'link_expired' },
      401,
      'unauthorized',
      { 'www-authenticate': 'Bearer realm="media"' },
    ],
    [{ kind: 'link', expiresAt: 1 }, 401, 'unauthorized', { 'www-authenticate': 'Bearer realm="media"' }],
    [
      { kind: 'anonymous', refusal: 'token_expired' },
      401,
      'unauthorized',
      { 'www-authenticate': 'Bearer realm="media", error="invalid_token", error_description="The token has expired"' },
    ],
    [
      { kind: 'anonymous', refusal: 'token_signature' },
      401,
      'unauthorized',
      {
        'www-authenticate': 'Bearer realm="media", error="invalid_token", error_description="The token is not valid"',
      },
    ],
    [caller('read'), 403, 'forbidden', { 'www-authenticate': 'Bearer realm="media", error="insufficient_scope"' }],
    [{ kind: 'unavailable', retryAfterMs: 1_001 }, 503, 'auth_unavailable', { 'retry-after': '2' }],
  ] as const) {
    const fault = faultOfGrant(grant);
    t.same({ status: fault.status, code: fault.code, headers: fault.headers }, { status, code, headers });
  }
  t.equal(
    new Set(
      (['unknown_key', 'signature', 'issuer', 'audience', 'no_subject', 'revoked'] as const).map((refusal) => {
        const { detail, headers } = faultOfGrant({ kind: 'anonymous', refusal: `token_${refusal}` });
        return JSON.stringify([detail, headers]);
      }),
    ).size,
    1,
    'the answer does not say which check failed',
  );
});

void t.test('an edge proves itself with the secret, which is never sent', async (t) => {
  const proof = edgeProof(TEST_SECRET);
  t.notMatch(proof, TEST_SECRET);
  const former = `${TEST_SECRET}-before`;
  const isEdge = createEdgeCheck([TEST_SECRET, former]);
  t.ok(isEdge(proof));
  t.ok(isEdge(edgeProof(former)), 'by any of the secrets that are accepted');
  for (const value of [
    undefined,
    '',
    TEST_SECRET,
    `${proof} `,
    proof.slice(0, -1),
    proof.toUpperCase(),
    edgeProof(`${TEST_SECRET}.`),
  ]) {
    t.notOk(isEdge(value), String(value));
  }
  t.notOk(createEdgeCheck([])(proof), 'none is none');
});

void t.test('the development Authentication Service', async (t) => {
  const clock = new ManualClock();
  const request = { subject: 'dev', admin: true, expiresInMs: 60_000, audience: 'media' };

  await t.test('issues tokens from the disk that a gate trusts', async (t) => {
    const folder = join(t.testdir(), 'auth');
    const service = await openDevAuth({ host: '127.0.0.1', port: 0, folder });
    t.teardown(() => service.close());
    const issuer = service.urls['auth'] ?? '';
    for (const source of [{ issuer, jwks_url: `${issuer}${JWKS_PATH}` }, { issuer }]) {
      const { gate } = gateFor(t, clock, accessConfig({ issuers: [source] }));
      const caller = callerOf(await gate.open(bearing(await issueToken(folder, { ...request, issuer }, clock))));
      t.equal(caller.subject, 'dev');
      t.ok(caller.roles.has('admin'));
      t.equal(caller.expiresAt, clock.now() + 60_000);
      const limited = await issueToken(folder, { ...request, issuer, admin: false, scope: 'media:read' }, clock);
      const reader = callerOf(await gate.open(bearing(limited)));
      t.same([reader.scope, reader.roles.size], ['read', 0]);
    }
    t.equal((await stat(join(folder, 'key.pem'))).mode & 0o777, 0o600);
    t.notMatch(await (await fetch(`${issuer}${JWKS_PATH}`)).text(), /"d"/, 'the private part stays private');
    t.equal((await fetch(`${issuer}/other`)).status, 404);
    t.equal((await fetch(`${issuer}${JWKS_PATH}`, { method: 'POST', body: 'x' })).status, 405);
  });

  await t.test('keeps one key, also if two processes make one', async (t) => {
    const folder = join(t.testdir(), 'auth');
    const tokens = await Promise.all(
      Array.from({ length: 4 }, () => issueToken(folder, { ...request, issuer: 'i' }, clock)),
    );
    t.equal(new Set(tokens.map((token) => token.split('.')[0])).size, 1);
    t.same(await readdir(folder), ['key.pem']);
    const pem = await readFile(join(folder, 'key.pem'), 'utf8');
    await issueToken(folder, { ...request, issuer: 'i' }, clock);
    t.equal(await readFile(join(folder, 'key.pem'), 'utf8'), pem);
  });

  await t.test('reports faults clearly', async (t) => {
    const folder = t.testdir({ 'key.pem': 'no key' });
    await t.rejects(issueToken(folder, { ...request, issuer: 'i' }, clock), { message: /key\.pem, cannot be used/ });
    await t.rejects(openDevAuth({ host: '0.0.0.0', port: 0, folder }), { message: /loopback only, not 0\.0\.0\.0/ });
    const good = join(folder, 'good');
    const first = await openDevAuth({ host: '127.0.0.1', port: 0, folder: good });
    t.teardown(() => first.close());
    const port = Number(new URL(first.urls['auth'] ?? '').port);
    await t.rejects(openDevAuth({ host: '127.0.0.1', port, folder: good }), { code: 'EADDRINUSE' });
  });
});

void t.test('the access section', async (t) => {
  const context = { env: (name: string) => (name === 'SHORT' ? 'short' : TEST_SECRET), file: () => TEST_SECRET };
  const faultsOf = (yaml: string): string[] => {
    const outcome = parseConfig(yaml, { access: accessSection }, context);
    const faults = outcome.kind === 'faulty' ? outcome.faults : accessFaults(outcome.config.access);
    return faults.map(({ path }) => path);
  };
  for (const [yaml, faults] of [
    ['', []],
    ['access: { issuers: [{ issuer: https://auth.example }] }', []],
    ['access: { issuers: [] }', ['access.issuers']],
    ['access: { issuers: [{ jwks_url: "https://a.example" }] }', ['access.issuers.0.issuer']],
    ['access: { issuers: [{ issuer: plain }] }', ['access.issuers.0']],
    ['access: { issuers: [{ issuer: "https://a.example" }, { issuer: "https://a.example" }] }', ['access.issuers']],
    ['access: { algorithms: [HS256] }', ['access.algorithms.0']],
    ['access: { algorithms: [none] }', ['access.algorithms.0']],
    ['access: { edge_secret: "env:SHORT" }', ['access.edge_secret']],
    ['access: { links: { secrets: [{ kid: a, secret: "env:SHORT" }] } }', ['access.links.secrets.0.secret']],
    [
      'access: { links: { secrets: [{ kid: a, secret: "env:A" }, { kid: a, secret: "env:B" }] } }',
      ['access.links.secrets'],
    ],
    ['access: { links: { secrets: [] } }', []],
    ['access: { links: { lifetime: 8d } }', ['access.links.lifetime']],
    ['access: { introspection: { client_id: a } }', ['access.introspection']],
  ] as const) {
    t.same(faultsOf(yaml), faults, yaml);
  }
});
