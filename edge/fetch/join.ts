/**
 * Which fetch a request joins or starts (collapsed forwarding), and the fetches
 * in the background, for which no caller waits.
 */
import { NO_REQUEST_DIRECTIVES, requestDirectives } from '../../src/http/cache-control.js';
import type { Fill } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { ForwardReason } from '../respond/cache-status.js';
import { selectedBy } from '../rfc9111/vary.js';
import type { CacheRequest } from './cache-request.js';
import type { Engine } from './engine.js';
import { fetchHead, fetchWhole } from './fill.js';
import type { Flight, FlightSpec, JoinOutcome } from './flight.js';
import { decideOn, type Found, fits } from './lookup.js';
import type { FetchResult } from './result.js';

type Method = 'GET' | 'HEAD';

export type Joining =
  | JoinOutcome<FetchResult>
  /** A fetch is in progress, but its response began before this caller came and is not fresh enough for it. */
  | { readonly kind: 'unfit' };

/**
 * Joins the fetch in progress that fits the request, or starts one. A GET serves
 * a HEAD too. Requests that Vary is known to tell apart do not share (RFC 9111 4.1).
 */
export function joinOrStart(
  engine: Engine,
  wanted: CacheRequest,
  found: Found,
  reason: ForwardReason,
  gone: AbortSignal,
): Joining {
  const { flights } = engine;
  const stored = entriesOf(found);
  const base = flightKey(wanted, 'GET');
  const varied = base + variantKey(wanted, flights.find(base)?.fill?.entry ?? stored[0]);
  const join = (key: string, method: Method): Joining =>
    flights.joinOrStart(flightSpec(engine, wanted, stored, key, method), gone);

  for (const key of varied === base ? [base] : [base, varied]) {
    const flight = flights.find(key);
    if (flight === undefined) continue;
    if (!flight.isSettled) return join(key, 'GET');
    const { fill } = flight;
    if (fill === undefined || !fits(fill.entry, wanted)) continue;
    return isFreshFor(engine, wanted, fill, reason) ? join(key, 'GET') : { kind: 'unfit' };
  }
  // The key itself is taken by another variant, or by a response that this caller may not see.
  if (flights.find(varied) !== undefined) return { kind: 'unfit' };
  if (wanted.request.method === 'HEAD') return join(flightKey(wanted, 'HEAD'), 'HEAD');
  return join(varied, 'GET');
}

/**
 * Callers who may see public media only never share a fetch with callers who may
 * see more, nor callers who can show only a picture with those who read the 202
 * of a pending thumbnail. Outside media, callers who demand something of caches
 * share only with those who demand the same: the origin may be a cache, and obey.
 */
function flightKey({ request, target, fetchAs }: CacheRequest, method: Method): string {
  const key = `${method} ${fetchAs} ${target.primaryKey}${target.forPicture ? ' picture' : ''}`;
  const demands = fetchAs === 'client' ? requestDirectives(request) : NO_REQUEST_DIRECTIVES;
  return demands === NO_REQUEST_DIRECTIVES ? key : `${key} ${JSON.stringify(demands)}`;
}

/** What distinguishes this request from others, as far as a known response says by Vary. */
function variantKey(wanted: CacheRequest, known: Entry | undefined): string {
  if (known === undefined || wanted.fetchAs !== 'client') return '';
  const selected = selectedBy(known.headers, wanted.request);
  return selected === 'never' || Object.keys(selected).length === 0 ? '' : ` ${JSON.stringify(selected)}`;
}

/** Whether a response that began to arrive before the caller came is fresh enough for it. */
function isFreshFor(engine: Engine, wanted: CacheRequest, fill: Fill, reason: ForwardReason): boolean {
  if (reason === 'request' || fill.passing) return false;
  const { kind } = decideOn(engine, wanted, fill.entry);
  return kind === 'hit' || kind === 'hit_stale' || kind === 'stale_while_revalidate';
}

function flightSpec(
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

/** The stored entries that the origin is asked about. */
export function entriesOf(found: Found): readonly Entry[] {
  switch (found.kind) {
    case 'stored':
      return [found.stored.entry];
    case 'others':
      return found.entries;
    case 'nothing':
      return [];
  }
}

/** RFC 5861 3: the stale response is served now, and one fetch brings a newer one. */
export function revalidateInBackground(engine: Engine, wanted: CacheRequest, entry: Entry): void {
  const key = flightKey(wanted, 'GET') + variantKey(wanted, entry);
  if (engine.flights.find(key) === undefined)
    startInBackground(engine, flightSpec(engine, wanted, [entry], key, 'GET', true));
}

/** Fetches the body behind a head, for later callers. Undefined if it is being fetched already, or at a limit. */
export function fetchInBackground(engine: Engine, wanted: CacheRequest): Flight<FetchResult> | undefined {
  return startInBackground(engine, flightSpec(engine, wanted, [], flightKey(wanted, 'GET'), 'GET', true));
}

function startInBackground(engine: Engine, spec: FlightSpec<FetchResult>): Flight<FetchResult> | undefined {
  const joining = engine.flights.joinOrStart(spec, undefined);
  if (joining.kind !== 'started') return undefined;
  const { flight } = joining;
  void flight.result.then((result) => {
    // A response for one caller is for nobody here.
    if (result.kind === 'unshared') result.take()?.body.destroy();
  });
  return flight;
}
