/**
 * The answers to a caller: from a response of the cache, whether it is stored,
 * arriving or incomplete; from a response of the origin that is not stored; and
 * `refuse`, which builds every refusal of the edge itself.
 */
import { Fault, type FaultCode } from '../../src/errors.js';
import { governingDirectives, requestDirectives } from '../../src/http/cache-control.js';
import { evaluateConditions } from '../../src/http/conditional.js';
import { type HeaderList, headerOf, NO_BODY, type Reply } from '../../src/http/reply.js';
import { offerAsFile } from '../../src/media/disposition.js';
import { maySee } from '../authorize.js';
import type { Body, IncompleteResponse, Stored } from '../cache/cache.js';
import type { Answer, ClientSignal, EdgeRequest, MissReason, Outcome } from '../request.js';
import type { ForwardReason, Handling } from '../respond/cache-status.js';
import { type CachedResponse, refusalReply, relay, respond, spansAnswered } from '../respond/respond.js';
import { type Decision, decideFailure, type OriginFailure } from '../rfc9111/decide.js';
import { missingOf } from '../rfc9111/spans.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import type { CacheRequest } from './cache-request.js';
import type { Engine } from './engine.js';
import { type Found, mayReuse } from './lookup.js';
import type { FetchResult, SmallResponse } from './result.js';

/** Every answer from a response of the cache is built here. */
export function answerWith(
  engine: Engine,
  wanted: CacheRequest,
  response: CachedResponse,
  handling: Handling,
  outcome: Outcome,
): Answer {
  const { request, endsAt } = wanted;
  const { staleAt, mediaId } = response.entry;
  const now = engine.clock.now();
  const cacheStatus = engine.cacheStatus(handling, staleAt - now);
  const reply = respond(request, response, { cacheStatus, endsAt, now }, engine.responding(wanted));
  const offered = mediaId === null ? reply : offerAsFile(reply, request.query);
  const { entry, tier } = response;
  return { kind: 'reply', reply: offered, outcome, mediaId, reason: reasonOf(handling), tier, entry };
}

function reasonOf(handling: Handling): string | undefined {
  return handling.kind === 'forwarded' ? handling.miss : handling.detail;
}

/** A stored response whose body is in memory or has been verified. `stale` names the rule that allows a stale one. */
export function answerStored(
  engine: Engine,
  wanted: CacheRequest,
  stored: Stored,
  stale: 'max-stale' | 'stale-while-revalidate' | undefined,
): Answer {
  if (wanted.request.method === 'GET') engine.warmMarks.used(stored.entry.key);
  const fresh = stored.tier === 'memory' ? 'hit_memory' : 'hit_disk';
  const handling: Handling = { kind: 'hit', detail: stale ?? stored.tier };
  return answerWith(engine, wanted, stored, handling, stale === undefined ? fresh : 'stale');
}

/**
 * RFC 9111 3.3: an incomplete response answers only ranges whose bytes are all
 * stored; never the whole, a 304 or a HEAD. Undefined if it cannot answer.
 */
export function answerIncomplete(
  engine: Engine,
  wanted: CacheRequest,
  { entry, spans, body }: IncompleteResponse,
  decision: Decision,
  client: ClientSignal,
): Answer | undefined {
  if (decision.kind !== 'hit' && decision.kind !== 'hit_stale') return undefined;
  const answered = spansAnswered(wanted.request, entry, entry.sizeBytes, engine.responding(wanted));
  if (answered === undefined || answered.some((span) => missingOf(spans, span).length > 0)) return undefined;
  const fresh = decision.kind === 'hit';
  const handling: Handling = { kind: 'hit', detail: fresh ? 'partial' : 'max-stale' };
  const response: CachedResponse = { entry, body, gone: client.gone() };
  return answerWith(engine, wanted, response, handling, fresh ? 'hit_memory' : 'stale');
}

export interface Forwarding {
  readonly reason: ForwardReason;
  readonly miss: MissReason;
}

/** A caller whose answer comes from the origin. */
export interface FetchContext {
  readonly engine: Engine;
  readonly wanted: CacheRequest;
  readonly client: ClientSignal;
  /** What was stored when the fetch was decided. */
  readonly found: Found;
  /** Why the request goes to the origin, for Cache-Status. */
  readonly forwarding: Forwarding & { readonly detail?: string };
  /** Whether the caller joined the fetch of another. */
  readonly joined: boolean;
}

