/**
 * One fetch from the origin and what becomes of its response: a body that
 * arrives in the cache and is read by all who wait, a 304 for a stored response,
 * a small response that all callers share, or a response for one caller.
 *
 * Promises: never rejects; a fetch that was ended or taken down stores nothing.
 * Leaves to others: whether to fetch (decide.ts), sharing and ending fetches
 * (flight.ts), the body on its way into the cache (store-response.ts), and the
 * answer to the caller (answers.ts).
 */
import type { Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { isOriginError } from '../rfc9111/decide.js';
import type { StoreRefusal } from '../rfc9111/storable.js';
import { type Answered, readAtMost, type UpstreamRequest } from '../upstream/request.js';
import type { CacheRequest } from './cache-request.js';
import {
  assembled,
  type Completable,
  combinedEntry,
  completable,
  gapRequest,
  isGap,
  keepingRange,
} from './complete.js';
import type { Engine } from './engine.js';
import { entryOf, type StoreDecision } from './entry-of.js';
import type { Flight } from './flight.js';
import { headRequest, ownRequest, rangeRequest, wholeRequest } from './origin-request.js';
import type { FetchEnd, FetchResult } from './result.js';
import { refresh } from './revalidate.js';
import { storeResponse } from './store-response.js';
import type { Uncacheable } from './uncacheable.js';

type FetchFlight = Flight<FetchResult>;

/**
 * GET of the whole, to be stored and shared. With `stored` entries, only if none
 * of them is valid any more. Of an incomplete response, only the missing ranges.
 */
export async function fetchWhole(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  flight: FetchFlight,
): Promise<FetchResult> {
  const completing = completable(engine, wanted);
  if (completing !== undefined) return fetchMissing(engine, wanted, completing, flight);
  const answered = await askOrigin(engine, wholeRequest(wanted, stored, engine.identity), flight);
  if (answered.kind !== 'answered') return answered;
  if (answered.status !== 304 || stored.length === 0) return receive(engine, wanted, stored, answered, flight);
  answered.body.destroy();
  const entry = refresh(engine, wanted, stored, answered);
  // The 304 speaks of a response that is not stored, or forbids to store it longer.
  if (entry === undefined) return fetchWhole(engine, wanted, [], flight);
  flight.finish();
  return { kind: 'revalidated', entry };
}

/** RFC 9111 3.4: fetches the missing ranges and joins them with the stored bytes. */
async function fetchMissing(
  engine: Engine,
  wanted: CacheRequest,
  completing: Completable,
  flight: FetchFlight,
): Promise<FetchResult> {
  const { incomplete, gaps } = completing;
  const answered = await askOrigin(engine, gapRequest(wanted, completing, gaps[0], engine.identity), flight);
  if (answered.kind !== 'answered') return answered;
  const combined = isGap(answered, completing, gaps[0])
    ? combinedEntry(engine, wanted, incomplete, answered)
    : undefined;
  if (combined !== undefined) {
    const bytes = assembled(engine, wanted, completing, answered.body, flight);
    return storeResponse(engine, combined.entry, combined.ruleResult, { ...answered, bytes }, flight);
  }
  // An error says nothing about the stored bytes.
  if (isOriginError(answered.status)) return receive(engine, wanted, [], answered, flight);
  engine.cache.incomplete.drop(incomplete.entry.key, 'replaced');
  if (answered.status !== 206 && answered.status !== 416) return receive(engine, wanted, [], answered, flight);
  // A range of another representation, or one that may not be stored.
  answered.body.destroy();
  return fetchWhole(engine, wanted, [], flight);
}

/** HEAD, shared by all callers who send HEAD. */
export async function fetchHead(engine: Engine, wanted: CacheRequest, flight: FetchFlight): Promise<FetchResult> {
  const answered = await askOrigin(engine, headRequest(wanted, engine.identity), flight);
  if (answered.kind !== 'answered') return answered;
  const decision = entryOf(engine, wanted, 'HEAD', answered);
  // As with bodies: in generic mode a head that may not be stored may be about the caller.
  if (decision.kind !== 'store' && wanted.fetchAs === 'client') {
    if (answered.status === 200) engine.uncacheable.remember(wanted.target.primaryKey, 'private');
    flight.close();
    return unshared(answered, 'private', 'HEAD', flight);
  }
  answered.body.destroy();
  flight.finish();
  if (decision.kind === 'store') {
    return { kind: 'head', entry: decision.entry, ruleResult: decision.ruleResult, answered };
  }
  return { kind: 'shared', response: { status: answered.status, headers: answered.headers, bytes: Buffer.alloc(0) } };
}

/** One caller's own request, with its range and conditions. Only the bytes of a range may be stored. */
export async function fetchOwn(engine: Engine, wanted: CacheRequest, flight: FetchFlight): Promise<FetchResult> {
  const answered = await askOrigin(engine, ownRequest(wanted, engine.identity), flight);
  if (answered.kind !== 'answered') return answered;
  const method = wanted.request.method === 'HEAD' ? 'HEAD' : 'GET';
  return unshared(keepingRange(engine, wanted, answered), 'private', method, flight);
}

/** A range of the representation with this entity tag, for one caller. */
export async function fetchRange(
  engine: Engine,
  wanted: CacheRequest,
  { range, etag }: { readonly range: string; readonly etag: string },
  flight: FetchFlight,
): Promise<FetchResult> {
  const answered = await askOrigin(engine, rangeRequest(wanted, range, etag, engine.identity), flight);
  if (answered.kind !== 'answered') return answered;
  return unshared(keepingRange(engine, wanted, answered), 'large', 'GET', flight);
}

/** Sends one request. If there is no response, or the flight was ended meanwhile, the flight is finished. */
async function askOrigin(engine: Engine, request: UpstreamRequest, flight: FetchFlight): Promise<Answered | FetchEnd> {
  const outcome = await engine.upstream.fetch(request, flight.signal);
  if (flight.ended !== undefined) {
    if (outcome.kind === 'answered') outcome.body.destroy();
    flight.finish();
    return { kind: 'ended', why: flight.ended };
  }
  if (outcome.kind === 'answered') return outcome;
  flight.finish();
  return { kind: 'failed', failure: outcome.failure };
}

/** A response to GET: stored if that is allowed, else for those who wait, or for one of them. */
async function receive(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  answered: Answered,
  flight: FetchFlight,
): Promise<FetchResult> {
  const decision = entryOf(engine, wanted, 'GET', answered);
  const now = engine.clock.now();
  // RFC 5861 4: an error does not replace a stored response that may be served in its place.
  const staleServes = isOriginError(answered.status) && stored.some(({ errorUntil }) => now < errorUntil);
  if (decision.kind !== 'store' || staleServes) {
    if (!mayBeTemporary(answered.status)) for (const { key } of stored) engine.cache.drop(key, 'invalidated');
    return withoutStoring(engine, wanted, answered, refusalOf(decision), flight);
  }
  if (answered.sizeBytes !== null && answered.sizeBytes > engine.policy().fill.objectMaxBytes) {
    engine.cache.fates.note(decision.entry.key, 'large');
    return forOneCaller(engine, wanted, answered, 'large', flight);
  }
  const { status, headers, body } = answered;
  const bytes = answered.takeWhole?.() ?? body;
  return storeResponse(engine, decision.entry, decision.ruleResult, { status, headers, bytes }, flight);
}

/** RFC 9111 4.3.3: any other status says that the response that was validated is no longer current. */
function mayBeTemporary(status: number): boolean {
  return isOriginError(status) || status === 408 || status === 429;
}

/** Why a response is not stored. A range is not, because the fetch was for the whole. */
function refusalOf(decision: StoreDecision): StoreRefusal {
  switch (decision.kind) {
    case 'refuse':
      return decision.reason;
    case 'store_range':
      return 'partial';
    case 'store':
      return 'status';
  }
}

/** Small responses are shared by all who wait; others go to one of them. */
async function withoutStoring(
  engine: Engine,
  wanted: CacheRequest,
  answered: Answered,
  refusal: StoreRefusal,
  flight: FetchFlight,
): Promise<FetchResult> {
  engine.counters.notStored.add(1, { reason: refusal });
  engine.cache.fates.note(keyOf(wanted.target.primaryKey, {}), refusal);
  const { status, headers, sizeBytes, body } = answered;
  const { sharedMaxBytes } = engine.policy().fill;
  // Responses that are not media are small even when they give no size.
  const small = sizeBytes === null ? status !== 200 : sizeBytes <= sharedMaxBytes;
  // In generic mode a response that may not be stored may be about the caller: nobody else gets it.
  if (wanted.fetchAs === 'client' || !small) return forOneCaller(engine, wanted, answered, 'private', flight);
  const bytes = await readAtMost(body, sharedMaxBytes);
  flight.finish();
  if (flight.ended !== undefined) return { kind: 'ended', why: flight.ended };
  if (bytes === undefined) return { kind: 'failed', failure: 'reset' };
  return { kind: 'shared', response: { status, headers, bytes } };
}

/** Later callers learn at once that they need requests of their own. */
function forOneCaller(
  engine: Engine,
  wanted: CacheRequest,
  answered: Answered,
  why: Uncacheable,
  flight: FetchFlight,
): FetchResult {
  if (!isOriginError(answered.status)) engine.uncacheable.remember(wanted.target.primaryKey, why);
  flight.close();
  return unshared(answered, why, 'GET', flight);
}

function unshared(answered: Answered, why: Uncacheable, method: 'GET' | 'HEAD', flight: FetchFlight): FetchResult {
  void answered.received.then(() => flight.arrived());
  answered.body.once('close', () => flight.finish());
  let free: Answered | undefined = answered;
  return {
    kind: 'unshared',
    why,
    method,
    status: answered.status,
    take() {
      const taken = free;
      free = undefined;
      return taken;
    },
  };
}
