/**
 * Conditional requests (RFC 9110 13): what the conditions of a request come to
 * against the representation that is held. If-Range stands in range.ts, since
 * it decides about the range alone.
 */
import type { EpochMs } from '../clock.js';
import { parseHttpDate } from './date.js';
import { etagsMatchStrongly, listHasEtag } from './etag.js';

/** The part of a request that deciding functions look at. Names are asked for in lower case. */
export interface RequestHead {
  readonly method: string;
  header(name: string): string | undefined;
}

/** The validators of the representation that would be answered. */
export interface Validators {
  /** As sent, quotes and `W/` included. */
  readonly etag: string | null;
  readonly lastModifiedAt: EpochMs | null;
  /**
   * The Date of the answer that carried Last-Modified. Where it is less than a
   * second later, the date is a weak validator (RFC 9110 8.8.2.2). Left out:
   * the holder vouches for it.
   */
  readonly dateAt?: EpochMs | null;
  /**
   * For caches: when a response without Last-Modified was made or received,
   * which If-Modified-Since is compared with then (RFC 9111 4.3.2).
   */
  readonly knownSinceAt?: EpochMs;
}

export type Conditions = 'proceed' | 'not_modified' | 'precondition_failed';

/** In the order of RFC 9110 13.2.2. Call it only where the answer without conditions would be 2xx (13.2.1). */
export function evaluateConditions(request: RequestHead, held: Validators): Conditions {
  const { method } = request;
  // 13.2.1: methods that select no representation ignore conditions.
  if (method === 'OPTIONS' || method === 'TRACE' || method === 'CONNECT') return 'proceed';
  const ifMatch = request.header('if-match');
  if (ifMatch !== undefined) {
    if (!namesHeld(ifMatch, held, 'strong')) return 'precondition_failed';
  } else if (isModifiedAfter(request.header('if-unmodified-since'), held.lastModifiedAt) === true) {
    return 'precondition_failed';
  }
  const reads = method === 'GET' || method === 'HEAD';
  const ifNoneMatch = request.header('if-none-match');
  if (ifNoneMatch !== undefined) {
    if (!namesHeld(ifNoneMatch, held, 'weak')) return 'proceed';
    return reads ? 'not_modified' : 'precondition_failed';
  }
  // 13.1.3: for GET and HEAD only, and never beside If-None-Match.
  if (!reads) return 'proceed';
  const changedAt = held.lastModifiedAt ?? held.knownSinceAt ?? null;
  return isModifiedAfter(request.header('if-modified-since'), changedAt) === false ? 'not_modified' : 'proceed';
}

/**
 * RFC 9110 13.1.5: whether If-Range lets the range count. True without the
 * field; false wherever the validator is weak, malformed or not the held one.
 */
export function ifRangeHolds(request: RequestHead, held: Validators): boolean {
  const value = request.header('if-range');
  if (value === undefined) return true;
  if (value.includes('"')) return held.etag !== null && etagsMatchStrongly(value.trim(), held.etag);
  if (held.lastModifiedAt === null) return false;
  const { dateAt } = held;
  // 8.8.2.2: a date is strong only where the answer is later than its change by a second.
  if (dateAt !== undefined && (dateAt === null || toSecond(dateAt) - toSecond(held.lastModifiedAt) < 1_000)) {
    return false;
  }
  // An exact match, not an order: 13.1.5.
  return parseHttpDate(value.trim()) === toSecond(held.lastModifiedAt);
}

/** 13.1.1 and 13.1.2: `*` names whatever is held, also what has no entity tag. */
function namesHeld(list: string, held: Validators, comparison: 'weak' | 'strong'): boolean {
  if (list.trim() === '*') return true;
  return held.etag !== null && listHasEtag(list, held.etag, comparison);
}

/** Undefined where there is nothing to compare: no field, no HTTP-date, no date held (13.1.3, 13.1.4: ignore the field). */
function isModifiedAfter(value: string | undefined, changedAt: EpochMs | null): boolean | undefined {
  if (value === undefined || changedAt === null) return undefined;
  const at = parseHttpDate(value.trim());
  return at === undefined ? undefined : toSecond(changedAt) > at;
}

/** HTTP-dates know whole seconds only. */
function toSecond(at: EpochMs): EpochMs {
  return Math.floor(at / 1_000) * 1_000;
}
