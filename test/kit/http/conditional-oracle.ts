/**
 * Conditional requests without a package, written from RFC 9110 13.2.2: the
 * oracle that src/http/conditional.ts is compared with.
 */
import type { EpochMs } from '../../../src/clock.js';
import type { Conditions, RequestHead, Validators } from '../../../src/http/conditional.js';
import { parseHttpDate } from '../../../src/http/date.js';
import { listHasEtag } from '../../../src/http/etag.js';

export function evaluateByOracle(request: RequestHead, stored: Validators): Conditions {
  const { method } = request;
  if (method === 'OPTIONS' || method === 'TRACE' || method === 'CONNECT') return 'proceed';
  const ifMatch = request.header('if-match');
  if (ifMatch !== undefined) {
    if (!names(ifMatch, stored, 'strong')) return 'precondition_failed';
  } else if (isModifiedAfter(request.header('if-unmodified-since'), stored.lastModifiedAt) === true) {
    return 'precondition_failed';
  }
  const reads = method === 'GET' || method === 'HEAD';
  const ifNoneMatch = request.header('if-none-match');
  if (ifNoneMatch !== undefined) {
    if (!names(ifNoneMatch, stored, 'weak')) return 'proceed';
    return reads ? 'not_modified' : 'precondition_failed';
  }
  if (!reads) return 'proceed';
  const modified = isModifiedAfter(request.header('if-modified-since'), stored.lastModifiedAt);
  return modified === false ? 'not_modified' : 'proceed';
}

function names(list: string, stored: Validators, comparison: 'weak' | 'strong'): boolean {
  if (list.trim() === '*') return true;
  return stored.etag !== null && listHasEtag(list, stored.etag, comparison);
}

/** Undefined if there is nothing to compare: no field, no HTTP-date, no date of the representation. */
function isModifiedAfter(value: string | undefined, changedAt: EpochMs | null): boolean | undefined {
  if (value === undefined || changedAt === null) return undefined;
  const at = parseHttpDate(value.trim());
  return at === undefined ? undefined : Math.floor(changedAt / 1_000) * 1_000 > at;
}
