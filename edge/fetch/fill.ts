/**
 * One trip to the origin and what becomes of it: a body that arrives in the
 * cache and is read by all who wait, a stored copy that still holds, a small
 * answer for everybody who asked, or one that is a single caller's own.
 *
 * Promises: never rejects; what was ended or taken down on the way is not kept;
 * a body whose end, length or hash is wrong is never whole for anybody. Leaves
 * to others: whether to go at all (decide.ts), sharing and ending trips
 * (flight.ts), and the answer to the caller (respond.ts).
 */
import { governingDirectives } from '../../src/http/cache-control.js';
import type { HeaderList } from '../../src/http/reply.js';
import { errorFields } from '../../src/log.js';
import type { Fill, FillOutcome } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { isOriginError } from '../rfc9111/decide.js';
import type { StoreRefusal } from '../rfc9111/storable.js';
import { type Answered, readAtMost, type UpstreamRequest } from '../upstream/request.js';
import type { Upstream } from '../upstream/upstream.js';
import {
  assembled,
  type Completable,
  combinedHead,
  completable,
  gapRequest,
  isGap,
  keepBeginning,
  keepingPart,
  Mismatch,
} from './complete.js';
import type { FillConfig } from './config.js';
import type { Engine } from './engine.js';
import { entryOf, type StoreDecision } from './entry-of.js';
import { type Flight, type FlightEnd, FlightEnded } from './flight.js';
import { type CacheRequest, loneFields, partFields, sharedFields } from './origin-request.js';
import type { FetchResult } from './result.js';
import { refresh } from './revalidate.js';
import type { RuleResult } from './rules.js';
import type { Uncacheable } from './uncacheable.js';

/**
 * GET of the whole, to be kept and shared: with `held`, only if that has changed;
 * where a part of it is here, only of what is missing.
 */
