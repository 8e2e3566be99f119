/**
 * What a caller gets who needs the origin: aboard a shared flight, or alone.
 * Turns each way a flight can land into that caller's answer, or into `AGAIN`
 * where what it brought is not for this caller, or is gone.
 */
import { unreachable } from '../../src/errors.js';
import { requestDirectives } from '../../src/http/cache-control.js';
import { viaNames } from '../../src/http/fields.js';
import { planRange } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import type { Fill } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { Answer, ClientSignal } from '../request.js';
import type { ForwardReason } from '../respond/cache-status.js';
import { decide } from '../rfc9111/decide.js';
import { selectedBy } from '../rfc9111/vary.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import {
  type Arriving,
  answerArriving,
  answerEntry,
  answerFailure,
  answerLoop,
  answerSmall,
  answerStale,
  answerStream,
  answerUnauthorized,
  type FetchContext,
} from './answers.js';
import type { Engine } from './engine.js';
import { fetchHead, fetchOwn, fetchPart, fetchWhole } from './fill.js';
import type { Flight, FlightSpec } from './flight.js';
import { type Found, fits } from './lookup.js';
import { type CacheRequest, flightKey, wantsOwn } from './origin-request.js';
import type { FetchResult, SmallAnswer } from './result.js';
import { compareHead } from './revalidate.js';
import { warm } from './warm.js';

/** Look again: what was found or fetched does not serve this caller. */
export const AGAIN = 'again';
export type Again = typeof AGAIN;

type Method = 'GET' | 'HEAD';

/** With others who want the same. */
export async function fetchShared(
  engine: Engine,
  wanted: CacheRequest,
  found: Found,
  reason: ForwardReason,
  client: ClientSignal,
): Promise<Answer | Again> {
  const alone: FetchContext = { engine, wanted, found, forwarding: { reason }, joined: false, client };
  if (isLoop(engine, wanted)) return answerLoop(alone);
  const why = engine.uncacheable.recall(wanted.target.primaryKey);
  if (why !== undefined && found.kind !== 'stored')
    return fetchAlone({ ...alone, forwarding: { reason, detail: why } });
  const choice = chooseFlight(engine, wanted, found, reason);
  if (choice.kind === 'unfit') return fetchAlone({ ...alone, forwarding: { reason, detail: 'fresh-wanted' } });
  const spec = specOf(engine, wanted, entriesOf(found), choice.key, choice.method);
  const joining = engine.flights.joinOrStart(spec, client.gone());
  if (joining.kind === 'full') return overflowing(alone, joining.limit);
  const { flight } = joining;
  const joined = joining.kind === 'joined';
  if (joined) engine.counters.shared.add(1, { kind: flight.isSettled ? 'filling' : 'waiting' });
  return landed({ ...alone, joined }, await flight.result);
}

/** RFC 9110 7.6.3: it has been here before, and would go round until something gives way. */
function isLoop(engine: Engine, { request }: CacheRequest): boolean {
  return viaNames(request.header('via'), engine.identity.edgeName);
}

type FlightChoice =
  /** The flight under way under this key, or a new one. */
  | { readonly kind: 'board'; readonly key: string; readonly method: Method }
  /** There is one, but what it brings began before this caller came and is not fresh enough for it. */
  | { readonly kind: 'unfit' };

/** A GET under way serves a HEAD as well. Callers whom Vary is known to tell apart fly apart (RFC 9111 4.1). */
function chooseFlight(engine: Engine, wanted: CacheRequest, found: Found, reason: ForwardReason): FlightChoice {
  const { flights } = engine;
  const base = flightKey(wanted, 'GET');
  const apart = base + variantOf(wanted, flights.find(base)?.fill?.entry ?? firstOf(found));
  for (const key of apart === base ? [base] : [base, apart]) {
    const flight = flights.find(key);
    if (flight === undefined) continue;
    if (!flight.isSettled) return { kind: 'board', key, method: 'GET' };
    const { fill } = flight;
    if (fill === undefined || !fits(fill.entry, wanted)) continue;
    return suits(engine, wanted, fill, reason) ? { kind: 'board', key, method: 'GET' } : { kind: 'unfit' };
  }
  // Under the key itself something else is on its way: another variant, or what strangers may not see.
  if (flights.find(apart) !== undefined) return { kind: 'unfit' };
  if (wanted.request.method === 'HEAD') return { kind: 'board', key: flightKey(wanted, 'HEAD'), method: 'HEAD' };
  return { kind: 'board', key: apart, method: 'GET' };
}

function variantOf(wanted: CacheRequest, known: Entry | undefined): string {
  if (known === undefined || wanted.fetchAs !== 'client') return '';
  const selected = selectedBy(known.headers, wanted.request);
  return selected === 'never' || Object.keys(selected).length === 0 ? '' : ` ${JSON.stringify(selected)}`;
}

function firstOf(found: Found): Entry | undefined {
  return entriesOf(found)[0];
}

