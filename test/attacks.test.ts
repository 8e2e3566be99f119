/**
 * Attacks on a whole edge in front of a whole origin, each a line of a table: what a stranger or an ordinary user does,
 * and what must still hold.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { TEST_SECRET } from './kit/auth-service.js';
import { openTestEdge } from './kit/edge/edge.js';
import { startEdge } from './kit/edge/media-edge.js';
import { mediaScript } from './kit/edge/scripted-origin.js';
import { FORGED_FIELDS } from './kit/http/forged-fields.js';
import { connectRaw, type RawConnection } from './kit/http/raw.js';
import { type HttpResponse, json, member, sendRequest } from './kit/http/request.js';
import { png } from './kit/media.js';
import { mediaId } from './kit/origin/journal.js';
import { startOrigin } from './kit/origin/origin.js';

/** Of requests that are passed on. */
const SLOTS = 16;
const NO_THUMBS = { thumbs: { enabled: false, video: { enabled: false } } };

void t.test('bodies that are refused stop neither uploads nor takedowns', async (t) => {
  const folder = t.testdir();
  const origin = await startOrigin(folder, NO_THUMBS);
  const edge = await startEdge(folder, origin, { pass: { concurrent_max: SLOTS } }, origin.clock);
  t.teardown(async () => {
    await edge.close();
    await origin.close();
  });
  const port = Number(new URL(edge.url).port);
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  const admin = bearer(origin.auth.token({ sub: 'mo', scope: 'media:admin' }));
  const user = bearer(origin.auth.token({ sub: 'ann' }));
  const reader = origin.auth.token({ sub: 'eve', scope: 'media:read' });

  const ATTACKS: readonly (readonly [name: string, head: string, status: number])[] = [
    ['no token', 'POST /v1/media HTTP/1.1\r\nContent-Length: 9000000', 401],
    ['no token, unknown length', 'POST /v1/media HTTP/1.1\r\nTransfer-Encoding: chunked', 401],
    ['a small body', 'POST /v1/media HTTP/1.1\r\nContent-Length: 900', 401],
    ['a token that is not valid', 'POST /v1/media HTTP/1.1\r\nAuthorization: Bearer x.y.z\r\nContent-Length: 900', 401],
    ['a token for reading', `POST /v1/media HTTP/1.1\r\nAuthorization: Bearer ${reader}\r\nContent-Length: 900`, 403],
    ['a resumable upload', 'PATCH /v1/uploads/x HTTP/1.1\r\nContent-Length: 9000000', 401],
    ['a DELETE with a body', 'DELETE /v1/media/x HTTP/1.1\r\nContent-Length: 9000000', 401],
    ['a path that does not exist', 'POST /nowhere HTTP/1.1\r\nContent-Length: 9000000', 401],
    ['a read with a body', 'GET /v1/media/x/y HTTP/1.1\r\nContent-Length: 9000000', 404],
  ];
  for (const [index, [name, head, status]] of ATTACKS.entries()) {
    const dripping: RawConnection[] = [];
    const answers: string[] = [];
    for (let count = 0; count < SLOTS + 4; count += 1) {
      const connection = await connectRaw(port);
      connection.write(`${head.replace('\r\n', '\r\nHost: edge\r\n')}\r\n\r\n1`);
      dripping.push(connection);
      // Answered before the next one comes, so that none needs a slot beside another.
      answers.push(await connection.until(/^HTTP\/1\.1 \d+/));
    }
    t.same([...new Set(answers.map((text) => Number(text.slice(9, 12))))], [status], name);
    const answer = await sendRequest(`${edge.url}/v1/media`, {
      method: 'POST',
      body: png(2 + index, 3),
      headers: user,
    });
    t.equal(answer.status, 201, `${name}: an upload`);
    const path = `/v1/media/${member(answer, 'id')}`;
    t.equal((await sendRequest(edge.url + path, { method: 'DELETE', headers: admin })).status, 204, 'a takedown');
    for (const connection of dripping) connection.socket.destroy();
  }
});