export async function fetchWhole(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  const whole = completable(engine, wanted);
  if (whole !== undefined) return complete(engine, wanted, whole, flight);
  const headers = sharedFields(wanted, stored, engine.identity);
  const outcome = await engine.upstream.fetch(requestOf('GET', wanted, headers), flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  if (outcome.status === 304 && stored.length > 0) {
    outcome.body.destroy();
    const entry = refresh(engine, wanted, stored, outcome);
    // It speaks of something that is not held, or forbids to hold it on: fetch anew.
    if (entry === undefined) return fetchWhole(engine, wanted, [], flight);
    flight.finish();
    return { kind: 'refreshed', entry };
  }
  return receive(engine, wanted, stored, outcome, flight);
}

/** RFC 9111 3.4: what is missing of the whole, joined with what is here. */
async function complete(
  engine: Engine,
  wanted: CacheRequest,
  whole: Completable,
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  const [gap] = whole.gaps;
  const outcome = await engine.upstream.fetch(gapRequest(wanted, whole, gap, engine), flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  const combined = isGap(outcome, whole, gap) ? combinedHead(engine, wanted, whole.part, outcome) : undefined;
  if (combined !== undefined) {
    const bytes = assembled(engine, wanted, whole, outcome.body, flight);
    return take(engine, combined.entry, combined.ruleResult, { ...outcome, bytes }, flight);
  }
  // An error says nothing of what is here.
  if (isOriginError(outcome.status)) return receive(engine, wanted, [], outcome, flight);
  engine.cache.incomplete.drop(whole.part.entry.key, 'replaced');
  if (outcome.status !== 206 && outcome.status !== 416) return receive(engine, wanted, [], outcome, flight);
  // Of another piece than what was here, or not to be kept: fetch the whole.
  outcome.body.destroy();
  return fetchWhole(engine, wanted, [], flight);
}

/** Interim answers go to the client whose request this is; those who only share it hear nothing of them. */
function requestOf(
  method: 'GET' | 'HEAD',
  { request, target, fetchAs }: CacheRequest,
  headers: HeaderList,
): UpstreamRequest {
  const sent = { method, target: target.originTarget, headers };
  if (fetchAs !== 'client' || request.inform === undefined) return sent;
  return { ...sent, onInterim: (status, fields) => request.inform?.(status, fields) };
}

async function receive(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  outcome: Answered,
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  const decision = entryOf(engine, wanted, 'GET', outcome);
  const now = engine.clock.now();
  // RFC 5861 4: an error does not take the place of what may be served in its stead.
  const spares = isOriginError(outcome.status) && stored.some((held) => now < held.errorUntil);
  if (decision.kind !== 'store' || spares) {
    if (!mayPass(outcome.status)) for (const { key } of stored) engine.cache.drop(key, 'invalidated');
    return unkept(engine, wanted, outcome, refusalOf(decision), flight);
  }
  const { entry, ruleResult } = decision;
  if (outcome.sizeBytes !== null && outcome.sizeBytes > engine.policy().fill.objectMaxBytes) {
    return handOver(engine, wanted, outcome, 'large', flight);
  }
  return take(engine, entry, ruleResult, { ...outcome, bytes: outcome.body }, flight);
}

/** A body on its way into the cache. */
function take(
  engine: Engine,
  entry: Entry,
  { tiers }: RuleResult,
  { status, headers, bytes }: Pick<Answered, 'status' | 'headers'> & { readonly bytes: AsyncIterable<Buffer> },
  flight: Flight<FetchResult>,
): FetchResult {
  engine.uncacheable.forget(entry.primaryKey);
  const fill = engine.cache.fill(entry, tiers);
  if (Object.keys(entry.selectedBy).length > 0) {
    engine.cache.drop(keyOf(entry.primaryKey, {}), 'replaced');
  }
  flight.fill = fill;
  const marked = engine.warmMarks.takeMark(entry.key);
  flight.keepsGoing = () => flight.spec.background || marked || nearlyDone(fill, engine.policy().fill);
  void pump(engine, bytes, fill, flight);
  return {
    kind: 'arriving',
    fill,
    status,
    unstoredFields: notIn(engine, entry, headers),
    isFinished: () => flight.isFinished,
  };
}

const NONE: HeaderList = [];

/** The fields of an answer that its entry has been stored without. */
function notIn({ storing }: Engine, entry: Entry, headers: HeaderList): HeaderList {
  const { directives } = governingDirectives(headers, storing.freshness.targetedFields);
  const { noCache, private: ofOne } = directives;
  const named = new Set([noCache, ofOne].flatMap((scope) => (typeof scope === 'string' ? [] : scope)));
  if (named.size === 0) return NONE;
  const stored = new Set(entry.headers.map(([name]) => name));
  return headers.filter(([name]) => named.has(name) && !stored.has(name));
}

/** Why what is not stored is not. RFC 9111 3.3: a part that nobody asked for is none that could be told. */
function refusalOf(decision: StoreDecision): StoreRefusal {
  switch (decision.kind) {
    case 'refuse':
      return decision.reason;
    case 'store_part':
      return 'partial';
    case 'store':
      return 'status';
  }
}

/** RFC 9111 4.3.3: any other answer than these says that what was asked about is no longer it. */
function mayPass(status: number): boolean {
  return isOriginError(status) || status === 408 || status === 429;
}

/** How a trip ended before anything usable came. The flight has landed by then. */
function earlyEnd(
  outcome: Awaited<ReturnType<Upstream['fetch']>>,
  flight: Flight<FetchResult>,
): FetchResult | undefined {
  if (flight.signal.aborted) {
    if (outcome.kind === 'answered') outcome.body.destroy();
    flight.finish();
    return { kind: 'ended', why: endOf(flight.signal) };
  }
  if (outcome.kind === 'answered') return undefined;
  flight.finish();
  return { kind: 'failed', failure: outcome.failure };
}

function endOf(signal: AbortSignal): FlightEnd {
  return signal.reason instanceof FlightEnded ? signal.reason.why : 'closing';
}

/** Not to be kept: small answers go to all who wait, others to one of them. */
async function unkept(
  engine: Engine,
  wanted: CacheRequest,
  answered: Answered,
  refusal: StoreRefusal,
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  engine.counters.notStored.add(1, { reason: refusal });
  const { sharedMaxBytes } = engine.policy().fill;
  // What is no media is small, also where its size is not told; else it is no answer of our origin.
  const small = answered.sizeBytes === null ? answered.status !== 200 : answered.sizeBytes <= sharedMaxBytes;
  // In generic mode an answer that may not be kept may be about the caller: it is nobody else's.
  if (wanted.fetchAs === 'client' || !small) return handOver(engine, wanted, answered, 'private', flight);
  const bytes = await readAtMost(answered.body, sharedMaxBytes);
  flight.finish();
  if (flight.signal.aborted) return { kind: 'ended', why: endOf(flight.signal) };
  if (bytes === undefined) return { kind: 'failed', failure: 'reset' };
  const { status, headers } = answered;
  return { kind: 'shared', answer: { status, headers, bytes }, refusal };
}

/** One caller gets it; others who come are told at once that they must go themselves. */
function handOver(
  engine: Engine,
  wanted: CacheRequest,
  answered: Answered,
  why: Uncacheable,
  flight: Flight<FetchResult>,
): FetchResult {
  if (!isOriginError(answered.status)) engine.uncacheable.remember(wanted.target.primaryKey, why);
  flight.close();
  return lone(answered, why, 'GET', flight);
}

function lone(answered: Answered, why: Uncacheable, method: 'GET' | 'HEAD', flight: Flight<FetchResult>): FetchResult {
  answered.body.once('close', () => flight.finish());
  let free: Answered | undefined = answered;
  return {
    kind: 'lone',
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

/** From the origin into the cache, to the end. Whoever reads it does so at their own pace. */
async function pump(
  engine: Engine,
  bytes: AsyncIterable<Buffer>,
  fill: Fill,
  flight: Flight<FetchResult>,
): Promise<void> {
  let outcome: FillOutcome;
  try {
    for await (const chunk of bytes) {
      await fill.write(chunk);
      if (fill.failed) break;
    }
    const ending = fill.end();
    // Found in memory from now on, while the disk still takes it: nobody need join what is over.
    if (isHeld(engine, fill.entry)) flight.close();
    outcome = await ending;
  } catch (thrown) {
    outcome = await breakOff(engine, fill, flight, thrown);
  }
  flight.finish();
  tell(engine, fill.entry, outcome);
}

async function breakOff(
  engine: Engine,
  fill: Fill,
  flight: Flight<FetchResult>,
  thrown: unknown,
): Promise<FillOutcome> {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const reason = flight.signal.aborted ? endOf(flight.signal) : 'origin';
  // Who comes now begins anew, with what is here.
  flight.close();
  if (error instanceof Mismatch) engine.cache.incomplete.drop(fill.entry.key, 'corrupt');
  else if (reason === 'origin' || reason === 'unwanted') await keepBeginning(engine, fill);
  fill.abort(error);
  if (reason === 'origin') engine.log.debug(errorFields(error), 'the origin broke off a body');
  return { kind: 'aborted', reason };
}

function isHeld({ cache }: Engine, entry: Entry): boolean {
  return cache.peek(entry.key)?.entry.receivedAt === entry.receivedAt;
}

function tell(engine: Engine, entry: Entry, outcome: FillOutcome): void {
  engine.counters.fills.add(1, { outcome: outcome.kind });
  if (outcome.kind === 'corrupt') {
    engine.cache.incomplete.drop(entry.key, 'corrupt');
    engine.log.warn({ key: entry.primaryKey, what: outcome.what }, 'the origin sent a body that is not what it said');
  }
}

function nearlyDone(fill: Fill, { finishShare, finishBytes }: FillConfig): boolean {
  const { sizeBytes, receivedBytes } = fill;
  if (sizeBytes === null || fill.passing) return false;
  return receivedBytes >= sizeBytes * finishShare || sizeBytes - receivedBytes <= finishBytes;
}

/** HEAD, for all who ask for it. */
export async function fetchHead(
  engine: Engine,
  wanted: CacheRequest,
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  const headers = sharedFields(wanted, [], engine.identity);
  const outcome = await engine.upstream.fetch(
    { method: 'HEAD', target: wanted.target.originTarget, headers },
    flight.signal,
  );
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  const decision = entryOf(engine, wanted, 'HEAD', outcome);
  // As with bodies: a head that may not be kept may be about the caller.
  if (decision.kind !== 'store' && wanted.fetchAs === 'client') {
    if (outcome.status === 200) engine.uncacheable.remember(wanted.target.primaryKey, 'private');
    flight.close();
    return lone(outcome, 'private', 'HEAD', flight);
  }
  outcome.body.destroy();
  flight.finish();
  if (decision.kind === 'store')
    return { kind: 'head', entry: decision.entry, ruleResult: decision.ruleResult, answered: outcome };
  const answer = { status: outcome.status, headers: outcome.headers, bytes: Buffer.alloc(0) };
  return { kind: 'shared', answer, refusal: refusalOf(decision) };
}

/** One caller's own request: its range, its conditions, nothing kept. */
export async function fetchOwn(
  engine: Engine,
  wanted: CacheRequest,
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  const method = wanted.request.method === 'HEAD' ? 'HEAD' : 'GET';
  const headers = loneFields(wanted, engine.identity);
  const outcome = await engine.upstream.fetch(requestOf(method, wanted, headers), flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  return lone(keepingPart(engine, wanted, outcome), 'private', method, flight);
}

/** One part of what is arriving, from beyond what has come. */
export async function fetchPart(
  engine: Engine,
  wanted: CacheRequest,
  part: { readonly range: string; readonly etag: string },
  flight: Flight<FetchResult>,
): Promise<FetchResult> {
  const headers = partFields(wanted, part.range, part.etag, engine.identity);
  const outcome = await engine.upstream.fetch(
    { method: 'GET', target: wanted.target.originTarget, headers },
    flight.signal,
  );
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  return lone(keepingPart(engine, wanted, outcome), 'large', 'GET', flight);
}
