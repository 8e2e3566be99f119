/** The keys of Authentication Services: fetched, changed, kept while they cannot be reached, and never taken from elsewhere. */
import { hash } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import type { Grant } from '../../../src/access/grant.js';
import { bearing, callerOf, EC, ED, FOREIGN, gateFor, RSA, refused, setUp } from '../../kit/access/gate.js';
import {
  type AuthService,
  accessConfig,
  configFor,
  DISCOVERY_PATH,
  JWKS_PATH,
  type Members,
  makeKey,
  openAuthService,
  type SigningKey,
  sendJson,
  signToken,
} from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';
import { until } from '../../kit/until.js';

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
    t.same(
      await open(signToken(FOREIGN, auth.claims())),
      refused('token_signature'),
      'a forged one is refused as ever',
    );
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
