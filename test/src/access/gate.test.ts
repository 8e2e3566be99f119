/** The gate: which tokens and links it accepts, what it remembers of them, and what it refuses, with the reason. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import t from 'tap';
import type { Grant } from '../../../src/access/grant.js';
import { signLink } from '../../../src/access/link.js';
import { verifyToken } from '../../../src/access/token.js';
import { signUploadLink } from '../../../src/access/upload-link.js';
import { bearing, callerOf, EC, ED, FOREIGN, gateFor, ID, PATH, RSA, refused, setUp } from '../../kit/access/gate.js';
import {
  accessConfig,
  configFor,
  forgeToken,
  JWKS_PATH,
  makeKey,
  openAuthService,
  sendJson,
  signToken,
  TEST_SECRET,
} from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';
import { until } from '../../kit/until.js';

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
      ['a kid that is no text, which is none', signToken(ED, auth.claims(), { kid: 7 })],
      ['an exp beyond all instants', auth.token({ exp: 1e300 })],
      ['a subject of 255 characters', auth.token({ sub: 'ü'.repeat(255) })],
    ] as const) {
      t.equal((await open(token)).kind, 'caller', name);
    }
    const endless = callerOf(await open(auth.token({ exp: 1e300, sub: 'endless' })));
    t.ok(Number.isFinite(new Date(endless.expiresAt).getTime()), 'its end is an instant');
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
    [
      'expired just now, of an unknown key',
      signToken(FOREIGN, { ...claims, exp: at - 5 }, { kid: 'nobody' }),
      'token_expired',
    ],
    [
      'not quite expired, of an unknown key',
      signToken(FOREIGN, { ...claims, exp: at - 4 }, { kid: 'nobody' }),
      'token_unknown_key',
    ],
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

void t.test('a token and a link together', async (t) => {
  const { auth, clock, gate, open } = await setUp(t, { links: { secrets: [{ kid: 'a', secret: 'env:A' }] } });
  const [, query = ''] = signLink({ kind: 'original', id: ID }, clock.now() + 60_000, {
    kid: 'a',
    secret: TEST_SECRET,
  }).split('?');
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
  const byLink = (): unknown => gate.open(bearing('', { authorization: undefined, query }));
  gate.renewLinks([{ kid: 'b', secret: TEST_SECRET }]);
  t.same(byLink(), refused('link_unknown_key'), 'from now on other keys open links');
  gate.renewLinks([]);
  t.same(byLink(), refused('link_unknown_key'), 'or none');
  gate.renewLinks([{ kid: 'a', secret: TEST_SECRET }]);
  t.match(byLink(), { kind: 'link' });
});

void t.test('what is no key at all is a mistake of the gate, and no fault of the token', async (t) => {
  const clock = new ManualClock();
  const token = signToken(RSA, { iss: 'i', sub: 'ann', aud: 'media', exp: clock.now() / 1_000 + 60 });
  const rules = { algorithms: ['RS256'], audiences: ['media'], clockToleranceMs: 0 };
  const unproven = { text: token, algorithm: 'RS256', kid: undefined, issuer: 'i' };
  const verify = (key: KeyObject) => verifyToken(unproven, key, rules, clock.now());
  t.match(await verify(createPublicKey(RSA.privateKey)), { kind: 'valid', claims: { sub: 'ann' } });
  await t.rejects(verify({} as KeyObject), { name: 'TypeError' });
  const refusalOf = async (over: object, later = 0): Promise<unknown> => {
    const outcome = await verifyToken(
      { ...unproven, ...over },
      createPublicKey(RSA.privateKey),
      rules,
      clock.now() + later,
    );
    return outcome.kind === 'refused' ? outcome.refusal : outcome.kind;
  };
  t.equal(await refusalOf({}, 59_999), 'valid');
  t.equal(await refusalOf({}, 60_000), 'expired', 'also if it was read before its end');
  t.equal(await refusalOf({ algorithm: 'PS256' }), 'algorithm', 'it is verified by the algorithm that was read');
  t.equal(await refusalOf({ issuer: 'j' }), 'issuer', 'and of the issuer whose keys were asked for');
});

void t.test('an upload link makes a caller who may upload and has no role', async (t) => {
  const { auth, clock, gate, open } = await setUp(t, { links: { secrets: [{ kid: 'a', secret: 'env:A' }] } });
  const terms = {
    id: '0123456789abcdef'.repeat(2),
    subject: 'ann',
    sizeMaxBytes: null,
    types: null,
    public: false,
    expiresInSeconds: null,
    filename: null,
    expiresAt: clock.now() + 60_000,
  };
  const query = signUploadLink(terms, { kid: 'a', secret: TEST_SECRET });
  const upload = { method: 'POST', path: '/v1/media', query };
  const caller = {
    subject: 'ann',
    issuer: '',
    roles: new Set(),
    scope: 'upload',
    expiresAt: terms.expiresAt,
    uploadLink: terms,
  };
  t.strictSame(gate.open(bearing('', { ...upload, authorization: undefined })), { kind: 'caller', caller });
  t.equal(callerOf(await open(auth.token(), upload)).subject, 'alice', 'a token counts before it');
  t.equal(callerOf(await open(auth.token({ exp: 1 }), upload)).subject, 'ann', 'unless it is not valid');
  t.same(
    gate.open(bearing('', { ...upload, path: PATH, authorization: undefined })),
    refused('none'),
    'elsewhere it is nothing',
  );
  clock.advance(60_000);
  t.same(gate.open(bearing('', { ...upload, authorization: undefined })), refused('link_expired'));
  t.same(await open(auth.token({ exp: 1 }), upload), refused('token_expired'), 'the answer is about the token');
});

void t.test('a token may have so many characters and no more, and what is counted is counted once', async (t) => {
  let longest = '';
  const { clock, gate, metrics, open } = await setUp(t, (auth) => {
    longest = auth.token();
    return { token_size_max: longest.length };
  });
  t.equal((await open(longest)).kind, 'caller');
  t.equal((await open('', { authorization: `Bearer   ${longest}` })).kind, 'caller', 'spaces are not of the token');
  t.same(await open(`${longest}x`), refused('token_too_large'));
  for (let collected = 0; collected < 2; collected += 1) {
    const text = await metrics();
    t.match(text, 'media_access_grants_total{outcome="caller"} 2');
    t.match(text, 'media_access_grants_total{outcome="token_too_large"} 1');
  }
  t.match(await metrics(), 'media_access_tokens_remembered 1');
  clock.advance(3_605_000);
  t.same(gate.open(bearing(longest)), refused('token_expired'));
  t.match(await metrics(), 'media_access_tokens_remembered 0', 'what has expired is remembered no longer');
});