/** Whether a body that began to come before the caller did is fresh enough for it. */
function suits(engine: Engine, wanted: CacheRequest, fill: Fill, reason: ForwardReason): boolean {
  if (reason === 'request' || fill.passing) return false;
  if (wanted.target.mediaId !== null && engine.lease() !== 'yes') return false;
  const { kind } = decide(fill.entry, requestDirectives(wanted.request), engine.clock.now(), engine.deciding);
  return kind === 'hit' || kind === 'hit_stale' || kind === 'stale_while_revalidate';
}

function specOf(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  key: string,
  method: Method,
  background = false,
): FlightSpec<FetchResult> {
  const { primaryKey, mediaId } = wanted.target;
  const run = (flight: Flight<FetchResult>): Promise<FetchResult> =>
    method === 'HEAD' ? fetchHead(engine, wanted, flight) : fetchWhole(engine, wanted, stored, flight);
  return { key, primaryKey, mediaId, background, run };
}

function entriesOf(found: Found): readonly Entry[] {
  switch (found.kind) {
    case 'stored':
      return [found.stored.entry];
    case 'others':
      return found.entries;
    case 'nothing':
      return [];
    default:
      return unreachable(found);
  }
}

/** RFC 5861 3: the stale copy goes out now; one flight sees to a newer one. */
export function revalidateInBackground(engine: Engine, wanted: CacheRequest, entry: Entry): void {
  const key = flightKey(wanted, 'GET') + variantOf(wanted, entry);
  if (engine.flights.find(key) === undefined)
    flyInBackground(engine, specOf(engine, wanted, [entry], key, 'GET', true));
}

/** The body behind a head, for whoever may come. */
function bodySpec(engine: Engine, wanted: CacheRequest): FlightSpec<FetchResult> {
  return specOf(engine, wanted, [], flightKey(wanted, 'GET'), 'GET', true);
}

/** Nobody waits for it: what it brought for one caller alone is thrown away. */
function flyInBackground(engine: Engine, spec: FlightSpec<FetchResult>): void {
  const joining = engine.flights.joinOrStart(spec, undefined);
  if (joining.kind !== 'started') return;
  void joining.flight.result.then((result) => {
    if (result.kind === 'lone') result.take()?.body.destroy();
  });
}

/**
 * One caller's own request: with its range and conditions where it has some;
 * else for the whole, which is kept if it may be by now.
 */
export async function fetchAlone(context: FetchContext): Promise<Answer> {
  const { engine, wanted, found } = context;
  const own = wantsOwn(wanted.request);
  const result = await flyAlone(context, (flight) =>
    own ? fetchOwn(engine, wanted, flight) : fetchWhole(engine, wanted, entriesOf(found), flight),
  );
  const answer = result === 'full' ? answerFailure(context, 'overloaded') : await landed(context, result);
  return answer === AGAIN ? fetchExactly(context) : answer;
}

/** The request as the caller made it and nothing kept: after this there is no other way to try. */
export async function fetchExactly(context: FetchContext): Promise<Answer> {
  const { engine, wanted } = context;
  if (isLoop(engine, wanted)) return answerLoop(context);
  let result = await flyAlone(context, (flight) => fetchOwn(engine, wanted, flight));
  // What was taken down or purged on the way is asked for as the origin has it now.
  for (let round = 1; round < OWN_ROUNDS_MAX && result !== 'full' && wasRemoved(result); round += 1) {
    result = await flyAlone(context, (flight) => fetchOwn(engine, wanted, flight));
  }
  const answered = result !== 'full' && result.kind === 'lone' ? result.take() : undefined;
  if (answered !== undefined) return streamed(context, answered);
  return failed(context, result !== 'full' && result.kind === 'failed' ? result.failure : 'overloaded');
}

const OWN_ROUNDS_MAX = 3;

function wasRemoved(result: FetchResult): boolean {
  return result.kind === 'ended' && (result.why === 'taken_down' || result.why === 'purged');
}

let aloneCount = 0;

async function flyAlone(
  { engine, wanted, client }: FetchContext,
  run: (flight: Flight<FetchResult>) => Promise<FetchResult>,
): Promise<FetchResult | 'full'> {
  aloneCount += 1;
  const { primaryKey, mediaId } = wanted.target;
  const spec = { key: `alone ${aloneCount}`, primaryKey, mediaId, background: false, run };
  const joining = engine.flights.joinOrStart(spec, client.gone());
  return joining.kind === 'full' ? 'full' : await joining.flight.result;
}

function overflowing(context: FetchContext, limit: 'flights' | 'waiters'): Answer | Promise<Answer> {
  const passes = limit === 'waiters' && context.engine.policy().fill.overflow === 'pass';
  if (!passes) return answerFailure(context, 'overloaded');
  return fetchAlone({ ...context, forwarding: { ...context.forwarding, detail: 'overflow' } });
}

function landed(context: FetchContext, result: FetchResult): Answer | Again | Promise<Answer | Again> {
  switch (result.kind) {
    case 'arriving':
      return follow(context, result);
    case 'refreshed':
      return confirmed(context, result.entry);
    case 'head':
      return foundHead(context, result);
    case 'shared':
      return shared(context, result.answer);
    case 'lone':
      return takeLone(context, result);
    case 'failed':
      return failed(context, result.failure);
    case 'ended':
      return wasRemoved(result) ? AGAIN : answerFailure(context, 'overloaded');
    default:
      return unreachable(result);
  }
}

