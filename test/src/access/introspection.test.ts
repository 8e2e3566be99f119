/** Introspection of tokens (RFC 7662): what is asked, how long an answer counts, and what happens without one. */
import t from 'tap';
import type { Grant } from '../../../src/access/grant.js';
import { bearing, FOREIGN, refused, setUp } from '../../kit/access/gate.js';
import { type AuthService, type Members, sendJson, signToken, TEST_SECRET } from '../../kit/auth-service.js';

void t.test('introspection (RFC 7662)', async (t) => {
  const ENDPOINT = '/introspect';
  const introspecting = (auth: AuthService): Members => ({
    introspection: {
      url: `${auth.issuer}${ENDPOINT}`,
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
    auth.override(ENDPOINT, (request, response) => {
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
        auth.override(ENDPOINT, answer);
        const token = auth.token();
        t.match(await open(token), { kind: 'unavailable', retryAfterMs: 2_000 }, name);
        t.match(await open(auth.token({ sub: 'b' })), { kind: 'unavailable' }, name);
        t.equal(auth.seen(ENDPOINT), 1, name);
        auth.override(ENDPOINT, (_, response) => sendJson(response, { active: true }));
        clock.advance(2_000);
        t.equal((await open(token)).kind, 'caller', `${name}: an outage is not remembered of a token`);
        t.equal(auth.seen(ENDPOINT), 2, name);
      }
    },
  );

  await t.test('the service is never asked about a forged token', async (t) => {
    const { auth, open } = await setUp(t, introspecting);
    await open(signToken(FOREIGN, auth.claims()));
    t.equal(auth.seen(ENDPOINT), 0);
  });
});
