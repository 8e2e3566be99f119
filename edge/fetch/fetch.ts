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
import type { Answer, Leaving } from '../request.js';
import type { ForwardReason } from '../respond/cache-status.js';
import { decide } from '../rfc9111/decide.js';
import { selectedBy } from '../rfc9111/vary.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import {
  type Fetching,
  type Incoming,
  tellEntry,
  tellFailure,
  tellFilling,
  tellLoop,
  tellStale,
  tellStream,
  tellUnauthorized,
  tellWhole,
} from './answers.js';
import type { Engine } from './engine.js';
import { fetchHead, fetchOwn, fetchPart, fill } from './fill.js';
import type { Flight, FlightOrder } from './flight.js';
import { type Found, fits } from './lookup.js';
import { type Errand, flightKey, wantsOwn } from './origin-request.js';
import type { Landing, WholeAnswer } from './result.js';
import { compareHead } from './revalidate.js';
import { warm } from './warm.js';

/** Look again: what was found or fetched does not serve this caller. */
export const AGAIN = 'again';
export type Again = typeof AGAIN;

type Method = 'GET' | 'HEAD';

/** With others who want the same. */
export async function fetchShared(
  engine: Engine,
  errand: Errand,
  found: Found,
  reason: ForwardReason,
  client: Leaving,
): Promise<Answer | Again> {
  const alone: Fetching = { engine, errand, found, forwarding: { reason }, joined: false, client };
  if (isLoop(engine, errand)) return tellLoop(alone);
  const why = engine.uncacheable.recall(errand.place.primaryKey);
  if (why !== undefined && found.kind !== 'stored')
    return fetchAlone({ ...alone, forwarding: { reason, detail: why } });
  const choice = chooseFlight(engine, errand, found, reason);
  if (choice.kind === 'unfit') return fetchAlone({ ...alone, forwarding: { reason, detail: 'fresh-wanted' } });
  const order = orderOf(engine, errand, askedOf(found), choice.key, choice.method);
  const boarding = engine.flights.board(order, client.leaving());
  if (boarding.kind === 'full') return overflowing(alone, boarding.limit);
  const { flight } = boarding;
  const joined = boarding.kind === 'joined';
  if (joined) engine.counters.shared.add(1, { kind: flight.told ? 'filling' : 'waiting' });
  return landed({ ...alone, joined }, await flight.outcome);
}

/** RFC 9110 7.6.3: it has been here before, and would go round until something gives way. */
function isLoop(engine: Engine, { ask }: Errand): boolean {
  return viaNames(ask.header('via'), engine.identity.edgeName);
}

type FlightChoice =
  /** The flight under way under this key, or a new one. */
  | { readonly kind: 'board'; readonly key: string; readonly method: Method }
  /** There is one, but what it brings began before this caller came and is not fresh enough for it. */
  | { readonly kind: 'unfit' };

/** A GET under way serves a HEAD as well. Callers whom Vary is known to tell apart fly apart (RFC 9111 4.1). */
function chooseFlight(engine: Engine, errand: Errand, found: Found, reason: ForwardReason): FlightChoice {
  const { flights } = engine;
  const base = flightKey(errand, 'GET');
  const apart = base + variantOf(errand, flights.find(base)?.filling?.entry ?? firstOf(found));
  for (const key of apart === base ? [base] : [base, apart]) {
    const flight = flights.find(key);
    if (flight === undefined) continue;
    if (!flight.told) return { kind: 'board', key, method: 'GET' };
    const { filling } = flight;
    if (filling === undefined || !fits(filling.entry, errand)) continue;
    return suits(engine, errand, filling, reason) ? { kind: 'board', key, method: 'GET' } : { kind: 'unfit' };
  }
  // Under the key itself something else is on its way: another variant, or what strangers may not see.
  if (flights.find(apart) !== undefined) return { kind: 'unfit' };
  if (errand.ask.method === 'HEAD') return { kind: 'board', key: flightKey(errand, 'HEAD'), method: 'HEAD' };
  return { kind: 'board', key: apart, method: 'GET' };
}

function variantOf(errand: Errand, known: Entry | undefined): string {
  if (known === undefined || errand.behalf !== 'client') return '';
  const selected = selectedBy(known.headers, errand.ask);
  return selected === 'never' || Object.keys(selected).length === 0 ? '' : ` ${JSON.stringify(selected)}`;
}

function firstOf(found: Found): Entry | undefined {
  return askedOf(found)[0];
}

/** Whether a body that began to come before the caller did is fresh enough for it. */
function suits(engine: Engine, errand: Errand, filling: Fill, reason: ForwardReason): boolean {
  if (reason === 'request' || filling.passing) return false;
  if (errand.place.mediaId !== null && engine.lease() !== 'yes') return false;
  const { kind } = decide(filling.entry, requestDirectives(errand.ask), engine.clock.now(), engine.deciding);
  return kind === 'hit' || kind === 'hit_stale' || kind === 'stale_while_revalidate';
}

