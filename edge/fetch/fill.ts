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
import { type Judged, judge } from './entry-of.js';
import { type Flight, type FlightEnd, FlightEnded } from './flight.js';
import { type Errand, loneFields, partFields, sharedFields } from './origin-request.js';
import type { Landing } from './result.js';
import { refresh } from './revalidate.js';
import type { Treatment } from './rules.js';
import type { Uncacheable } from './uncacheable.js';

/**
 * GET of the whole, to be kept and shared: with `held`, only if that has changed;
 * where a part of it is here, only of what is missing.
 */
export async function fill(
  parts: Engine,
  errand: Errand,
  asked: readonly Entry[],
  flight: Flight<Landing>,
): Promise<Landing> {
  const whole = completable(parts, errand);
  if (whole !== undefined) return complete(parts, errand, whole, flight);
  const headers = sharedFields(errand, asked, parts.identity);
  const outcome = await parts.upstream.fetch(requestOf('GET', errand, headers), flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  if (outcome.status === 304 && asked.length > 0) {
    outcome.body.destroy();
    const entry = refresh(parts, errand, asked, outcome);
    // It speaks of something that is not held, or forbids to hold it on: fetch anew.
    if (entry === undefined) return fill(parts, errand, [], flight);
    flight.land();
    return { kind: 'refreshed', entry };
  }
  return receive(parts, errand, asked, outcome, flight);
}

/** RFC 9111 3.4: what is missing of the whole, joined with what is here. */
async function complete(parts: Engine, errand: Errand, whole: Completable, flight: Flight<Landing>): Promise<Landing> {
  const [gap] = whole.gaps;
  const outcome = await parts.upstream.fetch(gapRequest(errand, whole, gap, parts), flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  const combined = isGap(outcome, whole, gap) ? combinedHead(parts, errand, whole.part, outcome) : undefined;
  if (combined !== undefined) {
    const bytes = assembled(parts, errand, whole, outcome.body, flight);
    return take(parts, combined.entry, combined.treatment, { ...outcome, bytes }, flight);
  }
  // An error says nothing of what is here.
  if (isOriginError(outcome.status)) return receive(parts, errand, [], outcome, flight);
  parts.cache.incomplete.drop(whole.part.entry.key, 'replaced');
  if (outcome.status !== 206 && outcome.status !== 416) return receive(parts, errand, [], outcome, flight);
  // Of another piece than what was here, or not to be kept: fetch the whole.
  outcome.body.destroy();
  return fill(parts, errand, [], flight);
}

/** Interim answers go to the client whose request this is; those who only share it hear nothing of them. */
function requestOf(method: 'GET' | 'HEAD', { ask, place, behalf }: Errand, headers: HeaderList): UpstreamRequest {
  const sent = { method, target: place.target, headers };
  if (behalf !== 'client' || ask.inform === undefined) return sent;
  return { ...sent, onInterim: (status, fields) => ask.inform?.(status, fields) };
}

async function receive(
  parts: Engine,
  errand: Errand,
  asked: readonly Entry[],
  outcome: Answered,
  flight: Flight<Landing>,
): Promise<Landing> {
  const judged = judge(parts, errand, 'GET', outcome);
  const now = parts.clock.now();
  // RFC 5861 4: an error does not take the place of what may be served in its stead.
  const spares = isOriginError(outcome.status) && asked.some((held) => now < held.errorUntil);
  if (judged.kind !== 'store' || spares) {
    if (!mayPass(outcome.status)) for (const { key } of asked) parts.cache.drop(key, 'invalidated');
    return unkept(parts, errand, outcome, refusalOf(judged), flight);
  }
  const { entry, treatment } = judged;
  if (outcome.sizeBytes !== null && outcome.sizeBytes > parts.policy().fill.objectMaxBytes) {
    return handOver(parts, errand, outcome, 'large', flight);
  }
  return take(parts, entry, treatment, { ...outcome, bytes: outcome.body }, flight);
}

/** A body on its way into the cache. */
function take(
  parts: Engine,
  entry: Entry,
  { placement }: Treatment,
  { status, headers, bytes }: Pick<Answered, 'status' | 'headers'> & { readonly bytes: AsyncIterable<Buffer> },
  flight: Flight<Landing>,
): Landing {
  parts.uncacheable.forget(entry.primaryKey);
  const filling = parts.cache.fill(entry, placement);
  if (Object.keys(entry.selectedBy).length > 0) {
    parts.cache.drop(keyOf(entry.primaryKey, {}), 'replaced');
  }
  flight.filling = filling;
  const marked = parts.warming.takeMark(entry.key);
  flight.keepOn = () => flight.order.background || marked || nearlyDone(filling, parts.policy().fill);
  void pump(parts, bytes, filling, flight);
  return { kind: 'filling', filling, status, withheld: notIn(parts, entry, headers), isOver: () => flight.over };
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
function refusalOf(judged: Judged): StoreRefusal {
  switch (judged.kind) {
    case 'refuse':
      return judged.reason;
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
function earlyEnd(outcome: Awaited<ReturnType<Upstream['fetch']>>, flight: Flight<Landing>): Landing | undefined {
  if (flight.signal.aborted) {
    if (outcome.kind === 'answered') outcome.body.destroy();
    flight.land();
    return { kind: 'ended', why: endOf(flight.signal) };
  }
  if (outcome.kind === 'answered') return undefined;
  flight.land();
  return { kind: 'failed', failure: outcome.failure };
}

function endOf(signal: AbortSignal): FlightEnd {
  return signal.reason instanceof FlightEnded ? signal.reason.why : 'closing';
}

/** Not to be kept: small answers go to all who wait, others to one of them. */
async function unkept(
  parts: Engine,
  errand: Errand,
  answered: Answered,
  refusal: StoreRefusal,
  flight: Flight<Landing>,
): Promise<Landing> {
  parts.counters.notStored.add(1, { reason: refusal });
  const { sharedMaxBytes } = parts.policy().fill;
  // What is no media is small, also where its size is not told; else it is no answer of our origin.
  const small = answered.sizeBytes === null ? answered.status !== 200 : answered.sizeBytes <= sharedMaxBytes;
  // In generic mode an answer that may not be kept may be about the caller: it is nobody else's.
  if (errand.behalf === 'client' || !small) return handOver(parts, errand, answered, 'private', flight);
  const bytes = await readAtMost(answered.body, sharedMaxBytes);
  flight.land();
  if (flight.signal.aborted) return { kind: 'ended', why: endOf(flight.signal) };
  if (bytes === undefined) return { kind: 'failed', failure: 'reset' };
  const { status, headers } = answered;
  return { kind: 'shared', answer: { status, headers, bytes }, refusal };
}

/** One caller gets it; others who come are told at once that they must go themselves. */
function handOver(
  parts: Engine,
  errand: Errand,
  answered: Answered,
  why: Uncacheable,
  flight: Flight<Landing>,
): Landing {
  if (!isOriginError(answered.status)) parts.uncacheable.remember(errand.place.primaryKey, why);
  flight.close();
  return lone(answered, why, 'GET', flight);
}

function lone(answered: Answered, why: Uncacheable, method: 'GET' | 'HEAD', flight: Flight<Landing>): Landing {
  answered.body.once('close', () => flight.land());
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
  parts: Engine,
  bytes: AsyncIterable<Buffer>,
  filling: Fill,
  flight: Flight<Landing>,
): Promise<void> {
  let outcome: FillOutcome;
  try {
    for await (const chunk of bytes) {
      await filling.write(chunk);
      if (filling.failed) break;
    }
    const ending = filling.end();
    // Found in memory from now on, while the disk still takes it: nobody need join what is over.
    if (isHeld(parts, filling.entry)) flight.close();
    outcome = await ending;
  } catch (thrown) {
    outcome = await breakOff(parts, filling, flight, thrown);
  }
  flight.land();
  tell(parts, filling.entry, outcome);
}

async function breakOff(parts: Engine, filling: Fill, flight: Flight<Landing>, thrown: unknown): Promise<FillOutcome> {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const reason = flight.signal.aborted ? endOf(flight.signal) : 'origin';
  // Who comes now begins anew, with what is here.
  flight.close();
  if (error instanceof Mismatch) parts.cache.incomplete.drop(filling.entry.key, 'corrupt');
  else if (reason === 'origin' || reason === 'unwanted') await keepBeginning(parts, filling);
  filling.abort(error);
  if (reason === 'origin') parts.log.debug(errorFields(error), 'the origin broke off a body');
  return { kind: 'aborted', reason };
}

function isHeld({ cache }: Engine, entry: Entry): boolean {
  return cache.peek(entry.key)?.entry.receivedAt === entry.receivedAt;
}

function tell(parts: Engine, entry: Entry, outcome: FillOutcome): void {
  parts.counters.fills.add(1, { outcome: outcome.kind });
  if (outcome.kind === 'corrupt') {
    parts.cache.incomplete.drop(entry.key, 'corrupt');
    parts.log.warn({ key: entry.primaryKey, what: outcome.what }, 'the origin sent a body that is not what it said');
  }
}

function nearlyDone(filling: Fill, { finishShare, finishBytes }: FillConfig): boolean {
  const { sizeBytes, receivedBytes } = filling;
  if (sizeBytes === null || filling.passing) return false;
  return receivedBytes >= sizeBytes * finishShare || sizeBytes - receivedBytes <= finishBytes;
}

/** HEAD, for all who ask for it. */
export async function fetchHead(parts: Engine, errand: Errand, flight: Flight<Landing>): Promise<Landing> {
  const headers = sharedFields(errand, [], parts.identity);
  const outcome = await parts.upstream.fetch({ method: 'HEAD', target: errand.place.target, headers }, flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  const judged = judge(parts, errand, 'HEAD', outcome);
  // As with bodies: a head that may not be kept may be about the caller.
  if (judged.kind !== 'store' && errand.behalf === 'client') {
    if (outcome.status === 200) parts.uncacheable.remember(errand.place.primaryKey, 'private');
    flight.close();
    return lone(outcome, 'private', 'HEAD', flight);
  }
  outcome.body.destroy();
  flight.land();
  if (judged.kind === 'store')
    return { kind: 'head', entry: judged.entry, treatment: judged.treatment, answered: outcome };
  const answer = { status: outcome.status, headers: outcome.headers, bytes: Buffer.alloc(0) };
  return { kind: 'shared', answer, refusal: refusalOf(judged) };
}

/** One caller's own request: its range, its conditions, nothing kept. */
export async function fetchOwn(parts: Engine, errand: Errand, flight: Flight<Landing>): Promise<Landing> {
  const method = errand.ask.method === 'HEAD' ? 'HEAD' : 'GET';
  const headers = loneFields(errand, parts.identity);
  const outcome = await parts.upstream.fetch(requestOf(method, errand, headers), flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  return lone(keepingPart(parts, errand, outcome), 'private', method, flight);
}

/** One part of what is arriving, from beyond what has come. */
export async function fetchPart(
  parts: Engine,
  errand: Errand,
  part: { readonly range: string; readonly etag: string },
  flight: Flight<Landing>,
): Promise<Landing> {
  const headers = partFields(errand, part.range, part.etag, parts.identity);
  const outcome = await parts.upstream.fetch({ method: 'GET', target: errand.place.target, headers }, flight.signal);
  const early = earlyEnd(outcome, flight);
  if (early !== undefined || outcome.kind === 'failed') return early ?? { kind: 'failed', failure: 'reset' };
  return lone(keepingPart(parts, errand, outcome), 'large', 'GET', flight);
}
