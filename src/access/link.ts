/**
 * Signed links: `exp`, `kid` and `sig` in the query of a URL instead of a token.
 *
 * The signed text has three lines, so that a chat server that has a secret can
 * sign links itself:
 *
 *     GET
 *     /v1/media/<ID>            or  /v1/media/<ID>/thumb, then ?w=..&h=.. as far as given, in this order
 *     <exp>                     unix seconds, decimal
 *
 * `sig` is the HMAC-SHA-256 of that text in base64url without padding. HEAD
 * counts as GET. Of a thumbnail's query only `w` and `h` are signed, so a link
 * opens one variant. Other parameters have no meaning, neither here nor there.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { EpochMs } from '../clock.js';
import { type MediaId, parseMediaId } from '../ids.js';

export interface LinkKey {
  readonly kid: string;
  readonly secret: string;
}

export type LinkRefusal = 'malformed' | 'unknown_key' | 'signature' | 'expired' | 'too_long';

/** What a link opens: the original, or a thumbnail of the size asked for. */
export type LinkTarget =
  | { readonly kind: 'original'; readonly id: MediaId }
  | { readonly kind: 'thumb'; readonly id: MediaId; readonly width: number | null; readonly height: number | null };

export interface LinkRules {
  readonly keys: readonly LinkKey[];
  readonly lifetimeMaxMs: number;
  readonly clockToleranceMs: number;
}

export type LinkOutcome =
  /** The request has no parameter of a link. */
  | { readonly kind: 'absent' }
  | { readonly kind: 'valid'; readonly expiresAt: EpochMs }
  | { readonly kind: 'refused'; readonly refusal: LinkRefusal };

/** The path and query of a link that is valid until `expiresAt`, cut to the whole second. */
export function signLink(target: LinkTarget, expiresAt: EpochMs, key: LinkKey): string {
  const exp = String(Math.floor(expiresAt / 1_000));
  const address = addressOf(target);
  const credentials = `exp=${exp}&kid=${encodeURIComponent(key.kid)}&sig=${signature(address, exp, key.secret)}`;
  return `${address}${address.includes('?') ? '&' : '?'}${credentials}`;
}

/** Checks the link in a request; `path` and `query` as received, without the `?`. */
export function checkLink(
  request: { readonly method: string; readonly path: string; readonly query: string },
  rules: LinkRules,
  now: EpochMs,
): LinkOutcome {
  if (request.query === '' || (request.method !== 'GET' && request.method !== 'HEAD')) return ABSENT;
  // The most lenient reading of a query: whatever a router takes for `w`, the signature takes for `w`.
  const parameters = new URLSearchParams(request.query);
  if (!CREDENTIALS.some((name) => parameters.has(name))) return ABSENT;
  const claim = readClaim(request.path, parameters);
  if (claim === undefined) return refused('malformed');

  const key = rules.keys.find(({ kid }) => kid === claim.kid);
  if (key === undefined) return refused('unknown_key');
  // Compared as text: base64url can write the same bytes in four ways, and only one of them was signed.
  const expected = Buffer.from(signature(addressOf(claim.target), claim.exp, key.secret), 'latin1');
  if (!timingSafeEqual(expected, Buffer.from(claim.sig, 'latin1'))) return refused('signature');

  const expiresAt = Number(claim.exp) * 1_000;
  if (expiresAt <= now) return refused('expired');
  if (expiresAt - now > rules.lifetimeMaxMs + rules.clockToleranceMs) return refused('too_long');
  return { kind: 'valid', expiresAt };
}

const ABSENT: LinkOutcome = { kind: 'absent' };
const CREDENTIALS = ['exp', 'kid', 'sig'] as const;
const EXP = /^[1-9]\d{0,11}$/;
const KID = /^[A-Za-z0-9_-]{1,32}$/;
const SIG = /^[A-Za-z0-9_-]{43}$/;
const PIXELS = /^[1-9]\d{0,5}$/;
const MEDIA_PATH = /^\/v1\/media\/([0-9A-Za-z]{26})(\/thumb)?$/;

interface Claim {
  readonly target: LinkTarget;
  readonly exp: string;
  readonly kid: string;
  readonly sig: string;
}

function readClaim(path: string, parameters: URLSearchParams): Claim | undefined {
  const target = readTarget(path, parameters);
  const exp = only(parameters, 'exp');
  const kid = only(parameters, 'kid');
  const sig = only(parameters, 'sig');
  if (target === undefined || exp === undefined || kid === undefined || sig === undefined) return undefined;
  return EXP.test(exp) && KID.test(kid) && SIG.test(sig) ? { target, exp, kid, sig } : undefined;
}

function readTarget(path: string, parameters: URLSearchParams): LinkTarget | undefined {
  const match = MEDIA_PATH.exec(path);
  const id = parseMediaId(match?.[1] ?? '');
  if (id === undefined) return undefined;
  if (match?.[2] === undefined) return { kind: 'original', id };
  const width = readPixels(parameters, 'w');
  const height = readPixels(parameters, 'h');
  return width === undefined || height === undefined ? undefined : { kind: 'thumb', id, width, height };
}

/** Null if it is not given, undefined if it cannot have been signed. */
function readPixels(parameters: URLSearchParams, name: string): number | null | undefined {
  if (!parameters.has(name)) return null;
  const value = only(parameters, name);
  return value !== undefined && PIXELS.test(value) ? Number(value) : undefined;
}

/** The value of a parameter that is given once. With two, readers could differ about which one counts. */
function only(parameters: URLSearchParams, name: string): string | undefined {
  const values = parameters.getAll(name);
  return values.length === 1 ? values[0] : undefined;
}

/** The spelling of a target that is signed. */
function addressOf(target: LinkTarget): string {
  if (target.kind === 'original') return `/v1/media/${target.id}`;
  const size = [
    ...(target.width === null ? [] : [`w=${target.width}`]),
    ...(target.height === null ? [] : [`h=${target.height}`]),
  ];
  return `/v1/media/${target.id}/thumb${size.length === 0 ? '' : `?${size.join('&')}`}`;
}

function signature(address: string, exp: string, secret: string): string {
  return createHmac('sha256', secret).update(`GET\n${address}\n${exp}`).digest('base64url');
}

function refused(refusal: LinkRefusal): LinkOutcome {
  return { kind: 'refused', refusal };
}
