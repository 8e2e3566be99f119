/**
 * What the Authentication Service is asked. Introspection of tokens (RFC 7662): the question, how long an answer counts, and
 * what happens without one. Documents: how much of one is read, and for how long.
 */
import { text as textOf } from 'node:stream/consumers';
import t from 'tap';
import { fetchDocument } from '../../../src/access/fetch-document.js';
import type { Grant } from '../../../src/access/grant.js';
import { bearing, FOREIGN, refused, setUp } from '../../kit/access/gate.js';
import {
  type AuthService,
  type Members,
  openAuthService,
  sendJson,
  signToken,
  TEST_SECRET,
} from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';
import { until } from '../../kit/until.js';

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

  await t.test('the question is a form with the token, and without a name there is no password', async (t) => {
    for (const [client, named] of [
      [{}, true],
      [{ client_id: null, client_secret: null }, false],
    ] as const) {
      const { auth, open } = await setUp(t, (service) => ({
        introspection: { ...(introspecting(service)['introspection'] as Members), ...client },
      }));
      const questions: unknown[] = [];
      auth.override(ENDPOINT, (request, response) => {
        const { authorization, accept, 'content-type': type = '' } = request.headers;
        void textOf(request).then((body) => {
          const form = Object.fromEntries(new URLSearchParams(body));
          questions.push([request.method, type.split(';')[0], accept, authorization !== undefined, form]);
          sendJson(response, { active: true });
        });
      });
      const token = auth.token();
      t.equal((await open(token)).kind, 'caller');
      t.strictSame(questions, [
        [
          'POST',
          'application/x-www-form-urlencoded',
          'application/json',
          named,
          { token, token_type_hint: 'access_token' },
        ],
      ]);
    }
  });

  await t.test('so many questions are asked at once, and a pause gets shorter while it lasts', async (t) => {
    const { auth, clock, open } = await setUp(t, (service) => ({
      introspection: { ...(introspecting(service)['introspection'] as Members), questions_max: 2 },
    }));
    const waiting: (() => void)[] = [];
    auth.override(ENDPOINT, (_, response) => waiting.push(() => sendJson(response, { active: true })));
    const askedFor = (...subjects: string[]): Promise<Grant>[] => subjects.map((sub) => open(auth.token({ sub })));
    for (const round of ['first', 'second']) {
      const open = askedFor(`${round} a`, `${round} b`);
      await until('two questions', () => waiting.length === 2);
      const [further] = askedFor(`${round} c`);
      t.same(await further, { kind: 'unavailable', retryAfterMs: 2_000 }, 'a third has to wait');
      for (const answer of waiting.splice(0)) answer();
      for (const grant of open) t.equal((await grant).kind, 'caller');
    }
    t.equal(auth.seen(ENDPOINT), 4);
    auth.override(ENDPOINT, (_, response) => response.writeHead(500).end());
    for (const [elapsedMs, retryAfterMs] of [
      [0, 2_000],
      [500, 1_500],
      [1_499, 1],
    ] as const) {
      clock.advance(elapsedMs);
      t.same(await askedFor(`after ${elapsedMs}`)[0], { kind: 'unavailable', retryAfterMs });
    }
    t.equal(auth.seen(ENDPOINT), 5);
  });

  await t.test('a question that the end of the gate breaks off is no failure of the service', async (t) => {
    const { auth, gate, lines, open } = await setUp(t, introspecting);
    auth.override(ENDPOINT, () => undefined);
    const grant = open(auth.token());
    await until('the question', () => auth.seen(ENDPOINT) === 1);
    await gate.close();
    t.match(await grant, { kind: 'unavailable' });
    t.notMatch(lines.join(''), 'introspected');
  });

  await t.test('the service is never asked about a forged token', async (t) => {
    const { auth, open } = await setUp(t, introspecting);
    await open(signToken(FOREIGN, auth.claims()));
    t.equal(auth.seen(ENDPOINT), 0);
  });
});

void t.test('a document', async (t) => {
  const clock = new ManualClock();
  const auth = await openAuthService(clock);
  t.teardown(() => auth.close());
  const limits = { timeoutMs: 5_000, sizeMaxBytes: 10 };
  const url = `${auth.issuer}/document`;
  const get = (signal = new AbortController().signal): Promise<unknown> =>
    fetchDocument({ url }, limits, clock, signal);

  await t.test('may have so many bytes and no more', async (t) => {
    auth.override('/document', (_, response) => response.end('"12345678"'));
    t.equal(await get(), '12345678');
    auth.override('/document', (_, response) => response.end('"123456789"'));
    await t.rejects(get(), { message: `${url} gave no usable document: longer than 10B` });
    t.equal(clock.pending, 0, 'and no timer is left');
    auth.override('/document', (request, response) => response.end(JSON.stringify(request.method)));
    t.equal(await get(), 'GET');
  });

  await t.test('that is an error or too long is not read on', async (t) => {
    for (const [status, message] of [
      [404, 'answered 404'],
      [204, 'answered 204'],
      [301, 'answered 301'],
      [200, 'longer than 10B'],
    ] as const) {
      const ended = new Promise<void>((resolve) => {
        auth.override('/document', (_, response) => {
          response.on('close', resolve);
          response.writeHead(status, { location: auth.jwksUrl });
          if (status === 204) response.end();
          else response.write('x'.repeat(100));
        });
      });
      await t.rejects(get(), { message: `${url} gave no usable document: ${message}` });
      await ended;
    }
  });

  await t.test('has to be there in time, and is not waited for by who has left', async (t) => {
    auth.override('/document', (_, response) => void response.write('"'));
    const before = auth.seen('/document');
    const late = get();
    await until('the first request', () => auth.seen('/document') > before);
    clock.advance(5_000);
    await t.rejects(late, { message: `${url} gave no usable document: no whole answer within 5s` });
    const leaving = new AbortController();
    const seen = auth.seen('/document');
    const left = get(leaving.signal);
    await until('the request', () => auth.seen('/document') > seen);
    leaving.abort(new Error('left'));
    await t.rejects(left, { message: `${url} gave no usable document: left` });
    await t.rejects(get(leaving.signal), { message: 'left' }, 'and is not asked for afterwards');
    t.equal(auth.seen('/document'), seen + 1);
    t.equal(clock.pending, 0);
  });

  await t.test('that cannot be fetched is missed with the reason', async (t) => {
    const gone = await openAuthService(clock);
    await gone.close();
    await t.rejects(fetchDocument({ url: gone.jwksUrl }, limits, clock, AbortSignal.abort(new Error('x'))), {
      message: 'x',
    });
    await t.rejects(
      fetchDocument({ url: gone.jwksUrl }, limits, clock, new AbortController().signal),
      /gave no usable document: .*ECONNREFUSED/,
    );
  });
});
