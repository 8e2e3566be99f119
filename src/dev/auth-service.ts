/**
 * A small Authentication Service for development: one key in a folder, the
 * documents that publish it, and tokens signed with it. It asks nobody for a
 * password, so it listens on loopback only. Never use it in production.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomUUID,
  sign,
} from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '../clock.js';
import { errorCode } from '../errors.js';
import { createFile, makeFolder } from '../private-folder.js';
import type { Running } from '../process.js';

export interface DevAuthOptions {
  readonly host: string;
  readonly port: number;
  /** The folder of the key, which is made if there is none. */
  readonly folder: string;
}

export interface TokenRequest {
  readonly subject: string;
  readonly admin: boolean;
  readonly expiresInMs: number;
  readonly audience: string;
  readonly issuer: string;
  /** More words for `scope`. */
  readonly scope?: string;
}

const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost']);
const ADMIN_SCOPE = 'media:admin';
const ALGORITHM = 'EdDSA';

/** Serves `/.well-known/jwks.json` and `/.well-known/openid-configuration`. */
export async function openDevAuth({ host, port, folder }: DevAuthOptions): Promise<Running> {
  if (!LOOPBACK.has(host))
    throw new Error(`The development Authentication Service listens on loopback only, not ${host}.`);
  const jwk = publicJwk(await openKey(folder));
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    request.resume();
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, { error: 'GET only' });
    if (path === '/.well-known/jwks.json') return answer(response, 200, { keys: [jwk] });
    if (path === '/.well-known/openid-configuration') return answer(response, 200, discovery(urlOf(server)));
    return answer(response, 404, { error: 'there is nothing here' });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return { urls: { auth: urlOf(server) }, close: () => closeServer(server) };
}

/** A token signed with the key in the folder. No server needs to run. */
export async function issueToken(folder: string, request: TokenRequest, clock: Pick<Clock, 'now'>): Promise<string> {
  const key = await openKey(folder);
  const issuedAt = Math.floor(clock.now() / 1_000);
  const scope = [request.scope ?? '', request.admin ? ADMIN_SCOPE : ''].filter((words) => words !== '').join(' ');
  const header = { alg: ALGORITHM, typ: 'JWT', kid: publicJwk(key).kid };
  const claims = {
    iss: request.issuer,
    sub: request.subject,
    aud: request.audience,
    iat: issuedAt,
    nbf: issuedAt,
    exp: issuedAt + Math.ceil(request.expiresInMs / 1_000),
    jti: randomUUID(),
    ...(scope !== '' && { scope }),
  };
  const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${signed}.${sign(null, Buffer.from(signed), key).toString('base64url')}`;
}

/** The key of the folder, made by the first call. If two processes make one at once, both use the one that was first. */
async function openKey(folder: string): Promise<KeyObject> {
  const path = join(folder, 'key.pem');
  try {
    return (await readKey(path)) ?? (await makeKey(folder, path));
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new Error(`The key of the development Authentication Service, ${path}, cannot be used: ${reason}`, {
      cause: thrown,
    });
  }
}

async function readKey(path: string): Promise<KeyObject | undefined> {
  let pem: string;
  try {
    pem = await readFile(path, 'utf8');
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== 'ed25519')
    throw new Error('it is not an Ed25519 key; remove it, and a new one is made');
  return key;
}

async function makeKey(folder: string, path: string): Promise<KeyObject> {
  await makeFolder(folder);
  await createFile(path, generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const key = await readKey(path);
  if (key === undefined) throw new Error('it disappeared while it was made');
  return key;
}

/** RFC 8037, named by its thumbprint (RFC 7638), so that the name changes with the key. */
function publicJwk(key: KeyObject): Readonly<Record<string, string>> & { readonly kid: string } {
  const { crv = '', kty = '', x = '' } = createPublicKey(key).export({ format: 'jwk' });
  return { kty, crv, x, alg: ALGORITHM, use: 'sig', kid: hash('sha256', JSON.stringify({ crv, kty, x }), 'base64url') };
}

function discovery(url: string): Readonly<Record<string, unknown>> {
  return {
    issuer: url,
    jwks_uri: `${url}/.well-known/jwks.json`,
    id_token_signing_alg_values_supported: [ALGORITHM],
    response_types_supported: [],
    subject_types_supported: ['public'],
  };
}

function answer(response: ServerResponse, status: number, document: Readonly<Record<string, unknown>>): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'max-age=60' });
  response.end(response.req.method === 'HEAD' ? undefined : JSON.stringify(document));
}

function urlOf(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
