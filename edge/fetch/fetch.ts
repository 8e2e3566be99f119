/**
 * The miss: a caller whose answer comes from the origin. The caller joins the
 * fetch of others, or starts one, and is answered from its result. If the
 * result does not fit a caller, that caller gets its own fetch, or looks up the
 * cache again.
 */
import { unreachable } from '../../src/errors.js';
import { isLooping } from '../../src/http/fields.js';
import { planRange } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import { maySee } from '../authorize.js';
import type { Body, Fill } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { Answer, ClientSignal } from '../request.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import {
  type Arriving,
  answerArriving,
  answerFailure,
  answerLoop,
  answerSmall,
  answerStale,
  answerStream,
  answerUnauthorized,
  answerWith,
  type FetchContext,
  type Forwarding,
  forwarded,
} from './answers.js';
import type { CacheRequest } from './cache-request.js';
import type { Engine } from './engine.js';
import { fetchOwn, fetchRange, fetchWhole } from './fill.js';
import type { Flight } from './flight.js';
import { entriesOf, joinOrStart } from './join.js';
import { type Found, fits, NOTHING_FOUND } from './lookup.js';
import { wantsOwn } from './origin-request.js';
import type { FetchResult, SmallResponse } from './result.js';
import { compareHead } from './revalidate.js';
import { warm } from './warm.js';

/** What was found or fetched cannot be used for this caller: look up the cache again. */
export const LOOK_AGAIN = { kind: 'look_again' } as const;
export type Attempt = Answer | typeof LOOK_AGAIN;

/** Fetches together with all callers who want the same. `forwarding` says why. */
export async function fetchShared(
  engine: Engine,
  wanted: CacheRequest,
  found: Found,
  forwarding: Forwarding,
  client: ClientSignal,
): Promise<Attempt> {
  const context: FetchContext = { engine, wanted, client, found, forwarding, joined: false };
  if (isLoop(context)) return answerLoop(context);
  const why = engine.uncacheable.recall(wanted.target.primaryKey);
  if (why !== undefined && found.kind !== 'stored') return fetchAlone(withDetail(context, why));
  const joining = joinOrStart(engine, wanted, found, forwarding.reason, client.gone());
  switch (joining.kind) {
    case 'started':
      return answerFrom(context, await joining.flight.result);
    case 'joined':
      engine.counters.shared.add(1, { kind: joining.flight.isSettled ? 'filling' : 'waiting' });
      return answerFrom({ ...context, joined: true }, await joining.flight.result);
    case 'unfit':
      return fetchAlone(withDetail(context, 'fresh-wanted'));
    case 'full': {
      const alone = joining.limit === 'waiters' && engine.policy().fill.overflow === 'pass';
      return alone ? fetchAlone(withDetail(context, 'overflow')) : answerFailure(context, 'overloaded');
    }
    default:
      return unreachable(joining);
  }
}

/**
 * Fetches for this caller alone: with the caller's range and conditions if there
 * are any; otherwise the whole response, which is stored if storing it has become
 * allowed.
 */
async function fetchAlone(context: FetchContext): Promise<Answer> {
  const { engine, wanted, found } = context;
  const own = wantsOwn(wanted.request);
  const result = await flyAlone(context, (flight) =>
    own ? fetchOwn(engine, wanted, flight) : fetchWhole(engine, wanted, entriesOf(found), flight),
  );
  const answer = await answerFrom(context, result);
  return answer.kind === 'look_again' ? fetchExactly(context) : answer;
}

/** Fetches without using the cache, for this caller alone. `detail` says why, for Cache-Status. */
export function fetchBypassing(
  engine: Engine,
  wanted: CacheRequest,
  detail: string,
  client: ClientSignal,
): Promise<Answer> {
  const forwarding = { reason: 'bypass', miss: 'bypass', detail } as const;
  return fetchExactly({ engine, wanted, client, found: NOTHING_FOUND, forwarding, joined: false });
}

