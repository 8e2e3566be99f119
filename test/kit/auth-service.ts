/**
 * An Authentication Service for tests: any number of keys of every kind, tokens with any claims, and a server whose
 * responses a test can replace.
 */
import {
  constants,
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
  sign,
} from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type AccessConfig, accessSection } from '../../src/access/config.js';
import type { Clock } from '../../src/clock.js';

export type SigningAlgorithm = 'RS256' | 'PS256' | 'ES256' | 'EdDSA';

export interface SigningKey {
  readonly kid: string;
  readonly algorithm: SigningAlgorithm;
  readonly privateKey: KeyObject;
  /** The public key in the form in which it is published. */
  readonly jwk: JsonWebKey & Readonly<Record<string, unknown>>;
}

export function makeKey(kid: string, algorithm: SigningAlgorithm = 'EdDSA'): SigningKey {
  const privateKey = generate(algorithm);
  const jwk = { ...createPublicKey(privateKey).export({ format: 'jwk' }), kid, alg: algorithm, use: 'sig' };
  return { kid, algorithm, privateKey, jwk };
}

function generate(algorithm: SigningAlgorithm): KeyObject {
  switch (algorithm) {
    case 'RS256':
    case 'PS256':
      return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    case 'ES256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    case 'EdDSA':
      return generateKeyPairSync('ed25519').privateKey;
  }
}

export type Members = Readonly<Record<string, unknown>>;

/** A compact JWS of these claims. A member that is undefined is left out. */
export function signToken(key: SigningKey, claims: Members, header: Members = {}): string {
  const text = signingInput({ alg: key.algorithm, kid: key.kid, typ: 'JWT', ...header }, claims);
  return `${text}.${signatureOf(key, text).toString('base64url')}`;
}

/** A compact JWS signed with a shared secret (HS256), or without a signature. */
export function forgeToken(header: Members, claims: Members, secret?: string | Buffer): string {
  const text = signingInput(header, claims);
  return `${text}.${secret === undefined ? '' : createHmac('sha256', secret).update(text).digest('base64url')}`;
}

function signingInput(header: Members, claims: Members): string {
  return [header, claims].map((members) => Buffer.from(JSON.stringify(members)).toString('base64url')).join('.');
}

function signatureOf({ algorithm, privateKey }: SigningKey, text: string): Buffer {
  const data = Buffer.from(text);
  switch (algorithm) {
    case 'RS256':
      return sign('sha256', data, privateKey);
    case 'PS256':
      return sign('sha256', data, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 });
    case 'ES256':
      return sign('sha256', data, { key: privateKey, dsaEncoding: 'ieee-p1363' });
    case 'EdDSA':
      return sign(null, data, privateKey);
  }
}

type Responder = (request: IncomingMessage, response: ServerResponse) => void;

export interface AuthService {
  /** Its URL, which is also the issuer of its tokens. */
  readonly issuer: string;
  readonly jwksUrl: string;
  /** The keys that it publishes. A test may replace them. */
  keys: readonly SigningKey[];
  /** Replaces the response of a path; undefined restores it. */
  override(path: string, respond: Responder | undefined): void;
  /** How many requests for a path have arrived. */
  seen(path: string): number;
  /** Resolves at the next request for a path. */
  next(path: string): Promise<void>;
  /** Claims of a valid token that is issued now and expires in an hour. */
  claims(over?: Members): Members;
  /** A valid token, signed with the first key unless another one is given. */
  token(over?: Members, key?: SigningKey): string;
  close(): Promise<void>;
}

export const JWKS_PATH = '/.well-known/jwks.json';
export const DISCOVERY_PATH = '/.well-known/openid-configuration';

export async function openAuthService(
  clock: Pick<Clock, 'now'>,
  keys: readonly SigningKey[] = [makeKey('one')],
): Promise<AuthService> {
  const overrides = new Map<string, Responder>();
  const seen = new Map<string, number>();
  const waiting = new Map<string, (() => void)[]>();
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    seen.set(path, (seen.get(path) ?? 0) + 1);
    for (const go of waiting.get(path)?.splice(0) ?? []) go();
    const respond = overrides.get(path) ?? defaults[path];
    if (respond === undefined) response.writeHead(404).end();
    else respond(request, response);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const service: AuthService = {
    issuer,
    jwksUrl: issuer + JWKS_PATH,
    keys,
    override: (path, respond) => void (respond === undefined ? overrides.delete(path) : overrides.set(path, respond)),
    seen: (path) => seen.get(path) ?? 0,
    next: (path) =>
      new Promise((resolve) => {
        waiting.set(path, [...(waiting.get(path) ?? []), resolve]);
      }),
    claims(over = {}) {
      const at = Math.floor(clock.now() / 1_000);
      return { iss: issuer, sub: 'alice', aud: 'media', iat: at, nbf: at, exp: at + 3_600, ...over };
    },
    token(over = {}, key = service.keys[0]) {
      if (key === undefined) throw new Error('the service has no key');
      return signToken(key, service.claims(over));
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  const defaults: Readonly<Record<string, Responder>> = {
    [JWKS_PATH]: (_, response) => sendJson(response, { keys: service.keys.map(({ jwk }) => jwk) }),
    [DISCOVERY_PATH]: (_, response) => sendJson(response, { issuer, jwks_uri: service.jwksUrl }),
  };
  return service;
}

export function sendJson(response: ServerResponse, document: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document));
}

export const TEST_SECRET = 'a secret of at least thirty-two characters';

/** The section `access` with these keys of config.yaml. Every secret is TEST_SECRET. */
export function accessConfig(section: Members = {}): AccessConfig {
  const context = { env: () => TEST_SECRET, file: () => TEST_SECRET };
  return accessSection.schema(context).parse({ ...section, keys: { folder: null, ...(section['keys'] as object) } });
}

/** The section `access` that trusts one service. */
export function configFor(service: AuthService, section: Members = {}): AccessConfig {
  return accessConfig({ issuers: [{ issuer: service.issuer, jwks_url: service.jwksUrl }], ...section });
}
