/**
 * Validation of what is stored (RFC 9111 4.3): the conditions that a request to
 * the origin carries, which stored responses an answer of 304 or to a HEAD
 * speaks of, and their heads made new. Pure; storing what comes out is up to
 * the caller.
 */
import { etagsMatchStrongly, etagsMatchWeakly, isEtag, isStrongEtag } from '../../src/http/etag.js';
import { endToEnd, fieldValue } from '../../src/http/fields.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import type { ReceivedHead } from './freshness.js';
import { type Storable, type StorableQuestion, storable } from './storable.js';

type Stored = Pick<Entry, 'headers' | 'bornAt'>;

/** As many stored responses as one request asks about; a longer list costs more than it saves. */
const ETAGS_MAX = 8;

/**
 * 4.3.1: the conditions that ask whether one of these stored responses still
 * holds. The one that the request selects: its entity tag and its date. The
 * variants of a target of which it selects none: their entity tags, since a date
 * does not tell variants apart. None where nothing could be asked, so that the
 * request fetches anew.
 *
 * Take the client's own conditions and Range out of the request that these join.
 */
export function preconditions(stored: readonly Stored[], selected: boolean): HeaderList {
  const etags = new Set<string>();
  for (const { headers } of stored) {
    const etag = headerOf(headers, 'etag');
    // As it was sent: an origin that leaves out the quotes may want it back without them.
    if (etag !== undefined && (isEtag(etag) || selected)) etags.add(etag);
  }
  const fields: [string, string][] = [];
  if (etags.size > 0) fields.push(['if-none-match', [...etags].slice(0, ETAGS_MAX).join(', ')]);
  const [only] = stored;
  const modified = selected && only !== undefined ? headerOf(only.headers, 'last-modified') : undefined;
  if (modified !== undefined) fields.push(['if-modified-since', modified]);
  return fields;
}

/** Request fields that must not go on beside `preconditions`: they are judged here, against what comes back. */
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
  /** 4.3.4: it names a representation that is not stored. Nothing may be updated: fetch anew, unconditionally. */
  | { readonly kind: 'contradicts' };

/**
 * 4.3.4: which stored responses a 304 speaks of. `asked` are those that the
 * conditions of its request were made from.
 */
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
  // 4.3.4 speaks of a stored response without a validator only. Many origins leave validators out of a 304; where
  // one response alone was asked about by its own validators, there is no other that it could mean.
  const [only] = asked;
  return only !== undefined && asked.length === 1 ? { kind: 'update', entries: [only] } : { kind: 'contradicts' };
}

/** Whether weak validators are those of a stored response: all that both have are the same, and one is. */
function corresponds(headers: HeaderList, etag: string | undefined, modified: string | undefined): boolean {
  const heldEtag = headerOf(headers, 'etag');
  const heldModified = headerOf(headers, 'last-modified');
  const sameEtag = etag === undefined || heldEtag === undefined || sameValidator(heldEtag, etag);
  const sameModified = modified === undefined || heldModified === undefined || heldModified === modified;
  const compared =
    (etag !== undefined && heldEtag !== undefined) || (modified !== undefined && heldModified !== undefined);
  return compared && sameEtag && sameModified;
}

function sameValidator(held: string, given: string): boolean {
  return held === given || etagsMatchWeakly(held, given);
}

function newestOf<E extends Stored>(entries: readonly E[]): E | undefined {
  return entries.reduce<E | undefined>(
    (best, entry) => (best === undefined || entry.bornAt > best.bornAt ? entry : best),
    undefined,
  );
}

/**
 * 3.2: what the body that is kept depends on stays as it was stored, whatever a
 * newer head says of it.
 */
const NOT_UPDATED: ReadonlySet<string> = new Set([
  'content-digest',
  'content-encoding',
  'content-length',
  'content-md5',
  'content-range',
  'etag',
  'repr-digest',
]);

/** Said of one message, not of the representation: an old one beside a new head would be false. */
const OF_ONE_MESSAGE: ReadonlySet<string> = new Set(['age', 'cache-status', 'date', 'via', 'warning']);

/** 3.2: the stored fields with those of a newer head in their place. A validator that was missing is added. */
export function mergeFields(stored: HeaderList, received: HeaderList): HeaderList {
  const given = endToEnd(received).filter(
    ([name]) => !NOT_UPDATED.has(name) || !stored.some(([held]) => held === name),
  );
  const replaced = new Set(given.map(([name]) => name));
  const kept = stored.filter(([name]) => !replaced.has(name) && !OF_ONE_MESSAGE.has(name));
  return [...kept, ...given];
}

export interface FreshenQuestion extends Omit<StorableQuestion, 'response'> {
  readonly entry: Pick<Entry, 'headers' | 'status' | 'selectedBy'>;
  readonly received: ReceivedHead;
}

/**
 * 4.3.4: the stored response's head made new by a 304, or by an answer to HEAD.
 * `refuse`: the new head forbids to keep it; serve it this once and drop it.
 */
export function freshen({ entry, received, ...question }: FreshenQuestion): Storable {
  const headers = mergeFields(entry.headers, received.headers);
  const outcome = storable({ ...question, response: { ...received, status: entry.status, headers } });
  if (outcome.kind !== 'store') return outcome;
  // What selects it was said by the request that first fetched it, where Vary is still the same.
  const sameVary = fieldValue(headers, 'vary') === fieldValue(entry.headers, 'vary');
  return sameVary ? { kind: 'store', head: { ...outcome.head, selectedBy: entry.selectedBy } } : outcome;
}

export type HeadVerdict =
  /** The stored response is the one that a GET would get: freshen it. */
  | 'freshen'
  /** It is another by now: it counts as stale. */
  | 'stale'
  /** It tells nothing of what is stored. */
  | 'nothing';

/**
 * 4.3.5: what the answer to a HEAD says of a stored response to GET that it could
 * have selected. One with nothing that could be compared may be about anything.
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
  const held = entry.sizeBytes === null ? headerOf(entry.headers, 'content-length') : String(entry.sizeBytes);
  return length === held ? 'freshen' : 'stale';
}
