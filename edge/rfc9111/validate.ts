/**
 * Validation of stored responses (RFC 9111 4.3): the conditions for the request
 * to the origin, which stored responses a 304 or a response to HEAD speaks of, and
 * how it updates their heads. Pure: the caller stores the result.
 */
import { etagsMatchStrongly, etagsMatchWeakly, isEtag, isStrongEtag } from '../../src/http/etag.js';
import { endToEnd, fieldValue } from '../../src/http/fields.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import type { ReceivedHead } from './freshness.js';
import { type Storable, type StorableQuestion, storable } from './storable.js';

type Stored = Pick<Entry, 'headers' | 'bornAt'>;

/** Most entity tags in one request. A longer list would cost more than it saves. */
const ETAGS_MAX = 8;

/**
 * 4.3.1: the conditions that ask whether one of these stored responses is still
 * valid. For the one that the request selects: its entity tag and its date. For
 * variants of which the request selects none: their entity tags, because a date
 * does not distinguish variants. Without validators there are no conditions, and
 * the request fetches anew.
 *
 * The request must not contain the client's own conditions or Range.
 */
export function preconditions(stored: readonly Stored[], selected: boolean): HeaderList {
  const etags = new Set<string>();
  for (const { headers } of stored) {
    const etag = headerOf(headers, 'etag');
    // As it was received: an origin that sends it without quotes may want it back without them.
    if (etag !== undefined && (isEtag(etag) || selected)) etags.add(etag);
  }
  const fields: [string, string][] = [];
  if (etags.size > 0) fields.push(['if-none-match', [...etags].slice(0, ETAGS_MAX).join(', ')]);
  const [only] = stored;
  const modified = selected && only !== undefined ? headerOf(only.headers, 'last-modified') : undefined;
  if (modified !== undefined) fields.push(['if-modified-since', modified]);
  return fields;
}

/** Request fields that are not forwarded beside `preconditions`: this cache evaluates them against the response. */
export const REPLACED_BY_PRECONDITIONS: ReadonlySet<string> = new Set([
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'range',
]);

export type Identified<E> =
  | { readonly kind: 'update'; readonly entries: readonly E[] }
  /** 4.3.4: it names a representation that is not stored. Nothing is updated, and the response is fetched anew. */
  | { readonly kind: 'contradicts' };

/** 4.3.4: which stored responses a 304 speaks of. `asked` are those that its request named in its conditions. */
export function identify<E extends Stored>(asked: readonly E[], received: HeaderList): Identified<E> {
  const etag = headerOf(received, 'etag');
  if (etag !== undefined && isStrongEtag(etag)) {
    const same = asked.filter((entry) => etagsMatchStrongly(headerOf(entry.headers, 'etag') ?? '', etag));
    return same.length > 0 ? { kind: 'update', entries: same } : { kind: 'contradicts' };
  }
  const modified = headerOf(received, 'last-modified');
  if (etag !== undefined || modified !== undefined) {
    const newest = newestOf(asked.filter((entry) => corresponds(entry.headers, etag, modified)));
    return newest === undefined ? { kind: 'contradicts' } : { kind: 'update', entries: [newest] };
  }
  // 4.3.4 has this for a stored response without a validator. Many origins leave validators out of a 304; if one
  // stored response alone was named by its validators, the 304 can mean no other.
  const [only] = asked;
  return only !== undefined && asked.length === 1 ? { kind: 'update', entries: [only] } : { kind: 'contradicts' };
}

/** Whether weak validators match those of a stored response: at least one is in both, and all that are in both are equal. */
function corresponds(headers: HeaderList, etag: string | undefined, modified: string | undefined): boolean {
  const ownEtag = headerOf(headers, 'etag');
  const ownModified = headerOf(headers, 'last-modified');
  const sameEtag = etag === undefined || ownEtag === undefined || sameValidator(ownEtag, etag);
  const sameModified = modified === undefined || ownModified === undefined || ownModified === modified;
  const compared =
    (etag !== undefined && ownEtag !== undefined) || (modified !== undefined && ownModified !== undefined);
  return compared && sameEtag && sameModified;
}

function sameValidator(own: string, given: string): boolean {
  return own === given || etagsMatchWeakly(own, given);
}

function newestOf<E extends Stored>(entries: readonly E[]): E | undefined {
  return entries.reduce<E | undefined>(
    (best, entry) => (best === undefined || entry.bornAt > best.bornAt ? entry : best),
    undefined,
  );
}

/** 3.2: fields that describe the stored body. A newer head does not replace them. */
const NOT_UPDATED: ReadonlySet<string> = new Set([
  'content-digest',
  'content-encoding',
  'content-length',
  'content-md5',
  'content-range',
  'etag',
  'repr-digest',
]);

/** Fields that describe one message, not the representation. Old ones do not stay beside a newer head. */
const OF_ONE_MESSAGE: ReadonlySet<string> = new Set(['age', 'cache-status', 'date', 'via', 'warning']);

/** 3.2: the stored fields, replaced by those of a newer head. A missing validator is added. */
export function mergeFields(stored: HeaderList, received: HeaderList): HeaderList {
  const given = endToEnd(received).filter(
    ([name]) => !NOT_UPDATED.has(name) || !stored.some(([storedName]) => storedName === name),
  );
  const replaced = new Set(given.map(([name]) => name));
  const kept = stored.filter(([name]) => !replaced.has(name) && !OF_ONE_MESSAGE.has(name));
  return [...kept, ...given];
}

export interface FreshenQuestion extends Omit<StorableQuestion, 'response'> {
  readonly entry: Pick<Entry, 'headers' | 'status' | 'selectedBy'>;
  readonly received: ReceivedHead;
}

/** 4.3.4: the head of a stored response, updated by a 304 or a response to HEAD. `refuse`: the new head forbids storing. */
export function freshen({ entry, received, ...question }: FreshenQuestion): Storable {
  const headers = mergeFields(entry.headers, received.headers);
  const outcome = storable({ ...question, response: { ...received, status: entry.status, headers } });
  if (outcome.kind !== 'store') return outcome;
  // Under the same Vary, the fields of the request that first fetched it still select it.
  const sameVary = fieldValue(headers, 'vary') === fieldValue(entry.headers, 'vary');
  return sameVary ? { kind: 'store', head: { ...outcome.head, selectedBy: entry.selectedBy } } : outcome;
}

export type HeadVerdict =
  /** A GET would get the stored response: update it. */
  | 'freshen'
  /** A GET would get another one. */
  | 'stale'
  /** It says nothing about the stored response. */
  | 'nothing';

/**
 * 4.3.5: what the response to a HEAD says about the stored response to a GET. If
 * nothing in them can be compared, the stored one counts as stale.
 */
export function judgeByHead(entry: Pick<Entry, 'headers' | 'sizeBytes'>, received: ReceivedHead): HeadVerdict {
  if (received.status !== 200) return 'nothing';
  let compared = false;
  for (const name of ['etag', 'last-modified']) {
    const given = headerOf(received.headers, name);
    if (given === undefined) continue;
    if (given !== headerOf(entry.headers, name)) return 'stale';
    compared = true;
  }
  const length = headerOf(received.headers, 'content-length');
  if (length === undefined) return compared ? 'freshen' : 'stale';
  const ownLength = entry.sizeBytes === null ? headerOf(entry.headers, 'content-length') : String(entry.sizeBytes);
  return length === ownLength ? 'freshen' : 'stale';
}
