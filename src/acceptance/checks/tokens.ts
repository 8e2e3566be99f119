/** Which tokens open something, and which do not. */
import { createHmac } from 'node:crypto';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { text } from '../samples.js';
import type { Place, TokenRequest, World } from '../world.js';

const { both, unseen } = checksOf('tokens');

const encoded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Uploads and reads with a token that must not be believed. */
async function refused(world: World, at: Place, token: string): Promise<void> {
  const media = await world.shared('text');
  (await at.get(media.path, { token })).refuses(401, 'unauthorized');
  const answer = await at.post('/v1/media', { token, body: text(), fields: { 'content-type': 'text/plain' } });
  if (answer.status < 300) world.note(String(answer.json['id']));
  answer.refuses(401, 'unauthorized');
}

function userToken(world: World): { readonly token: string; readonly parts: readonly string[] } {
  const token = world.tokens.user;
  if (token === undefined) throw new NotTried('no token of a user');
  return { token, parts: token.split('.') };
}

async function made(world: World, request: Partial<TokenRequest>): Promise<string> {
  if (world.tokens.make === undefined) throw new NotTried('no tokens can be made here (only with --dev)');
  return await world.tokens.make({ subject: 'acceptance-refused', ...request });
}

export const tokenChecks: readonly Check[] = [
  both('token/good', 'a valid token reads what is private', async (world, at) => {
    (await at.get((await world.shared('text')).path, { as: 'user' })).is(200);
  }),
  both('token/none', 'what needs a token is refused without one, with WWW-Authenticate', async (world, at) => {
    const media = await world.shared('public');
    for (const [method, path] of [
      ['POST', '/v1/media'],
      ['POST', '/v1/uploads'],
      ['POST', '/v1/uploads/link'],
      ['POST', '/v1/links'],
      ['POST', `${media.path}/link`],
      ['DELETE', media.path],
      ['POST', `${media.path}/quarantine`],
      ['DELETE', `${media.path}/quarantine`],
      ['POST', '/v1/admin/owners/nobody/delete'],
    ] as const) {
      (await at.send(method, path, { body: '', fields: { 'tus-resumable': '1.0.0' } })).refuses(401, 'unauthorized');
    }
  }),
  both('token/garbage', 'what is no token is refused', async (world, at) => {
    for (const token of ['x', 'a.b.c', '..', 'x'.repeat(5_000)]) await refused(world, at, token);
    const media = await world.shared('text');
    (await at.get(media.path, { fields: { authorization: 'Basic YTpi' } })).refuses(401, 'unauthorized');
  }),
  both('token/forged', 'a changed signature or content is refused', async (world, at) => {
    const { parts } = userToken(world);
    const [head = '', claims = '', signature = ''] = parts;
    const other = `${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    await refused(world, at, `${head}.${claims}.${other}`);
    const known = JSON.parse(Buffer.from(claims, 'base64url').toString()) as Readonly<Record<string, unknown>>;
    await refused(world, at, `${head}.${encoded({ ...known, sub: 'somebody-else' })}.${signature}`);
    await refused(world, at, `${head}.${encoded({ ...known, scope: 'media:admin' })}.${signature}`);
  }),
  both('token/algorithm', 'a token without signature, or with a shared secret, is refused', async (world, at) => {
    const { parts } = userToken(world);
    const head = JSON.parse(Buffer.from(parts[0] ?? '', 'base64url').toString()) as Readonly<Record<string, unknown>>;
    for (const alg of ['none', 'NONE', 'None']) {
      await refused(world, at, `${encoded({ ...head, alg })}.${parts[1]}.`);
      await refused(world, at, `${encoded({ ...head, alg })}.${parts[1]}.${parts[2]}`);
    }
    for (const secret of ['', typeof head['kid'] === 'string' ? head['kid'] : 'secret']) {
      const signed = `${encoded({ ...head, alg: 'HS256' })}.${parts[1]}`;
      await refused(world, at, `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`);
    }
  }),
  both('token/over', 'an expired token is refused', async (world, at) => {
    await refused(world, at, await made(world, { expiresInS: -300 }));
  }),
  both('token/not-yet', 'a token that is not valid yet is refused', async (world, at) => {
    await refused(world, at, await made(world, { beginsInS: 3_600, expiresInS: 7_200 }));
  }),
  both('token/audience', 'a token for another audience is refused', async (world, at) => {
    await refused(world, at, await made(world, { audience: 'somebody-else' }));
  }),
  both('token/issuer', 'a token of another issuer is refused', async (world, at) => {
    await refused(world, at, await made(world, { issuer: 'https://somebody-else.example' }));
  }),
  both('token/subject', 'a token without a subject is refused', async (world, at) => {
    await refused(world, at, await made(world, { subject: '' }));
  }),
  both('token/roles', 'what only admins may do is refused to users', async (world, at) => {
    const media = await world.shared('text');
    (await at.post(`${media.path}/quarantine`, { as: 'user' })).refuses(403, 'forbidden');
    (await at.send('DELETE', `${media.path}/quarantine`, { as: 'user' })).refuses(403, 'forbidden');
    (await at.post('/v1/admin/owners/nobody/quarantine', { as: 'user' })).refuses(403, 'forbidden');
    if (world.capabilities['owners_may_delete'] === true) return;
    (await at.send('DELETE', media.path, { as: 'user' })).refuses(403, 'forbidden');
    (await at.get(media.path, { as: 'user' })).is(200);
  }),
  both('token/other-deletes', 'a user cannot delete what another has uploaded', async (world, at) => {
    const media = await world.shared('text');
    (await at.send('DELETE', media.path, { as: 'other' })).refuses(403, 'forbidden');
    (await at.get(media.path, { as: 'other' })).is(200);
  }),
  unseen(
    'token/rotation',
    'new keys are taken without a restart',
    'needs the Authentication Service to change its keys',
  ),
  unseen(
    'token/unreachable',
    'an unreachable Authentication Service stops no known key; unknown ones get auth_unavailable',
    'needs the Authentication Service to be stopped',
  ),
  unseen(
    'token/introspection',
    'a revoked token is refused where tokens are introspected',
    'needs the Authentication Service to revoke one',
  ),
];
