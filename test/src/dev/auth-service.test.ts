/** The Authentication Service of the development mode: its key, its tokens, and where it listens. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { issueToken, openDevAuth } from '../../../src/dev/auth-service.js';
import { bearing, callerOf, gateFor } from '../../kit/access/gate.js';
import { accessConfig, JWKS_PATH } from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';

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