interface OriginResult {
  /** The status of the origin's response, which may differ from that of the answer. */
  readonly status?: number;
  readonly stored?: boolean;
}

export function forwarded(context: FetchContext, result: OriginResult): Handling {
  const { forwarding, joined } = context;
  const detail = forwarding.detail ?? (leaseForbids(context) ? 'lease' : undefined);
  return { kind: 'forwarded', ...forwarding, ...result, collapsed: joined, detail };
}

/** Whether there is a copy that only the lease keeps from being served. */
function leaseForbids({ engine, found }: FetchContext): boolean {
  return found.kind === 'stored' && !mayReuse(engine, found.stored.entry);
}

export type Arriving = Extract<FetchResult, { kind: 'arriving' }>;

/** An arriving body, or one that has arrived. It is opened with the answer, before anything else can happen to it. */
export function answerArriving(context: FetchContext, result: Arriving, body: Body, outcome: Outcome): Answer {
  const { engine, wanted, client, joined } = context;
  const { fill, status, unstoredFields } = result;
  const response: CachedResponse = {
    entry: fill.entry,
    body,
    gone: client.gone(),
    ...(!joined && wanted.fetchAs === 'client' && { unstoredFields }),
  };
  return answerWith(engine, wanted, response, forwarded(context, { status, stored: fill.mayBeKept }), outcome);
}

/** A small response that is not stored: all who waited get it. */
export function answerSmall(context: FetchContext, response: SmallResponse): Answer {
  if (!maySeeUnstored(context, response)) return answerUnauthorized(context);
  const { request } = context.wanted;
  const body = request.method === 'HEAD' ? NO_BODY : ({ kind: 'bytes', bytes: response.bytes } as const);
  return relayed(context, { ...response, body }, response.status);
}

/** A response that streams through to one caller. */
export function answerStream(context: FetchContext, answered: Answered): Answer {
  const { request } = context.wanted;
  const { status, headers, body, sizeBytes } = answered;
  if (!maySeeUnstored(context, answered)) {
    body.destroy();
    return answerUnauthorized(context);
  }
  // The origin may send the whole although the client has it already (RFC 9110 13.2.2).
  const unchanged = status === 200 && evaluateConditions(request, validatorsIn(headers)) === 'not_modified';
  if (unchanged || request.method === 'HEAD' || status === 304 || status === 204) {
    body.destroy();
    return relayed(context, { status: unchanged ? 304 : status, headers, body: NO_BODY }, status);
  }
  return relayed(context, { status, headers, body: { kind: 'stream', sizeBytes, open: () => body } }, status);
}

/** A response that is not from the cache, as this caller may see it. `status` is that of the origin's response. */
function relayed(context: FetchContext, response: Reply, status: number): Answer {
  const { engine, wanted } = context;
  const { mediaId, pathKind } = wanted.target;
  // A thumbnail may be missing although the media exists.
  if (status === 404 && mediaId !== null && pathKind === 'original') engine.absences.remember(mediaId, 'unknown');
  const cacheStatus = engine.cacheStatus(forwarded(context, { status }));
  const sending = { cacheStatus, endsAt: wanted.endsAt, now: engine.clock.now() };
  const reply = relay(wanted.request, response, sending, engine.responding(wanted));
  const offered = mediaId === null ? reply : offerAsFile(reply, wanted.request.query);
  return { kind: 'reply', reply: offered, outcome: 'miss', mediaId, reason: context.forwarding.miss };
}

function validatorsIn(headers: HeaderList): { etag: string | null; lastModifiedAt: null } {
  return { etag: headerOf(headers, 'etag') ?? null, lastModifiedAt: null };
}

/** As `maySee` for a response that has no entry. Nobody may see the origin's 401: it is about the edge's credential. */
function maySeeUnstored({ engine, wanted }: FetchContext, response: { status: number; headers: HeaderList }): boolean {
  if (wanted.fetchAs === 'client') return true;
  if (response.status === 401) return false;
  if (wanted.fetchAs === 'edge' || !SHOWS_MEDIA.has(response.status)) return true;
  return governingDirectives(response.headers, engine.deciding.targetedFields).directives.public;
}

