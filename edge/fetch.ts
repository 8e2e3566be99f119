/**
 * What a caller gets who needs the origin: aboard a shared flight, or alone.
 * Turns each way a flight can land into that caller's answer, or into `AGAIN`
 * where what it brought is not for this caller, or is gone.
 */
import { Fault, type FaultCode, unreachable } from '../src/errors.js';
import { requestDirectives } from '../src/http/cache-control.js';
import { evaluateConditions } from '../src/http/conditional.js';
import { planRange } from '../src/http/range.js';
import { headerOf, NO_BODY, type Reply } from '../src/http/reply.js';
import type { Filling } from './cache/cache.js';
import type { Entry } from './cache/entry.js';
import type { ForwardReason } from './cache-status.js';
import { decide, decideFailure, type OriginFailure } from './decide.js';
import type { Answer, Engine, Leaving } from './engine.js';
import { type Errand, flightKey } from './errand.js';
import * as trips from './fill.js';
import type { Flight, FlightOrder } from './flight.js';
import { type Found, fits } from './lookup.js';
import type { Outcome } from './ops/stats.js';
import { refuse, relay, respond } from './respond.js';
import { compareHead } from './revalidate.js';
import type { Answered, UpstreamFailure } from './upstream.js';
import { warm } from './warm.js';

/** Look again: what was found or fetched does not serve this caller. */
export const AGAIN = 'again';
export type Again = typeof AGAIN;

type Landing = trips.Landing;

/** Why a request goes towards the origin, for Cache-Status. */
export interface Forwarding {
  readonly reason: ForwardReason;
  readonly detail?: string;
}

/** A caller on the way to an answer. */
interface Fetching {
  readonly engine: Engine;
  readonly errand: Errand;
  /** What is held and could stand in if the origin fails. */
  readonly held: Entry | undefined;
  readonly forwarding: Forwarding;
  readonly joined: boolean;
  readonly client: Leaving;
}

/** With others who want the same. */
export async function fetchShared(
  engine: Engine,
  errand: Errand,
  found: Found,
  reason: ForwardReason,
  client: Leaving,
): Promise<Answer | Again> {
  const why = engine.fills.uncacheable.recall(errand.place.primaryKey);
  if (why !== undefined && found.kind !== 'stored') {
    return fetchAlone(engine, errand, { reason, detail: why }, client);
  }
  const flight = joinable(engine, errand, reason);
  if (flight === 'unfit') return fetchAlone(engine, errand, { reason, detail: 'fresh-wanted' }, client);
  const boarding = engine.flights.board(flight?.order ?? orderOf(engine, errand, found), client.leaving());
  const held = found.kind === 'stored' ? found.stored.entry : undefined;
  if (boarding.kind === 'full') return overflowing(engine, errand, boarding.limit, { reason }, client);
  const joined = boarding.kind === 'joined';
  if (joined) engine.fills.counters.shared.add(1, { kind: boarding.flight.told ? 'filling' : 'waiting' });
  const landing = await boarding.flight.outcome;
  return landed({ engine, errand, held, forwarding: { reason }, joined, client }, landing);
}

/**
 * The flight under way that this caller may share: that of a GET serves a HEAD
 * as well. `unfit`: there is one, but what it brings began before this caller
 * came and is not fresh enough for it.
 */
function joinable(engine: Engine, errand: Errand, reason: ForwardReason): Flight<Landing> | 'unfit' | undefined {
  const get = engine.flights.find(flightKey(errand, 'GET'));
  const flight = get ?? (errand.ask.method === 'HEAD' ? engine.flights.find(flightKey(errand, 'HEAD')) : undefined);
  if (flight === undefined || !flight.told) return flight;
  if (reason === 'request' || (errand.place.mediaId !== null && engine.lease() !== 'yes')) return 'unfit';
  const { filling } = flight;
  if (filling === undefined || filling.passing) return 'unfit';
  const decision = decide(filling.entry, requestDirectives(errand.ask), engine.clock.now(), engine.deciding);
  return decision.kind === 'hit' || decision.kind === 'stale_while_revalidate' ? flight : 'unfit';
}

function orderOf(engine: Engine, errand: Errand, found: Found, background = false): FlightOrder<Landing> {
  const { place } = errand;
  const method = errand.ask.method === 'HEAD' && !background ? 'HEAD' : 'GET';
  return {
    key: flightKey(errand, method),
    primaryKey: place.primaryKey,
    mediaId: place.mediaId,
    background,
    run: (flight) =>
      method === 'HEAD'
        ? trips.fetchHead(engine.fills, errand, flight)
        : trips.fill(engine.fills, errand, askedOf(found), flight),
  };
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
  if (engine.flights.find(flightKey(errand, 'GET')) !== undefined) return;
  const held: Found = { kind: 'others', entries: [entry] };
  const boarding = engine.flights.board(orderOf(engine, errand, held, true), undefined);
  if (boarding.kind === 'started') void boarding.flight.outcome.then(discard);
}

