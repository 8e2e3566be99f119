/**
 * JSON Web Key Sets (RFC 7517) as published by an Authentication Service: the
 * public keys in them that can check a signature. Everything else in a set,
 * secrets, private parts, encryption keys, kinds unknown to us, is passed over.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto';

/** A public key that one issuer's tokens may be signed with. */
export interface PublishedKey {
  readonly kid: string | undefined;
  /** The only algorithm it is for, where the set says so. */
  readonly algorithm: string | undefined;
  readonly key: KeyObject;
  /** Equal for equal keys with equal names. */
  readonly fingerprint: string;
  /** Set once the set no longer holds it: what was verified by it no longer counts. */
  withdrawn: boolean;
}

/** The usable keys of a set, at most `keysMax`. Throws where the document is no set, or holds none. */
export function readKeySet(document: unknown, keysMax: number): readonly PublishedKey[] {
  const members: unknown = isObject(document) ? document['keys'] : undefined;
  if (!Array.isArray(members)) throw new Error('not a JSON Web Key Set');
  const keys = members
    .slice(0, keysMax)
    .map(readKey)
    .filter((key) => key !== undefined);
  if (keys.length === 0) throw new Error('the JSON Web Key Set holds no key that can check a signature');
  return keys;
}

/** The key for a token: by its `kid`; a token without one is served where only one key fits. */
export function chooseKey(
  keys: readonly PublishedKey[],
  kid: string | undefined,
  algorithm: string,
): PublishedKey | undefined {
  const fitting = keys.filter((key) => fits(key, algorithm) && (kid === undefined || key.kid === kid));
  return fitting.length === 1 || kid !== undefined ? fitting[0] : undefined;
}

const RSA_BITS_MIN = 2_048;

function readKey(jwk: unknown): PublishedKey | undefined {
  if (!isObject(jwk) || (jwk['use'] !== undefined && jwk['use'] !== 'sig')) return undefined;
  const operations = jwk['key_ops'];
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) return undefined;
  const key = importPublic(jwk);
  if (key === undefined) return undefined;
  const kid = typeof jwk['kid'] === 'string' ? jwk['kid'] : undefined;
  const algorithm = typeof jwk['alg'] === 'string' ? jwk['alg'] : undefined;
  const der = key.export({ type: 'spki', format: 'der' }).toString('base64');
  const fingerprint = hash('sha256', JSON.stringify([kid ?? null, algorithm ?? null, der]), 'base64url');
  return { kid, algorithm, key, fingerprint, withdrawn: false };
}

function importPublic({ kty, crv, x, y, n, e }: Readonly<Record<string, unknown>>): KeyObject | undefined {
  if (kty !== 'RSA' && kty !== 'EC' && kty !== 'OKP') return undefined;
  try {
    // Named one by one: private members never come along.
    const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => typeof value === 'string');
    const key = createPublicKey({ key: Object.fromEntries(members), format: 'jwk' });
    const bits = key.asymmetricKeyDetails?.modulusLength;
    return bits === undefined || bits >= RSA_BITS_MIN ? key : undefined;
  } catch {
    // A key that cannot be read is one that we do not have; the others still serve.
    return undefined;
  }
}

/** Whether a key is of the kind that an algorithm works with (RFC 7518 3.1, RFC 8037 3.1). */
function fits({ key, algorithm: only }: PublishedKey, algorithm: string): boolean {
  if (only !== undefined && only !== algorithm && !(isEd25519(only) && isEd25519(algorithm))) return false;
  const curve = key.asymmetricKeyDetails?.namedCurve;
  switch (algorithm) {
    case 'ES256':
      return curve === 'prime256v1';
    case 'ES384':
      return curve === 'secp384r1';
    case 'ES512':
      return curve === 'secp521r1';
    case 'EdDSA':
    case 'Ed25519':
      return key.asymmetricKeyType === 'ed25519';
    default:
      return key.asymmetricKeyType === 'rsa' && /^[RP]S(256|384|512)$/.test(algorithm);
  }
}

function isEd25519(algorithm: string): boolean {
  return algorithm === 'EdDSA' || algorithm === 'Ed25519';
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