/** Fetches exactly what this caller requested, and does not store the whole. There is always an answer. */
async function fetchExactly(context: FetchContext): Promise<Answer> {
  const { engine, wanted } = context;
  if (isLoop(context)) return answerLoop(context);
  for (let round = 1; ; round += 1) {
    const result = await flyAlone(context, (flight) => fetchOwn(engine, wanted, flight));
    // If it was taken down or purged during the fetch, fetch it again: the origin may now answer otherwise.
    if (wasRemoved(result) && round < OWN_ROUNDS_MAX) continue;
    const answered = result.kind === 'unshared' ? result.take() : undefined;
    if (answered !== undefined) return streamed(context, answered);
    return failed(context, result.kind === 'failed' ? result.failure : 'overloaded');
  }
}

const OWN_ROUNDS_MAX = 3;

/** Turns each possible result of a fetch into the answer to this caller. */
function answerFrom(context: FetchContext, result: FetchResult): Attempt | Promise<Attempt> {
  switch (result.kind) {
    case 'arriving':
      return fromArriving(context, result);
    case 'revalidated':
      return fromRevalidation(context, result.entry);
    case 'head':
      return fromHead(context, result);
    case 'shared':
      return fromShared(context, result.response);
    case 'unshared':
      return fromUnshared(context, result);
    case 'failed':
      return failed(context, result.failure);
    case 'ended':
      return wasRemoved(result) ? LOOK_AGAIN : answerFailure(context, 'overloaded');
    default:
      return unreachable(result);
  }
}

/** An arriving body: the caller reads it while it arrives. */
function fromArriving(context: FetchContext, result: Arriving): Attempt | Promise<Attempt> {
  const { engine, wanted, joined } = context;
  const { fill } = result;
  const { entry } = fill;
  const body = result.isFinished() ? storedBody(engine, entry) : fill;
  if (body === undefined || fill.failed || fill.passing || entry.deleteAt <= engine.clock.now()) return LOOK_AGAIN;
  if (!maySee(entry, wanted)) return answerUnauthorized(context);
  if (!fits(entry, wanted)) return LOOK_AGAIN;
  const ahead = rangeAhead(context, fill);
  if (ahead !== undefined) return fetchAhead(context, result, ahead);
  if (joined && wanted.request.method === 'GET') engine.warmMarks.used(entry.key);
  return answerArriving(context, result, body, joined ? 'hit_filling' : 'miss');
}

/** The body of a fill that has ended meanwhile, if it is still what is stored in memory. */
function storedBody({ cache }: Engine, { key, receivedAt }: Entry): Body | undefined {
  const stored = cache.peek(key);
  return stored?.tier === 'memory' && stored.entry.receivedAt === receivedAt ? stored.body : undefined;
}

interface RangeAhead {
  readonly range: string;
  readonly etag: string;
}

/** RFC 9110 14.2: a single range that begins so far ahead of the arrived bytes that fetching it is faster than waiting. */
function rangeAhead({ engine, wanted }: FetchContext, fill: Fill): RangeAhead | undefined {
  const { request } = wanted;
  const { entry, sizeBytes, receivedBytes } = fill;
  const etag = headerOf(entry.headers, 'etag');
  if (request.header('range') === undefined || sizeBytes === null || entry.status !== 200) return undefined;
  if (etag === undefined || etag.startsWith('W/')) return undefined;
  const plan = planRange(request, { etag, lastModifiedAt: null }, sizeBytes, { rangesMax: 1 });
  if (plan.kind !== 'single' || plan.span.first - receivedBytes < engine.policy().fill.aheadBytes) return undefined;
  return { range: `bytes=${plan.span.first}-${plan.span.last}`, etag };
}

async function fetchAhead(context: FetchContext, result: Arriving, ahead: RangeAhead): Promise<Attempt> {
  const { engine, wanted } = context;
  const fetched = await flyAlone(context, (flight) => fetchRange(engine, wanted, ahead, flight));
  const answered = fetched.kind === 'unshared' ? fetched.take() : undefined;
  if (answered?.status === 206 && headerOf(answered.headers, 'etag') === ahead.etag) {
    return answerStream({ ...context, joined: false }, answered);
  }
  // The origin ignores Range, or has another representation by now: the fill brings what was requested.
  answered?.body.destroy();
  return result.isFinished() || result.fill.failed
    ? LOOK_AGAIN
    : answerArriving(context, result, result.fill, 'hit_filling');
}

