/**
 * JSON Web Key Sets (RFC 7517) as an Authentication Service publishes them: the
 * public keys in them that can check a signature. Everything else in a set
 * (secrets, private members, encryption keys, unknown types) is ignored.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto';

/** A public key that can verify tokens of one issuer. */
export interface PublishedKey {
  readonly kid: string | undefined;
  /** The only algorithm it may be used with, if the set names one. */
  readonly algorithm: string | undefined;
  readonly key: KeyObject;
  /** The same for the same key under the same name. */
  readonly fingerprint: string;
  /** True once the set no longer contains it: tokens that it verified are no longer valid. */
  withdrawn: boolean;
}

/** The usable keys of a set, at most `keysMax`. Throws if the document is not a set. */
export function readKeySet(document: unknown, keysMax: number): readonly PublishedKey[] {
  const members: unknown = isObject(document) ? document['keys'] : undefined;
  if (!Array.isArray(members)) throw new Error('not a JSON Web Key Set');
  return members
    .slice(0, keysMax)
    .map(readKey)
    .filter((key) => key !== undefined);
}

/**
 * The keys that may have signed a token. RFC 7517 4.5: a `kid` is optional, and
 * several keys of a set may have the same one.
 */
export function fittingKeys(
  keys: readonly PublishedKey[],
  kid: string | undefined,
  algorithm: string,
): readonly PublishedKey[] {
  return keys.filter((key) => fits(key, algorithm) && (kid === undefined || key.kid === kid));
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
    // Each member is named, so that private ones are never imported.
    const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => typeof value === 'string');
    const key = createPublicKey({ key: Object.fromEntries(members), format: 'jwk' });
    const bits = key.asymmetricKeyDetails?.modulusLength;
    return bits === undefined || bits >= RSA_BITS_MIN ? key : undefined;
  } catch {
    // A key that cannot be read does not make the others useless.
    return undefined;
  }
}

/** Whether an algorithm works with this type of key (RFC 7518 3.1, RFC 8037 3.1). */
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
