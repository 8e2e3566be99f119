/**
 * An Authentication Service for tests: any number of keys of any kind, tokens
 * that may lie in every member, and a server that can be told to misbehave.
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
  /** As it is published. */
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

/** A compact JWS over whatever is handed in; a member that is undefined is left out. */
export function signToken(key: SigningKey, claims: Members, header: Members = {}): string {
  const text = signingInput({ alg: key.algorithm, kid: key.kid, typ: 'JWT', ...header }, claims);
  return `${text}.${signatureOf(key, text).toString('base64url')}`;
}

/** The same, with a shared secret (HS256) or no signature at all. */
export function forgeToken(header: Members, claims: Members, secret?: string | Buffer): string {
  const text = signingInput(header, claims);
  return `${text}.${secret === undefined ? '' : createHmac('sha256', secret).update(text).digest('base64url')}`;
}

function signingInput(header: Members, claims: Members): string {
  return [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
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

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

export interface AuthService {
  /** Its own address, which is also the issuer. */
  readonly issuer: string;
  readonly jwksUrl: string;
  /** What it publishes; put in what you like. */
  keys: readonly SigningKey[];
  /** Takes over a path's answer, to misbehave. Undefined ends it. */
  override(path: string, answer: Answer | undefined): void;
  /** Requests seen for a path. */
  seen(path: string): number;
  /** Resolves at the next request for a path. */
  next(path: string): Promise<void>;
  /** Claims of a good token at the clock's instant, for an hour. */
  claims(over?: Members): Members;
  /** A good token by the first key, unless told otherwise. */
  token(over?: Members, key?: SigningKey): string;
  close(): Promise<void>;
}

export const JWKS_PATH = '/.well-known/jwks.json';
export const DISCOVERY_PATH = '/.well-known/openid-configuration';

export async function openAuthService(
  clock: Pick<Clock, 'now'>,
  keys: readonly SigningKey[] = [makeKey('one')],
): Promise<AuthService> {
  const overrides = new Map<string, Answer>();
  const seen = new Map<string, number>();
  const waiting = new Map<string, (() => void)[]>();
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    seen.set(path, (seen.get(path) ?? 0) + 1);
    for (const go of waiting.get(path)?.splice(0) ?? []) go();
    const answer = overrides.get(path) ?? defaults[path];
    if (answer === undefined) response.writeHead(404).end();
    else answer(request, response);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const service: AuthService = {
    issuer,
    jwksUrl: issuer + JWKS_PATH,
    keys,
    override: (path, answer) => void (answer === undefined ? overrides.delete(path) : overrides.set(path, answer)),
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
  const defaults: Readonly<Record<string, Answer>> = {
    [JWKS_PATH]: (_, response) => sendJson(response, { keys: service.keys.map(({ jwk }) => jwk) }),
    [DISCOVERY_PATH]: (_, response) => sendJson(response, { issuer, jwks_uri: service.jwksUrl }),
  };
  return service;
}

export function sendJson(response: ServerResponse, document: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document));
}

export const TEST_SECRET = 'a secret of at least thirty-two characters';

/** The access section as config.yaml would give it, with keys in file form; every secret is TEST_SECRET. */
export function accessConfig(section: Members = {}): AccessConfig {
  const context = { env: () => TEST_SECRET, file: () => TEST_SECRET };
  return accessSection.schema(context).parse({ ...section, keys: { folder: null, ...(section['keys'] as object) } });
}

/** The section that trusts one service. */
export function configFor(service: AuthService, section: Members = {}): AccessConfig {
  return accessConfig({ issuers: [{ issuer: service.issuer, jwks_url: service.jwksUrl }], ...section });
}