/** Nobody waits for a background flight: what it brought for one caller alone is thrown away. */
function discard(landing: Landing): void {
  if (landing.kind === 'lone') landing.take()?.body.destroy();
}

/** One caller's own request, with its own range and conditions. */
export async function fetchAlone(
  engine: Engine,
  errand: Errand,
  forwarding: Forwarding,
  client: Leaving,
): Promise<Answer> {
  const landing = await lone(engine, errand, client, (flight) => trips.fetchAlone(engine.fills, errand, flight));
  const fetching: Fetching = { engine, errand, held: undefined, forwarding, joined: false, client };
  if (landing === 'full') return failed(fetching, 'overloaded');
  switch (landing.kind) {
    case 'lone': {
      const answered = landing.take();
      return answered === undefined ? failed(fetching, 'left') : relayed(fetching, answered);
    }
    case 'failed':
      return failed(fetching, landing.failure);
    default:
      return failed(fetching, 'left');
  }
}

let loneFlights = 0;

async function lone(
  engine: Engine,
  errand: Errand,
  client: Leaving,
  run: (flight: Flight<Landing>) => Promise<Landing>,
): Promise<Landing | 'full'> {
  loneFlights += 1;
  const { primaryKey, mediaId } = errand.place;
  const order = { key: `lone ${loneFlights}`, primaryKey, mediaId, background: false, run };
  const boarding = engine.flights.board(order, client.leaving());
  if (boarding.kind === 'full') return 'full';
  return boarding.flight.outcome;
}

function overflowing(
  engine: Engine,
  errand: Errand,
  limit: 'flights' | 'waiters',
  forwarding: Forwarding,
  client: Leaving,
): Answer | Promise<Answer> {
  if (limit === 'waiters' && engine.policy().fill.overflow === 'pass') {
    return fetchAlone(engine, errand, { ...forwarding, detail: 'overflow' }, client);
  }
  const fetching: Fetching = { engine, errand, held: undefined, forwarding, joined: false, client };
  return failed(fetching, 'overloaded');
}

function landed(fetching: Fetching, landing: Landing): Answer | Again | Promise<Answer | Again> {
  switch (landing.kind) {
    case 'filling':
      return follow(fetching, landing.filling);
    case 'refreshed':
      return confirmed(fetching, landing.entry);
    case 'head':
      return toldHead(fetching, landing);
    case 'shared':
      return sharedAnswer(fetching, landing.answer);
    case 'lone':
      return first(fetching, landing);
    case 'failed':
      return instead(fetching, { kind: 'none' }) ?? failed(fetching, landing.failure);
    case 'ended':
      return landing.why === 'taken_down' || landing.why === 'purged' ? AGAIN : failed(fetching, 'overloaded');
    default:
      return unreachable(landing);
  }
}

/** A body on its way in: read it as it comes, from wherever this caller wants it. */
function follow(fetching: Fetching, filling: Filling): Answer | Again | Promise<Answer | Again> {
  const { engine, errand, joined, client } = fetching;
  const { entry } = filling;
  if (filling.failed || !fits(entry, errand)) return AGAIN;
  if (filling.passing) return fetchAlone(engine, errand, { ...fetching.forwarding, detail: 'passing' }, client);
  const ahead = rangeAhead(fetching, filling);
  if (ahead !== undefined) return fetchAhead(fetching, ahead);
  const outcome: Outcome = joined ? 'hit_filling' : 'miss';
  return replied(fetching, entry, filling, outcome, { status: entry.status, stored: true });
}

/** RFC 9110 14.2: the one range that begins so far ahead that waiting for it would be longer than asking for it. */
function rangeAhead({ engine, errand, joined }: Fetching, filling: Filling): Ahead | undefined {
  const range = errand.ask.header('range');
  const etag = headerOf(filling.entry.headers, 'etag');
  if (range === undefined || filling.sizeBytes === null || etag === undefined || etag.startsWith('W/'))
    return undefined;
  const validators = { etag, lastModifiedAt: null };
  const plan = planRange(errand.ask, validators, filling.sizeBytes, { rangesMax: 1 });
  if (plan.kind !== 'single') return undefined;
  // Who is first pays for the whole once: the flight has just begun, and nobody else may want it.
  const received = joined ? filling.receivedBytes : 0;
  if (plan.span.first - received < engine.policy().fill.aheadBytes) return undefined;
  return { range: `bytes=${plan.span.first}-${plan.span.last}`, etag, filling };
}

