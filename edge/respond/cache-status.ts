/**
 * Cache-Status (RFC 9211): how this edge handled a request, as a member of a
 * structured list, after the members of caches nearer to the origin.
 */

import type { MissReason } from '../request.js';

/** RFC 9211 2.2: why a request was forwarded to the origin. */
export type ForwardReason = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'miss' | 'request' | 'stale' | 'partial';

/** What this cache did with a request. */
export type Handling =
  | {
      readonly kind: 'hit';
      /** The tier or the rule, in a word. */
      readonly detail?: string | undefined;
    }
  | {
      readonly kind: 'forwarded';
      readonly reason: ForwardReason;
      /** The same for operators, in more detail. It is not sent. */
      readonly miss?: MissReason | undefined;
      /** The status of the origin's response, if there was one. */
      readonly status?: number | undefined;
      readonly stored?: boolean | undefined;
      /** The request shared the fetch of another. */
      readonly collapsed?: boolean | undefined;
      readonly detail?: string | undefined;
    }
  /** The cache answered by itself, and neither from what it has stored nor after a request. */
  | { readonly kind: 'refused'; readonly detail: string };

/**
 * Makes this cache's member of Cache-Status. `ttlMs` is the lifetime that is
 * left, below 0 for a stale response. Made for one name, so that a hit costs one
 * short string.
 */
export function cacheStatusOf(name: string): (handling: Handling, ttlMs?: number) => string {
  const own = bareItem(name);
  return (handling, ttlMs) => {
    const detail = handling.detail === undefined ? '' : `; detail=${bareItem(handling.detail)}`;
    const ttl = ttlMs === undefined ? '' : `; ttl=${ttlSeconds(ttlMs)}`;
    if (handling.kind === 'refused') return `${own}${detail}`;
    if (handling.kind === 'hit') return `${own}; hit${ttl}${detail}`;
    const { reason, status, stored, collapsed } = handling;
    const answered = status === undefined ? '' : `; fwd-status=${status}`;
    return `${own}; fwd=${reason}${answered}${ttl}${stored === true ? '; stored' : ''}${collapsed === true ? '; collapsed' : ''}${detail}`;
  };
}

/** RFC 9211 2: each cache adds its member after those of the caches nearer to the origin. */
export function joinCacheStatus(upstream: string | undefined, own: string): string {
  return upstream === undefined || upstream === '' ? own : `${upstream}, ${own}`;
}

/** RFC 9651 3.3.1: an integer of at most 15 digits. */
const INTEGER_MAX = 999_999_999_999_999;

function ttlSeconds(ttlMs: number): number {
  const seconds = Math.floor(ttlMs / 1_000);
  return Math.max(-INTEGER_MAX, Math.min(INTEGER_MAX, seconds));
}

const TOKEN = /^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*$/;

/** RFC 9651 3.3.3, 3.3.4: a token if the text is one, else a string, without the characters that a string cannot contain. */
function bareItem(text: string): string {
  if (TOKEN.test(text)) return text;
  return `"${text.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, '\\$&')}"`;
}
