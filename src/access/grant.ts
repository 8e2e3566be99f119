/**
 * What the gate says about a caller. Whoever reads media needs a Grant, and only
 * the gate (gate.ts) makes one.
 */
import type { EpochMs } from '../clock.js';
import type { KeysState } from './key-ring.js';
import type { LinkKey, LinkRefusal } from './link.js';
import type { UploadTerms } from './upload-link.js';

export type Role = 'admin';

/** What a token allows: everything, or only reading, or only uploading. */
export type Scope = 'all' | 'read' | 'upload';

export interface Caller {
  readonly subject: string;
  readonly issuer: string;
  readonly roles: ReadonlySet<Role>;
  readonly scope: Scope;
  readonly expiresAt: EpochMs;
  /** The terms of the upload link by which the caller may upload once; undefined: a token. */
  readonly uploadLink?: UploadTerms;
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
  /** A valid token, or an upload link on the paths that it opens. */
  | { readonly kind: 'caller'; readonly caller: Caller }
  /** A valid signed link for this resource. */
  | { readonly kind: 'link'; readonly expiresAt: EpochMs }
  /** No credential, or none that is valid: public media only. */
  | { readonly kind: 'anonymous'; readonly refusal: 'none' | `token_${TokenRefusal}` | `link_${LinkRefusal}` }
  /** The credential could not be checked: every request is answered 503 auth_unavailable. */
  | { readonly kind: 'unavailable'; readonly retryAfterMs: number };

/** The part of a request that the gate reads, as plain values. */
export interface Credentials {
  readonly method: string;
  /** The path as received, without the query. */
  readonly path: string;
  /** The query as received, without `?`; empty if there is none. */
  readonly query: string;
  /** The Authorization field, or undefined. */
  readonly authorization: string | undefined;
  /**
   * An object that always comes with the same Authorization, such as the fields
   * that a client repeats on its connection. The hash of the token is kept for it.
   */
  readonly carrier?: object | undefined;
}

export interface Gate {
  /** Returns a promise only if the token is not remembered and needs a key. Never throws for a bad credential. */
  open(credentials: Credentials, signal?: AbortSignal): Grant | Promise<Grant>;
  /** Resolves when the keys of some issuer are known. Rejects with the reason why there are none. */
  probe(signal?: AbortSignal): Promise<void>;
  /** Each issuer, and how its keys are. */
  issuers(): Readonly<Record<string, KeysState>>;
  /** From now on these keys open links. */
  renewLinks(keys: readonly LinkKey[]): void;
  close(): Promise<void>;
}

/**
 * Whether a grant opens media of this visibility. This one rule covers original,
 * thumbnail, HEAD, Range, 304 and stale copies, in origin and edge. If it says
 * no, `faultOfGrant` makes the answer.
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

/** Whether a grant allows uploads. */
export function mayUpload(grant: Grant): grant is Extract<Grant, { kind: 'caller' }> {
  return grant.kind === 'caller' && grant.caller.scope !== 'read';
}

export function isAdmin(grant: Grant): grant is Extract<Grant, { kind: 'caller' }> {
  return grant.kind === 'caller' && grant.caller.roles.has('admin');
}