interface Ahead {
  readonly range: string;
  readonly etag: string;
  readonly filling: Filling;
}

async function fetchAhead(fetching: Fetching, { range, etag, filling }: Ahead): Promise<Answer | Again> {
  const { engine, errand, client } = fetching;
  const landing = await lone(engine, errand, client, (flight) =>
    trips.fetchPart(engine.fills, errand, { range, etag }, flight),
  );
  const answered = landing !== 'full' && landing.kind === 'lone' ? landing.take() : undefined;
  if (answered?.status === 206 && headerOf(answered.headers, 'etag') === etag) return relayed(fetching, answered);
  // An origin that ignores Range, or has another by now: the fill has what was asked for.
  answered?.body.destroy();
  const { entry } = filling;
  if (filling.failed) return AGAIN;
  return replied(fetching, entry, filling, 'hit_filling', { status: entry.status, stored: true });
}

/** RFC 9111 4.3.3: 304; the stored copy goes out under its newer head. */
async function confirmed(fetching: Fetching, entry: Entry): Promise<Answer | Again> {
  const { engine, errand, client } = fetching;
  const stored = engine.fills.cache.peek(entry.key);
  if (stored === undefined || !fits(stored.entry, errand)) return AGAIN;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.leaving())) === 'lost') return AGAIN;
  return replied(fetching, stored.entry, stored.body, 'revalidated', { status: 304, stored: true });
}

function toldHead(fetching: Fetching, landing: Extract<Landing, { kind: 'head' }>): Answer | Again {
  const { engine, errand, held, joined } = fetching;
  const { entry, treatment, answered } = landing;
  if (!fits(entry, errand)) return AGAIN;
  if (!joined) {
    if (held !== undefined) compareHead(engine.fills, errand, held, answered);
    else warm(engine, entry, treatment, orderOf(engine, errand, { kind: 'nothing' }, true));
  }
  return replied(fetching, entry, null, 'miss', { status: entry.status });
}

/** A small answer that is not kept: everybody who waited gets it. */
function sharedAnswer(fetching: Fetching, answer: trips.WholeAnswer): Answer {
  const stale = instead(fetching, { kind: 'status', status: answer.status });
  if (stale !== undefined) return stale;
  const { engine, errand } = fetching;
  if (answer.status === 401 && errand.behalf !== 'client') return unauthorized(fetching);
  const body = errand.ask.method === 'HEAD' ? NO_BODY : ({ kind: 'bytes', bytes: answer.bytes } as const);
  const cacheStatus = forwarded(fetching, { status: answer.status });
  const reply = relay(errand.ask, { ...answer, body }, cacheStatus, engine.responding());
  return { kind: 'reply', reply, outcome: 'miss', mediaId: errand.place.mediaId };
}

/**
 * The origin lets nobody see it without a credential. What the caller is told
 * depends on the credential alone, so that it is the same for what is private,
 * gone or was never there.
 */
function unauthorized(fetching: Fetching): Answer {
  const { engine, errand } = fetching;
  if (errand.refusal === undefined) {
    engine.log.error({ target: errand.place.target }, 'the origin does not accept this edge: check access.edge_secret');
    return failed(fetching, 'garbage');
  }
  const fault = errand.refusal();
  engine.fills.counters.refusals.add(1, { reason: fault.code });
  const reply = refuse(errand.ask, fault, undefined, engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: 'refused', mediaId: null };
}

/** An answer for one: the first of those who waited takes it, the others go themselves. */
function first(fetching: Fetching, landing: Extract<Landing, { kind: 'lone' }>): Answer | Promise<Answer> {
  const { engine, errand, forwarding, client } = fetching;
  const { ask } = errand;
  const wantsPart = landing.why === 'large' && ask.header('range') !== undefined;
  const answered = ask.method === 'GET' ? landing.take() : undefined;
  if (answered === undefined || wantsPart) {
    answered?.body.destroy();
    return fetchAlone(engine, errand, { ...forwarding, detail: landing.why }, client);
  }
  const stale = instead(fetching, { kind: 'status', status: answered.status });
  if (stale === undefined) return relayed(fetching, answered);
  answered.body.destroy();
  return stale;
}