void t.test('what strangers say about address, host, target or method never reaches the origin', async (t) => {
  const forged = Object.fromEntries(FORGED_FIELDS.map((name) => [name, 'forged']));
  for (const access of ['media', 'off']) {
    const folder = t.testdir();
    const edge = await openTestEdge(folder, { edge: [`access: ${access}`, 'trusted_proxies: [203.0.113.1]'] });
    t.teardown(() => edge.close());
    edge.origin.on('*', (_seen, answer) => {
      answer.head(200, { 'cache-control': 'max-age=60', vary: 'x-forwarded-for', 'content-length': '2' });
      answer.end('ok');
    });
    const paths = access === 'media' ? ['/.well-known', '/v1/uploads/x', '/v1/media/x/info'] : ['/v1/uploads/x', '/b'];
    for (const path of paths) {
      for (const method of ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'DELETE']) {
        const headers = { ...forged, 'x-forwarded-for': `198.51.100.${method.length}`, 'x-forwarded-proto': 'https' };
        await sendRequest(edge.url + path, { method, headers });
      }
      const seen = edge.origin.seen.filter((each) => each.path === path);
      const named = new Set(seen.flatMap(({ headers }) => Object.keys(headers)));
      t.same(
        [...named].filter((name) => name in forged),
        [],
        `${access} ${path}`,
      );
      t.same([...new Set(seen.map(({ headers }) => headers['x-forwarded-for']))], ['127.0.0.1'], 'the edge says who');
      t.same([...new Set(seen.map(({ headers }) => headers['x-forwarded-proto']))], ['http'], 'and how');
    }
  }
});

void t.test('a duplicate tells nothing about who sent the bytes first', async (t) => {
  const origin = await startOrigin(t.testdir(), { thumbs: { enabled: false, video: { enabled: false } } });
  t.teardown(() => origin.close());
  const body = png(7);
  const first = await origin.upload(body, '?filename=secret.png&expires_in=7000');
  const soon = 'expires_in=60';
  const send = async (scope: string, query: string) => {
    const token = origin.auth.token({ sub: 'eve', scope });
    const headers = { authorization: `Bearer ${token}` };
    return json(await sendRequest(`${origin.url}/v1/media${query}`, { method: 'POST', body, headers }));
  };
  const tus = async (scope: string) => {
    const authorization = `Bearer ${origin.auth.token({ sub: 'eve', scope })}`;
    const fields = { 'tus-resumable': '1.0.0', 'upload-length': String(body.length), accept: 'application/json' };
    const headers = { ...fields, authorization, 'content-type': 'application/offset+octet-stream' };
    return json(await sendRequest(`${origin.url}/v1/uploads`, { method: 'POST', body, headers }));
  };
  const known = { ...json(first), duplicate: true };
  t.same(await send('', `?filename=mine.png&${soon}`), { ...known, filename: 'mine.png' });
  t.same(await send('', `?${soon}`), { ...known, filename: null });
  const hidden = { thumb_url: null, width: null, height: null, created_at: null, expires_at: null, filename: null };
  t.same(await send('media:upload', `?${soon}`), { ...known, ...hidden });
  t.same(await send('media:upload', '?filename=mine.png'), { ...known, ...hidden, filename: 'mine.png' });
  t.same(await tus('media:upload'), { ...known, ...hidden });
  t.same(await tus(''), { ...known, filename: null, expires_at: null });
});