const SHOWS_MEDIA: ReadonlySet<number> = new Set([200, 203, 206, 304]);

/** RFC 5861 4: the stored response, if it may be served in place of one that failed. Not for media without a lease. */
export async function answerStale(
  { engine, wanted, found, client }: FetchContext,
  failure: OriginFailure,
): Promise<Answer | undefined> {
  if (found.kind !== 'stored') return undefined;
  const { entry } = found.stored;
  if (!mayReuse(engine, entry)) return undefined;
  const now = engine.clock.now();
  const { kind } = decideFailure(entry, failure, requestDirectives(wanted.request), now, engine.deciding);
  if (kind !== 'serve_stale') return undefined;
  // Looked up again: it may have been taken down since, or may no longer be public.
  const stored = engine.cache.peek(entry.key);
  if (stored === undefined || !maySee(stored.entry, wanted)) return undefined;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.gone())) === 'lost') return undefined;
  return answerWith(engine, wanted, stored, { kind: 'hit', detail: 'stale-if-error' }, 'stale');
}

/** An answer of the edge itself in place of a response. */
export function refuse(
  engine: Engine,
  request: EdgeRequest,
  fault: Fault,
  {
    reason = fault.code,
    cacheStatus,
    outcome = 'refused',
  }: { readonly reason?: string; readonly cacheStatus?: string; readonly outcome?: Outcome } = {},
): Answer {
  engine.counters.refusals.add(1, { reason });
  const reply = refusalReply(request, fault, cacheStatus, engine.identity.edgeName);
  return { kind: 'reply', reply, outcome, mediaId: null, reason };
}

/**
 * The origin requires a credential. The answer depends on the caller's credential
 * alone, so that it is the same for media that are private, gone or never existed.
 */
export function answerUnauthorized(context: FetchContext): Answer {
  const { engine, wanted } = context;
  const { originTarget, mediaId } = wanted.target;
  if (wanted.refusal !== undefined) {
    if (mediaId !== null) engine.absences.remember(mediaId, 'closed');
    return refuse(engine, wanted.request, wanted.refusal());
  }
  engine.log.error({ target: originTarget }, 'the origin does not accept this edge: check access.edge_secret');
  return answerFailure(context, 'garbage');
}

/** RFC 9110 7.6.3: the request has passed this edge before, and would go round in a loop. */
export function answerLoop({ engine, wanted }: FetchContext): Answer {
  const fault = new Fault('misdirected', 'The request has been at this cache before.');
  return refuse(engine, wanted.request, fault, { reason: 'loop' });
}

const FAULT_OF: Readonly<Record<UpstreamFailure, FaultCode>> = {
  connect: 'bad_gateway',
  connect_timeout: 'gateway_timeout',
  tls: 'bad_gateway',
  head_timeout: 'gateway_timeout',
  silent: 'gateway_timeout',
  reset: 'bad_gateway',
  garbage: 'bad_gateway',
  outdated: 'bad_gateway',
  breaker_open: 'bad_gateway',
  overloaded: 'overloaded',
  left: 'overloaded',
};

const DETAIL_OF: Readonly<Partial<Record<FaultCode, string>>> = {
  bad_gateway: 'The origin gave no usable answer.',
  gateway_timeout: 'The origin did not answer in time.',
  overloaded: 'Too much is under way; try again.',
};

/** A hint only: most failures are over by then, and the breaker protects the origin from clients that come back. */
const RETRY_AFTER = { 'retry-after': '1' };

export function answerFailure(context: FetchContext, failure: UpstreamFailure): Answer {
  const { engine, wanted } = context;
  const code = FAULT_OF[failure];
  const fault = new Fault(code, DETAIL_OF[code] ?? '', { headers: code === 'gateway_timeout' ? {} : RETRY_AFTER });
  const cacheStatus = engine.cacheStatus(forwarded(context, {}));
  const outcome = code === 'overloaded' ? 'refused' : 'failed';
  return refuse(engine, wanted.request, fault, { reason: failure, cacheStatus, outcome });
}