/** An answer that streams through for one caller, with nothing kept. */
function relayed(fetching: Fetching, answered: Answered): Answer {
  const { engine, errand, client } = fetching;
  const { status, headers, body, sizeBytes } = answered;
  if (status === 401 && errand.behalf !== 'client') {
    body.destroy();
    return unauthorized(fetching);
  }
  const cacheStatus = forwarded(fetching, { status });
  const { mediaId } = errand.place;
  // The whole was fetched, whatever condition the caller made (RFC 9110 13.2.2).
  const unchanged = status === 200 && evaluateConditions(errand.ask, validatorsIn(answered)) === 'not_modified';
  if (unchanged || errand.ask.method === 'HEAD' || status === 304 || status === 204) {
    body.destroy();
    const told = { status: unchanged ? 304 : status, headers, body: NO_BODY };
    return {
      kind: 'reply',
      reply: relay(errand.ask, told, cacheStatus, engine.responding()),
      outcome: 'miss',
      mediaId,
    };
  }
  client.leaving().addEventListener('abort', () => body.destroy(), { once: true });
  const stream = { kind: 'stream', sizeBytes, open: () => body } as const;
  const reply = relay(errand.ask, { status, headers, body: stream }, cacheStatus, engine.responding());
  return { kind: 'reply', reply, outcome: 'miss', mediaId };
}

function validatorsIn({ headers }: Answered): { etag: string | null; lastModifiedAt: null } {
  return { etag: headerOf(headers, 'etag') ?? null, lastModifiedAt: null };
}

/** RFC 5861 4: what is held, where it may stand in for an answer that failed; nothing while the edge is cut off. */
function instead(fetching: Fetching, failure: OriginFailure): Answer | undefined {
  const { engine, errand, held } = fetching;
  if (held === undefined || (held.mediaId !== null && engine.lease() !== 'yes')) return undefined;
  const now = engine.clock.now();
  const { kind } = decideFailure(held, failure, requestDirectives(errand.ask), now, engine.deciding);
  const stored = kind === 'serve_stale' ? engine.fills.cache.peek(held.key) : undefined;
  if (stored === undefined) return undefined;
  const cacheStatus = engine.cacheStatus({ kind: 'hit', ttlMs: stored.entry.staleAt - now, detail: 'stale-if-error' });
  const told = { entry: stored.entry, body: stored.body, cacheStatus };
  const reply = respond(errand.ask, told, now, engine.responding());
  return { kind: 'reply', reply, outcome: 'stale', mediaId: stored.entry.mediaId };
}

interface Brought {
  readonly status?: number;
  readonly stored?: boolean;
}

function replied(
  fetching: Fetching,
  entry: Entry,
  body: Filling | Parameters<typeof respond>[1]['body'],
  outcome: Outcome,
  brought: Brought,
): Answer {
  const { engine, errand } = fetching;
  const now = engine.clock.now();
  const told = { entry, body, cacheStatus: forwarded(fetching, { ...brought, ttlMs: entry.staleAt - now }) };
  return { kind: 'reply', reply: respond(errand.ask, told, now, engine.responding()), outcome, mediaId: entry.mediaId };
}

function forwarded({ engine, forwarding, joined }: Fetching, brought: Brought & { readonly ttlMs?: number }): string {
  return engine.cacheStatus({ kind: 'forwarded', ...forwarding, ...brought, collapsed: joined });
}

const FAULT_OF: Readonly<Record<UpstreamFailure, FaultCode>> = {
  connect: 'bad_gateway',
  connect_timeout: 'gateway_timeout',
  head_timeout: 'gateway_timeout',
  reset: 'bad_gateway',
  garbage: 'bad_gateway',
  breaker_open: 'bad_gateway',
  overloaded: 'overloaded',
  left: 'overloaded',
};

const PUBLIC_WORDS: Readonly<Partial<Record<FaultCode, string>>> = {
  bad_gateway: 'The origin gave no usable answer.',
  gateway_timeout: 'The origin did not answer in time.',
  overloaded: 'Too much is under way; try again.',
};

function failed(fetching: Fetching, failure: UpstreamFailure): Answer {
  const { engine, errand } = fetching;
  const code = FAULT_OF[failure];
  const headers: Readonly<Record<string, string>> = code === 'gateway_timeout' ? {} : { 'retry-after': '1' };
  const fault = new Fault(code, PUBLIC_WORDS[code] ?? '', { headers });
  engine.fills.counters.refusals.add(1, { reason: failure });
  const reply: Reply = refuse(errand.ask, fault, forwarded(fetching, {}), engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: code === 'overloaded' ? 'refused' : 'failed', mediaId: null };
}