/** A body on its way in: read it as it comes, from wherever this caller wants it. */
function follow(context: FetchContext, result: Arriving): Answer | Again | Promise<Answer | Again> {
  const { engine, wanted, joined } = context;
  const { fill } = result;
  const { entry } = fill;
  if (result.isFinished() || fill.failed || fill.passing || entry.deleteAt <= engine.clock.now()) return AGAIN;
  if (wanted.fetchAs === 'anonymous' && entry.audience !== 'anyone') return answerUnauthorized(context);
  if (!fits(entry, wanted)) return AGAIN;
  const ahead = rangeAhead(context, fill);
  if (ahead !== undefined) return fetchAhead(context, result, ahead);
  if (joined && wanted.request.method === 'GET') engine.warmMarks.used(entry.key);
  return answerArriving(context, result, joined ? 'hit_filling' : 'miss');
}

interface Ahead {
  readonly range: string;
  readonly etag: string;
}

/** RFC 9110 14.2: the one range that begins so far ahead that waiting for it would be longer than asking for it. */
function rangeAhead({ engine, wanted }: FetchContext, fill: Fill): Ahead | undefined {
  const range = wanted.request.header('range');
  const etag = headerOf(fill.entry.headers, 'etag');
  if (range === undefined || fill.sizeBytes === null || fill.entry.status !== 200) return undefined;
  if (etag === undefined || etag.startsWith('W/')) return undefined;
  const plan = planRange(wanted.request, { etag, lastModifiedAt: null }, fill.sizeBytes, { rangesMax: 1 });
  if (plan.kind !== 'single' || plan.span.first - fill.receivedBytes < engine.policy().fill.aheadBytes) {
    return undefined;
  }
  return { range: `bytes=${plan.span.first}-${plan.span.last}`, etag };
}

async function fetchAhead(context: FetchContext, result: Arriving, { range, etag }: Ahead): Promise<Answer | Again> {
  const { engine, wanted } = context;
  const part = await flyAlone(context, (flight) => fetchPart(engine, wanted, { range, etag }, flight));
  const answered = part !== 'full' && part.kind === 'lone' ? part.take() : undefined;
  if (answered?.status === 206 && headerOf(answered.headers, 'etag') === etag) return answerStream(context, answered);
  // An origin that ignores Range, or has another by now: the fill has what was asked for.
  answered?.body.destroy();
  const { fill } = result;
  return result.isFinished() || fill.failed ? AGAIN : answerArriving(context, result, 'hit_filling');
}

/** RFC 9111 4.3.3: 304; the stored copy goes out under its newer head. */
async function confirmed(context: FetchContext, entry: Entry): Promise<Answer | Again> {
  const { engine, wanted, client } = context;
  const stored = engine.cache.peek(entry.key);
  if (stored === undefined) return AGAIN;
  // The newer head may have taken back that anyone may see it.
  if (wanted.fetchAs === 'anonymous' && stored.entry.audience !== 'anyone') return answerUnauthorized(context);
  // Confirmed for the very request that asked: whatever Vary says, it is the answer to that one.
  if (context.joined && !fits(stored.entry, wanted)) return AGAIN;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.gone())) === 'lost') return AGAIN;
  return answerEntry(context, stored.entry, stored.body, 'revalidated', { status: 304, stored: true });
}

function foundHead(context: FetchContext, result: Extract<FetchResult, { kind: 'head' }>): Answer | Again {
  const { engine, wanted, found, joined } = context;
  const { entry, ruleResult, answered } = result;
  if (wanted.fetchAs === 'anonymous' && entry.audience !== 'anyone') return answerUnauthorized(context);
  if (!fits(entry, wanted)) return AGAIN;
  if (!joined) {
    if (found.kind === 'stored') compareHead(engine, wanted, found.stored.entry, answered);
    else warm(engine, wanted, entry, ruleResult, (each) => bodySpec(engine, each));
  }
  return answerEntry(context, entry, null, 'miss', { status: entry.status });
}

/** An answer for one: the first of those who waited takes it, the others go themselves. */
function takeLone(context: FetchContext, result: Extract<FetchResult, { kind: 'lone' }>): Answer | Promise<Answer> {
  const { request } = context.wanted;
  const wantsPart = result.why === 'large' && result.status === 200 && request.header('range') !== undefined;
  const answered = request.method === result.method ? result.take() : undefined;
  if (answered !== undefined && !wantsPart) return streamed(context, answered);
  answered?.body.destroy();
  return fetchExactly({ ...context, forwarding: { ...context.forwarding, detail: result.why } });
}

async function shared(context: FetchContext, answer: SmallAnswer): Promise<Answer> {
  return (await answerStale(context, { kind: 'status', status: answer.status })) ?? answerSmall(context, answer);
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
