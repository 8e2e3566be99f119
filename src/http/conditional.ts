/**
 * Conditional requests (RFC 9110 13): compares the conditions of a request with
 * the selected representation.
 *
 * The package fresh compares If-None-Match and If-Modified-Since. What it reads
 * otherwise than RFC 9110 never reaches it: see `namesWeakly` and `isModifiedSince`.
 */
import fresh from 'fresh';
import type { EpochMs } from '../clock.js';
import { parseHttpDate } from './date.js';
import { etagsMatchStrongly, listHasEtag } from './etag.js';

/** The part of a request that conditions and ranges need. Names are in lower case. */
export interface RequestHead {
  readonly method: string;
  header(name: string): string | undefined;
}

/** The validators of the selected representation. */
export interface Validators {
  /** As sent, with quotes and `W/`. */
  readonly etag: string | null;
  readonly lastModifiedAt: EpochMs | null;
  /**
   * The Date of the answer with this Last-Modified. If it is less than a second
   * later, Last-Modified is a weak validator (RFC 9110 8.8.2.2). Left out, it is
   * taken to be strong.
   */
  readonly dateAt?: EpochMs | null;
}

export type Conditions = 'proceed' | 'not_modified' | 'precondition_failed';

/** In the order of RFC 9110 13.2.2. Call it only if the answer without conditions would be 2xx (13.2.1). */
export function evaluateConditions(request: RequestHead, stored: Validators): Conditions {
  const { method } = request;
  // 13.2.1: methods without a selected representation ignore conditions.
  if (method === 'OPTIONS' || method === 'TRACE' || method === 'CONNECT') return 'proceed';
  const ifMatch = request.header('if-match');
  if (ifMatch !== undefined) {
    if (!namesStrongly(ifMatch, stored)) return 'precondition_failed';
  } else if (isKnownModified(request.header('if-unmodified-since'), stored.lastModifiedAt)) {
    return 'precondition_failed';
  }
  const reads = method === 'GET' || method === 'HEAD';
  const ifNoneMatch = request.header('if-none-match');
  if (ifNoneMatch !== undefined) {
    if (!namesWeakly(ifNoneMatch, stored)) return 'proceed';
    return reads ? 'not_modified' : 'precondition_failed';
  }
  // 13.1.3: for GET and HEAD only, and ignored with If-None-Match.
  if (!reads) return 'proceed';
  return isModifiedSince(request.header('if-modified-since'), stored.lastModifiedAt) ? 'proceed' : 'not_modified';
}

/**
 * RFC 9110 13.1.5: whether If-Range allows the range. True without the field;
 * false if its validator is weak, malformed or another one.
 */
export function ifRangeHolds(request: RequestHead, stored: Validators): boolean {
  const value = request.header('if-range');
  if (value === undefined) return true;
  if (value.includes('"')) return stored.etag !== null && etagsMatchStrongly(value.trim(), stored.etag);
  if (stored.lastModifiedAt === null) return false;
  const { dateAt = Number.POSITIVE_INFINITY } = stored;
  // 8.8.2.2: Last-Modified is strong only if Date is at least a second later.
  if (dateAt === null || toSecond(dateAt) - toSecond(stored.lastModifiedAt) < 1_000) return false;
  // 13.1.5: an exact match.
  return parseHttpDate(value.trim()) === toSecond(stored.lastModifiedAt);
}

/** 13.1.1: `*` names every representation, also one without an entity tag. */
function namesStrongly(list: string, { etag }: Validators): boolean {
  return list.trim() === '*' || (etag !== null && listHasEtag(list, etag, 'strong'));
}

/** Entity tags without a comma: fresh divides a list at each one, also inside the quotes. */
const PLAIN_ETAG = /^(?:W\/)?"[!#-+\--~]*"$/;
const PLAIN_LIST = /^(?:W\/)?"[!#-+\--~]*"(?: *, *(?:W\/)?"[!#-+\--~]*")*$/;

/**
 * 13.1.2: the same with weak comparison. fresh sees plain lists and no other
 * field: with Cache-Control it would let `no-cache` undo the condition.
 */
function namesWeakly(list: string, { etag }: Validators): boolean {
  if (list.trim() === '*') return true;
  if (etag === null) return false;
  if (PLAIN_ETAG.test(etag) && PLAIN_LIST.test(list)) return fresh({ 'if-none-match': list }, { etag });
  return listHasEtag(list, etag, 'weak');
}

/**
 * 13.1.3: true also where the field is to be ignored: no HTTP-date in it, or
 * none of the representation. fresh reads dates with Date.parse, which accepts
 * much that is not an HTTP-date and takes the year 49 for 2049. So it is shown
 * both instants in the form that Date.parse reads exactly.
 */
function isModifiedSince(value: string | undefined, changedAt: EpochMs | null): boolean {
  const at = value === undefined ? undefined : parseHttpDate(value.trim());
  if (at === undefined || changedAt === null) return true;
  return !fresh({ 'if-modified-since': exact(at) }, { 'last-modified': exact(toSecond(changedAt)) });
}

function exact(at: EpochMs): string {
  return new Date(at).toISOString();
}

/** 13.1.4: false where the field is to be ignored. */
function isKnownModified(value: string | undefined, changedAt: EpochMs | null): boolean {
  const at = value === undefined ? undefined : parseHttpDate(value.trim());
  return at !== undefined && changedAt !== null && toSecond(changedAt) > at;
}

/** HTTP-dates have whole seconds only. */
function toSecond(at: EpochMs): EpochMs {
  return Math.floor(at / 1_000) * 1_000;
}