function orderOf(
  engine: Engine,
  errand: Errand,
  asked: readonly Entry[],
  key: string,
  method: Method,
  background = false,
): FlightOrder<Landing> {
  const { primaryKey, mediaId } = errand.place;
  const run = (flight: Flight<Landing>): Promise<Landing> =>
    method === 'HEAD' ? fetchHead(engine, errand, flight) : fill(engine, errand, asked, flight);
  return { key, primaryKey, mediaId, background, run };
}

function askedOf(found: Found): readonly Entry[] {
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
export function revalidateInBackground(engine: Engine, errand: Errand, entry: Entry): void {
  const key = flightKey(errand, 'GET') + variantOf(errand, entry);
  if (engine.flights.find(key) === undefined)
    flyInBackground(engine, orderOf(engine, errand, [entry], key, 'GET', true));
}

/** The body behind a head, for whoever may come. */
function bodyOrder(engine: Engine, errand: Errand): FlightOrder<Landing> {
  return orderOf(engine, errand, [], flightKey(errand, 'GET'), 'GET', true);
}

/** Nobody waits for it: what it brought for one caller alone is thrown away. */
function flyInBackground(engine: Engine, order: FlightOrder<Landing>): void {
  const boarding = engine.flights.board(order, undefined);
  if (boarding.kind !== 'started') return;
  void boarding.flight.outcome.then((landing) => {
    if (landing.kind === 'lone') landing.take()?.body.destroy();
  });
}

/**
 * One caller's own request: with its range and conditions where it has some;
 * else for the whole, which is kept if it may be by now.
 */
export async function fetchAlone(fetching: Fetching): Promise<Answer> {
  const { engine, errand, found } = fetching;
  const own = wantsOwn(errand.ask);
  const landing = await flyAlone(fetching, (flight) =>
    own ? fetchOwn(engine, errand, flight) : fill(engine, errand, askedOf(found), flight),
  );
  const answer = landing === 'full' ? tellFailure(fetching, 'overloaded') : await landed(fetching, landing);
  return answer === AGAIN ? fetchExactly(fetching) : answer;
}

/** The request as the caller made it and nothing kept: after this there is no other way to try. */
export async function fetchExactly(fetching: Fetching): Promise<Answer> {
  const { engine, errand } = fetching;
  if (isLoop(engine, errand)) return tellLoop(fetching);
  let landing = await flyAlone(fetching, (flight) => fetchOwn(engine, errand, flight));
  // What was taken down or purged on the way is asked for as the origin has it now.
  for (let round = 1; round < OWN_ROUNDS_MAX && landing !== 'full' && wasRemoved(landing); round += 1) {
    landing = await flyAlone(fetching, (flight) => fetchOwn(engine, errand, flight));
  }
  const answered = landing !== 'full' && landing.kind === 'lone' ? landing.take() : undefined;
  if (answered !== undefined) return streamed(fetching, answered);
  return failed(fetching, landing !== 'full' && landing.kind === 'failed' ? landing.failure : 'overloaded');
}

const OWN_ROUNDS_MAX = 3;

function wasRemoved(landing: Landing): boolean {
  return landing.kind === 'ended' && (landing.why === 'taken_down' || landing.why === 'purged');
}

let aloneCount = 0;

async function flyAlone(
  { engine, errand, client }: Fetching,
  run: (flight: Flight<Landing>) => Promise<Landing>,
): Promise<Landing | 'full'> {
  aloneCount += 1;
  const { primaryKey, mediaId } = errand.place;
  const order = { key: `alone ${aloneCount}`, primaryKey, mediaId, background: false, run };
  const boarding = engine.flights.board(order, client.leaving());
  return boarding.kind === 'full' ? 'full' : await boarding.flight.outcome;
}

function overflowing(fetching: Fetching, limit: 'flights' | 'waiters'): Answer | Promise<Answer> {
  const passes = limit === 'waiters' && fetching.engine.policy().fill.overflow === 'pass';
  if (!passes) return tellFailure(fetching, 'overloaded');
  return fetchAlone({ ...fetching, forwarding: { ...fetching.forwarding, detail: 'overflow' } });
}

function landed(fetching: Fetching, landing: Landing): Answer | Again | Promise<Answer | Again> {
  switch (landing.kind) {
    case 'filling':
      return follow(fetching, landing);
    case 'refreshed':
      return confirmed(fetching, landing.entry);
    case 'head':
      return foundHead(fetching, landing);
    case 'shared':
      return shared(fetching, landing.answer);
    case 'lone':
      return takeLone(fetching, landing);
    case 'failed':
      return failed(fetching, landing.failure);
    case 'ended':
      return wasRemoved(landing) ? AGAIN : tellFailure(fetching, 'overloaded');
    default:
      return unreachable(landing);
  }
}

/** A body on its way in: read it as it comes, from wherever this caller wants it. */
function follow(fetching: Fetching, landing: Incoming): Answer | Again | Promise<Answer | Again> {
  const { engine, errand, joined } = fetching;
  const { filling } = landing;
  const { entry } = filling;
  if (landing.isOver() || filling.failed || filling.passing || entry.deleteAt <= engine.clock.now()) return AGAIN;
  if (errand.behalf === 'anonymous' && entry.audience !== 'anyone') return tellUnauthorized(fetching);
  if (!fits(entry, errand)) return AGAIN;
  const ahead = rangeAhead(fetching, filling);
  if (ahead !== undefined) return fetchAhead(fetching, landing, ahead);
  if (joined && errand.ask.method === 'GET') engine.warming.used(entry.key);
  return tellFilling(fetching, landing, joined ? 'hit_filling' : 'miss');
}

interface Ahead {
  readonly range: string;
  readonly etag: string;
}

/** RFC 9110 14.2: the one range that begins so far ahead that waiting for it would be longer than asking for it. */
function rangeAhead({ engine, errand }: Fetching, filling: Fill): Ahead | undefined {
  const range = errand.ask.header('range');
  const etag = headerOf(filling.entry.headers, 'etag');
  if (range === undefined || filling.sizeBytes === null || filling.entry.status !== 200) return undefined;
  if (etag === undefined || etag.startsWith('W/')) return undefined;
  const plan = planRange(errand.ask, { etag, lastModifiedAt: null }, filling.sizeBytes, { rangesMax: 1 });
  if (plan.kind !== 'single' || plan.span.first - filling.receivedBytes < engine.policy().fill.aheadBytes) {
    return undefined;
  }
  return { range: `bytes=${plan.span.first}-${plan.span.last}`, etag };
}

async function fetchAhead(fetching: Fetching, landing: Incoming, { range, etag }: Ahead): Promise<Answer | Again> {
  const { engine, errand } = fetching;
  const part = await flyAlone(fetching, (flight) => fetchPart(engine, errand, { range, etag }, flight));
  const answered = part !== 'full' && part.kind === 'lone' ? part.take() : undefined;
  if (answered?.status === 206 && headerOf(answered.headers, 'etag') === etag) return tellStream(fetching, answered);
  // An origin that ignores Range, or has another by now: the fill has what was asked for.
  answered?.body.destroy();
  const { filling } = landing;
  return landing.isOver() || filling.failed ? AGAIN : tellFilling(fetching, landing, 'hit_filling');
}

/** RFC 9111 4.3.3: 304; the stored copy goes out under its newer head. */
async function confirmed(fetching: Fetching, entry: Entry): Promise<Answer | Again> {
  const { engine, errand, client } = fetching;
  const stored = engine.cache.peek(entry.key);
  if (stored === undefined) return AGAIN;
  // The newer head may have taken back that anyone may see it.
  if (errand.behalf === 'anonymous' && stored.entry.audience !== 'anyone') return tellUnauthorized(fetching);
  // Confirmed for the very request that asked: whatever Vary says, it is the answer to that one.
  if (fetching.joined && !fits(stored.entry, errand)) return AGAIN;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.leaving())) === 'lost') return AGAIN;
  return tellEntry(fetching, stored.entry, stored.body, 'revalidated', { status: 304, stored: true });
}

