/**
 * JSON Web Tokens, read and verified by jose. Keys that a token brings along
 * (`jwk`, `jku`, `x5u`, `x5c`) are never used, and the configuration decides
 * which algorithms are allowed.
 */
import type { KeyObject } from 'node:crypto';
import { decodeJwt, decodeProtectedHeader, errors, jwtVerify } from 'jose';
import type { EpochMs } from '../clock.js';
import type { TokenRefusal } from './grant.js';

export interface TokenRules {
  readonly algorithms: readonly string[];
  readonly audiences: readonly string[];
  readonly clockToleranceMs: number;
}

/** What a token says, not verified: used to choose the key, and to refuse. */
export interface UnprovenToken {
  readonly text: string;
  readonly algorithm: string;
  readonly kid: string | undefined;
  readonly issuer: string;
}

export type ReadTokenOutcome =
  | { readonly kind: 'readable'; readonly token: UnprovenToken }
  | { readonly kind: 'refused'; readonly refusal: TokenRefusal };

export type Claims = Readonly<Record<string, unknown>>;

export type VerifyOutcome =
  | { readonly kind: 'valid'; readonly claims: Claims; readonly expiresAt: EpochMs }
  | { readonly kind: 'refused'; readonly refusal: TokenRefusal };

/** Refuses tokens that no key could verify, so that they cost neither a signature check nor a fetch of keys. */
export function readToken(text: string, rules: TokenRules, now: EpochMs): ReadTokenOutcome {
  try {
    const header = decodeProtectedHeader(text);
    const claims = decodeJwt(text);
    if (typeof header.alg !== 'string' || !rules.algorithms.includes(header.alg)) return refused('algorithm');
    if (typeof claims.iss !== 'string') return refused('issuer');
    if (typeof claims.exp === 'number' && claims.exp * 1_000 + rules.clockToleranceMs <= now) return refused('expired');
    const kid = typeof header.kid === 'string' ? header.kid : undefined;
    return { kind: 'readable', token: { text, algorithm: header.alg, kid, issuer: claims.iss } };
  } catch {
    // Both decoders throw only for what is not a signed JWT.
    return refused('malformed');
  }
}

/** Signature, algorithm, `iss`, `aud`, `exp`, `nbf` and the presence of `sub` (RFC 7519 4.1, 7.2). */
export async function verifyToken(
  token: UnprovenToken,
  key: KeyObject,
  rules: TokenRules,
  now: EpochMs,
): Promise<VerifyOutcome> {
  try {
    const { payload } = await jwtVerify(token.text, key, {
      algorithms: [token.algorithm],
      issuer: token.issuer,
      audience: [...rules.audiences],
      clockTolerance: rules.clockToleranceMs / 1_000,
      currentDate: new Date(now),
      requiredClaims: ['exp', 'sub'],
    });
    // A larger `exp` is not a valid Date, and would make computed lifetimes NaN.
    const expiresAt = Math.min((payload.exp ?? 0) * 1_000, INSTANT_MAX);
    return { kind: 'valid', claims: payload, expiresAt };
  } catch (thrown) {
    if (thrown instanceof errors.JOSEError) return refused(refusalOf(thrown));
    throw thrown;
  }
}

const INSTANT_MAX: EpochMs = 8.64e15;

function refusalOf(error: errors.JOSEError): TokenRefusal {
  if (error instanceof errors.JWTExpired) return 'expired';
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'signature';
  if (error instanceof errors.JOSEAlgNotAllowed) return 'algorithm';
  if (!(error instanceof errors.JWTClaimValidationFailed)) return 'malformed';
  switch (error.claim) {
    case 'iss':
      return 'issuer';
    case 'aud':
      return 'audience';
    case 'nbf':
      return error.reason === 'check_failed' ? 'not_yet_valid' : 'malformed';
    case 'sub':
      return 'no_subject';
    default:
      return 'malformed';
  }
}

function refused(refusal: TokenRefusal): { readonly kind: 'refused'; readonly refusal: TokenRefusal } {
  return { kind: 'refused', refusal };
}