void t.test('the listeners for operators answer no foreign page, and write acts down', async (t) => {
  const folder = t.testdir();
  const origin = await startOrigin(folder, { ...NO_THUMBS, operators: { port: 0, token: 'env:OPERATORS' } });
  t.teardown(() => origin.close());
  const { capabilities } = json(await origin.send('/.well-known')) as { capabilities: Record<string, unknown> };
  const told = { subject: { requests: 3_000 }, address: { requests: 30_000 } };
  t.match(capabilities['rate_limits'], told, 'there are limits unless an operator removes them');
  const token = { authorization: `Bearer ${TEST_SECRET}` };
  const mark = `/scrub/${'0'.repeat(64)}/thumbs`;
  const TABLE: readonly (readonly [string, string, Readonly<Record<string, string>>, number])[] = [
    ['GET', '/metrics', {}, 200],
    ['GET', '/metrics', { origin: 'https://evil.example' }, 200],
    ['GET', '/metrics', { host: 'evil.example' }, 403],
    ['OPTIONS', '/metrics', token, 405],
    ['POST', mark, {}, 401],
    ['POST', mark, { ...token, origin: 'https://evil.example' }, 403],
    ['POST', mark, token, 204],
    ['POST', '/thumbs/retry', token, 200],
  ];
  for (const [method, path, headers, status] of TABLE) {
    const answer = await sendRequest(origin.operators + path, { method, headers });
    t.equal(answer.status, status, `${method} ${path} ${JSON.stringify(headers)}`);
    t.same(
      Object.keys(answer.headers).filter((name) => name.startsWith('access-control-')),
      [],
      'no CORS',
    );
  }
  const lines = (await readFile(join(folder, 'audit/audit.jsonl'), 'utf8')).trim().split('\n');
  t.same(
    lines.map((line) => (JSON.parse(line) as { act: string }).act),
    ['thumbs_again', 'thumbs_retry'],
  );
});

void t.test('asking again and again does not reach the origin, and tells nothing', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  const reader = { authorization: 'Bearer reader' };
  const stored = mediaId(1);
  const unknown = mediaId(2);
  const private_ = mediaScript({ bytes: Buffer.from('private') });
  edge.origin.on(`/v1/media/${stored}`, private_);
  edge.origin.on(`/v1/media/${unknown}`, ({ headers }, answer) => {
    answer.head(headers['media-caller'] === 'anonymous' ? 401 : 404, { 'content-length': '0' });
    answer.end();
  });
  edge.origin.on('/.well-known', (_seen, answer) => {
    answer.head(200, { 'cache-control': 'public, max-age=60', 'content-length': '2' });
    answer.end('{}');
  });
  const ask = (path: string, headers = {}) => sendRequest(edge.url + path, { headers });
  const shown = ({ status, headers, bytes }: HttpResponse) => {
    const { date: _, 'x-request-id': __, ...fields } = headers;
    return { status, fields, body: bytes.toString() };
  };

  for (let count = 0; count < 20; count += 1) await ask(`/.well-known?nobody=${count}`);
  t.equal(edge.origin.seen.length, 1, 'a query of a shared path');

  const first = shown(await ask(`/v1/media/${unknown}`));
  t.equal(first.status, 401);
  for (let count = 0; count < 20; count += 1) t.same(shown(await ask(`/v1/media/${unknown}?again=${count}`)), first);
  t.equal(edge.origin.count(`/v1/media/${unknown}`), 1, 'an unknown id, without a credential');
  for (let count = 0; count < 20; count += 1) t.equal((await ask(`/v1/media/${unknown}`, reader)).status, 404);
  t.equal(edge.origin.count(`/v1/media/${unknown}`), 2, 'and with one');
  t.same(shown(await ask(`/v1/media/${unknown}`)), first);

  t.equal((await ask(`/v1/media/${stored}`, reader)).status, 200);
  t.same(shown(await ask(`/v1/media/${stored}`)), first, 'a private copy answers a stranger as an unknown id does');
  t.equal(edge.origin.count(`/v1/media/${stored}`), 1);

  await edge.takeDown(unknown);
  await ask(`/v1/media/${unknown}`);
  t.equal(edge.origin.count(`/v1/media/${unknown}`), 3, 'the journal ends what was remembered');
  edge.clock.advance(60_000);
  await ask(`/v1/media/${unknown}`);
  t.equal(edge.origin.count(`/v1/media/${unknown}`), 4, 'and so does time');
});
