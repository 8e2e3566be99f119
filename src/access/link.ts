/**
 * Signed links: `exp`, `kid` and `sig` in the query of a URL instead of a token.
 *
 * The signed text has four lines, so that a chat server that has a secret can
 * sign links itself:
 *
 *     media-link
 *     <ID>
 *     <scope>      thumb: the thumbnail in every variant, and the info; original: these and the original
 *     <exp>        unix seconds, decimal
 *
 * `sig` is the HMAC-SHA-256 of that text in base64url without padding. Links are
 * for GET and HEAD. No other parameter of the query is signed.
 *
 * Links of an earlier form are valid until they end: their text is `GET`, the
 * path (of a thumbnail with `?w=..&h=..` as far as given), and exp. Each opens
 * that one path.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { EpochMs } from '../clock.js';
import { type MediaId, parseMediaId } from '../ids.js';

export interface LinkKey {
  readonly kid: string;
  readonly secret: string;
}

export type LinkRefusal = 'malformed' | 'unknown_key' | 'signature' | 'expired' | 'too_long';

export type LinkScope = 'thumb' | 'original';

/** The resource that a link is for. Its signature has the least scope that opens it. */
export interface LinkTarget {
  readonly kind: 'original' | 'thumb' | 'info';
  readonly id: MediaId;
}

export interface LinkRules {
  readonly keys: readonly LinkKey[];
  readonly lifetimeMaxMs: number;
  /** Ends of links are rounded up to a multiple of it. */
  readonly windowMs: number;
  readonly clockToleranceMs: number;
}

export type LinkOutcome =
  /** The request has no parameter of a link. */
  | { readonly kind: 'absent' }
  | { readonly kind: 'valid'; readonly expiresAt: EpochMs }
  | { readonly kind: 'refused'; readonly refusal: LinkRefusal };

/** The path and query of a link that is valid until `expiresAt`, cut to the whole second. */
export function signLink({ kind, id }: LinkTarget, expiresAt: EpochMs, key: LinkKey): string {
  const path = `/v1/media/${id}${kind === 'original' ? '' : `/${kind}`}`;
  const exp = String(Math.floor(expiresAt / 1_000));
  const sig = signature(textOf(id, kind === 'original' ? 'original' : 'thumb', exp), key.secret);
  return `${path}?exp=${exp}&kid=${encodeURIComponent(key.kid)}&sig=${sig}`;
}

/** When a link ends that is asked for now: rounded up, so that links that are asked for within a window are equal. */
export function linkEnd(now: EpochMs, lifetimeMs: number, windowMs: number): EpochMs {
  const step = Math.max(1_000, windowMs);
  return Math.ceil((now + lifetimeMs) / step) * step;
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
  const given = Buffer.from(claim.sig, 'latin1');
  const texts = [...SCOPES_FOR[claim.kind].map((scope) => textOf(claim.id, scope, claim.exp)), claim.earlierText];
  // Compared as text: base64url can write the same bytes in four ways, and only one of them was signed.
  const isSigned = texts.some(
    (text) => text !== undefined && timingSafeEqual(Buffer.from(signature(text, key.secret), 'latin1'), given),
  );
  if (!isSigned) return refused('signature');

  const expiresAt = Number(claim.exp) * 1_000;
  if (expiresAt <= now) return refused('expired');
  if (expiresAt - now > rules.lifetimeMaxMs + rules.windowMs + rules.clockToleranceMs) return refused('too_long');
  return { kind: 'valid', expiresAt };
}

const ABSENT: LinkOutcome = { kind: 'absent' };
const CREDENTIALS = ['exp', 'kid', 'sig'] as const;
const EXP = /^[1-9]\d{0,11}$/;
const KID = /^[A-Za-z0-9_-]{1,32}$/;
const SIG = /^[A-Za-z0-9_-]{43}$/;
const PIXELS = /^[1-9]\d{0,5}$/;
const MEDIA_PATH = /^\/v1\/media\/([0-9A-Za-z]{26})(?:\/(thumb|info))?$/;

const SCOPES_FOR: Readonly<Record<LinkTarget['kind'], readonly LinkScope[]>> = {
  original: ['original'],
  thumb: ['thumb', 'original'],
  info: ['thumb', 'original'],
};

interface Claim extends LinkTarget {
  readonly exp: string;
  readonly kid: string;
  readonly sig: string;
  /** What a link of the earlier form would have signed; undefined: there was none for this target. */
  readonly earlierText: string | undefined;
}

function readClaim(path: string, parameters: URLSearchParams): Claim | undefined {
  const match = MEDIA_PATH.exec(path);
  const id = parseMediaId(match?.[1] ?? '');
  const exp = only(parameters, 'exp');
  const kid = only(parameters, 'kid');
  const sig = only(parameters, 'sig');
  if (id === undefined || !EXP.test(exp) || !KID.test(kid) || !SIG.test(sig)) return undefined;
  const kind = match?.[2] === 'thumb' || match?.[2] === 'info' ? match[2] : 'original';
  return { kind, id, exp, kid, sig, earlierText: earlierTextOf(kind, id, parameters, exp) };
}

function earlierTextOf(
  kind: LinkTarget['kind'],
  id: MediaId,
  parameters: URLSearchParams,
  exp: string,
): string | undefined {
  if (kind === 'info') return undefined;
  if (kind === 'original') return `GET\n/v1/media/${id}\n${exp}`;
  const size: string[] = [];
  for (const name of ['w', 'h']) {
    if (!parameters.has(name)) continue;
    const value = only(parameters, name);
    if (!PIXELS.test(value)) return undefined;
    size.push(`${name}=${value}`);
  }
  return `GET\n/v1/media/${id}/thumb${size.length === 0 ? '' : `?${size.join('&')}`}\n${exp}`;
}

/** The value of a parameter that is given once, otherwise nothing. With two, readers could differ about which one counts. */
function only(parameters: URLSearchParams, name: string): string {
  const [value = '', ...others] = parameters.getAll(name);
  return others.length === 0 ? value : '';
}

function textOf(id: MediaId, scope: LinkScope, exp: string): string {
  return `media-link\n${id}\n${scope}\n${exp}`;
}

function signature(text: string, secret: string): string {
  return createHmac('sha256', secret).update(text).digest('base64url');
}

function refused(refusal: LinkRefusal): LinkOutcome {
  return { kind: 'refused', refusal };
}