function foundHead(fetching: Fetching, landing: Extract<Landing, { kind: 'head' }>): Answer | Again {
  const { engine, errand, found, joined } = fetching;
  const { entry, treatment, answered } = landing;
  if (errand.behalf === 'anonymous' && entry.audience !== 'anyone') return tellUnauthorized(fetching);
  if (!fits(entry, errand)) return AGAIN;
  if (!joined) {
    if (found.kind === 'stored') compareHead(engine, errand, found.stored.entry, answered);
    else warm(engine, errand, entry, treatment, (each) => bodyOrder(engine, each));
  }
  return tellEntry(fetching, entry, null, 'miss', { status: entry.status });
}

/** An answer for one: the first of those who waited takes it, the others go themselves. */
function takeLone(fetching: Fetching, landing: Extract<Landing, { kind: 'lone' }>): Answer | Promise<Answer> {
  const { ask } = fetching.errand;
  const wantsPart = landing.why === 'large' && landing.status === 200 && ask.header('range') !== undefined;
  const answered = ask.method === landing.method ? landing.take() : undefined;
  if (answered !== undefined && !wantsPart) return streamed(fetching, answered);
  answered?.body.destroy();
  return fetchExactly({ ...fetching, forwarding: { ...fetching.forwarding, detail: landing.why } });
}

async function shared(fetching: Fetching, answer: WholeAnswer): Promise<Answer> {
  return (await tellStale(fetching, { kind: 'status', status: answer.status })) ?? tellWhole(fetching, answer);
}

async function streamed(fetching: Fetching, answered: Answered): Promise<Answer> {
  const stale = await tellStale(fetching, { kind: 'status', status: answered.status });
  if (stale === undefined) return tellStream(fetching, answered);
  answered.body.destroy();
  return stale;
}

async function failed(fetching: Fetching, failure: UpstreamFailure): Promise<Answer> {
  return (await tellStale(fetching, { kind: 'none' })) ?? tellFailure(fetching, failure);
}