/** RFC 9111 4.3.3: a 304. The stored response is served under its newer head. */
async function fromRevalidation(context: FetchContext, entry: Entry): Promise<Attempt> {
  const { engine, wanted, client, joined } = context;
  const stored = engine.cache.peek(entry.key);
  if (stored === undefined) return LOOK_AGAIN;
  // The newer head may say that the media is no longer public.
  if (!maySee(stored.entry, wanted)) return answerUnauthorized(context);
  // The 304 is for the request that caused the fetch, whatever Vary says. Others have to fit.
  if (joined && !fits(stored.entry, wanted)) return LOOK_AGAIN;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.gone())) === 'lost') return LOOK_AGAIN;
  return answerWith(engine, wanted, stored, forwarded(context, { status: 304, stored: true }), 'revalidated');
}

function fromHead(context: FetchContext, result: Extract<FetchResult, { kind: 'head' }>): Attempt {
  const { engine, wanted, found, joined } = context;
  const { entry, ruleResult, answered } = result;
  if (!maySee(entry, wanted)) return answerUnauthorized(context);
  if (!fits(entry, wanted)) return LOOK_AGAIN;
  if (!joined) {
    if (found.kind === 'stored') compareHead(engine, wanted, found.stored.entry, answered);
    else warm(engine, wanted, entry, ruleResult);
  }
  return answerWith(engine, wanted, { entry, body: null }, forwarded(context, { status: entry.status }), 'miss');
}

async function fromShared(context: FetchContext, response: SmallResponse): Promise<Answer> {
  return (await answerStale(context, { kind: 'status', status: response.status })) ?? answerSmall(context, response);
}

/** A response for one caller: the first of those who waited takes it, the others fetch for themselves. */
function fromUnshared(context: FetchContext, result: Extract<FetchResult, { kind: 'unshared' }>): Promise<Answer> {
  const { request } = context.wanted;
  const wantsRange = result.why === 'large' && result.status === 200 && request.header('range') !== undefined;
  const answered = request.method === result.method ? result.take() : undefined;
  if (answered !== undefined && !wantsRange) return streamed(context, answered);
  answered?.body.destroy();
  // RFC 9211 2.6: it shares nothing any more.
  return fetchExactly({ ...withDetail(context, result.why), joined: false });
}

async function streamed(context: FetchContext, answered: Answered): Promise<Answer> {
  const stale = await answerStale(context, { kind: 'status', status: answered.status });
  if (stale === undefined) return answerStream(context, answered);
  answered.body.destroy();
  return stale;
}

async function failed(context: FetchContext, failure: UpstreamFailure): Promise<Answer> {
  return (await answerStale(context, { kind: 'none' })) ?? answerFailure(context, failure);
}

let aloneCount = 0;

/** A flight that nobody else can join. */
async function flyAlone(
  { engine, wanted, client }: FetchContext,
  run: (flight: Flight<FetchResult>) => Promise<FetchResult>,
): Promise<FetchResult> {
  aloneCount += 1;
  const { primaryKey, mediaId } = wanted.target;
  const spec = { key: `alone ${aloneCount}`, primaryKey, mediaId, background: false, run };
  const joining = engine.flights.joinOrStart(spec, client.gone());
  return joining.kind === 'full' ? { kind: 'ended', why: 'overloaded' } : await joining.flight.result;
}

/** RFC 9110 7.6.3, RFC 8586. */
function isLoop({ engine, wanted }: FetchContext): boolean {
  return isLooping((name) => wanted.request.header(name), engine.identity.edgeName);
}

function withDetail(context: FetchContext, detail: string): FetchContext {
  return { ...context, forwarding: { ...context.forwarding, detail } };
}

function wasRemoved(result: FetchResult): boolean {
  return result.kind === 'ended' && (result.why === 'taken_down' || result.why === 'purged');
}
