/**
 * What the one gate says of a caller. Everything that looks at an object does
 * so with a Grant in hand; the gate itself (gate.ts) is the only maker of them.
 */
import type { EpochMs } from '../clock.js';
import type { LinkKey, LinkRefusal } from './link.js';

export type Role = 'admin';

/** What a token lets its bearer do with media: everything, or one half. */
export type Scope = 'all' | 'read' | 'upload';

export interface Caller {
  readonly subject: string;
  readonly issuer: string;
  readonly roles: ReadonlySet<Role>;
  readonly scope: Scope;
  readonly expiresAt: EpochMs;
}

export type TokenRefusal =
  | 'malformed'
  | 'too_large'
  | 'algorithm'
  | 'signature'
  | 'unknown_key'
  | 'issuer'
  | 'audience'
  | 'expired'
  | 'not_yet_valid'
  | 'no_subject'
  | 'revoked';

export type Grant =
  /** A valid token. */
  | { readonly kind: 'caller'; readonly caller: Caller }
  /** A valid signed link, for this very resource. */
  | { readonly kind: 'link'; readonly expiresAt: EpochMs }
  /** No credential, or none that holds: public media only. */
  | { readonly kind: 'anonymous'; readonly refusal: 'none' | `token_${TokenRefusal}` | `link_${LinkRefusal}` }
  /** The credential could not be checked: answer 503 auth_unavailable, whatever is asked. */
  | { readonly kind: 'unavailable'; readonly retryAfterMs: number };

/** The part of a request that the gate looks at: plain values, whoever received them. */
export interface Credentials {
  readonly method: string;
  /** The path as received, without the query. */
  readonly path: string;
  /** The query as received, without `?`; empty where there is none. */
  readonly query: string;
  /** The Authorization field, or undefined. */
  readonly authorization: string | undefined;
  /**
   * An object that comes with this Authorization each time it comes, such as the
   * fields that a client repeats on its connection: what is worked out of a token
   * need not be worked out again for it.
   */
  readonly carrier?: object | undefined;
}

export interface Gate {
  /** Answers at once for whatever is remembered or needs no key; else a promise. Never throws for a bad credential. */
  open(credentials: Credentials, signal?: AbortSignal): Grant | Promise<Grant>;
  /** Resolves when the keys of every issuer are known. Rejects with the reason. */
  probe(signal?: AbortSignal): Promise<void>;
  /** Links are opened by these from now on. */
  renewLinks(keys: readonly LinkKey[]): void;
  close(): Promise<void>;
}

/**
 * Whether a grant opens media of this visibility. The one rule for original,
 * thumbnail, HEAD, Range, 304 and stale copies, in origin and edge; where it
 * says no, `faultOfGrant` is the answer.
 */
export function mayRead(grant: Grant, isPublic: boolean): boolean {
  switch (grant.kind) {
    case 'caller':
      return isPublic || grant.caller.scope !== 'upload';
    case 'link':
      return true;
    case 'anonymous':
      return isPublic;
    case 'unavailable':
      return false;
  }
}

/** Whether a grant lets its bearer upload. */
export function mayUpload(grant: Grant): grant is Extract<Grant, { kind: 'caller' }> {
  return grant.kind === 'caller' && grant.caller.scope !== 'read';
}

export function isAdmin(grant: Grant): grant is Extract<Grant, { kind: 'caller' }> {
  return grant.kind === 'caller' && grant.caller.roles.has('admin');
}
