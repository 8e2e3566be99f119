/**
 * What a caller is told of what the origin brought, or did not: the last step
 * of every request that the cache alone could not answer.
 */
import { Fault, type FaultCode } from '../../src/errors.js';
import { governingDirectives, requestDirectives } from '../../src/http/cache-control.js';
import { evaluateConditions } from '../../src/http/conditional.js';
import { type HeaderList, headerOf, NO_BODY, type Reply } from '../../src/http/reply.js';
import type { Body } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { Answer, ClientSignal, Outcome } from '../request.js';
import type { ForwardReason } from '../respond/cache-status.js';
import { type CachedResponse, refuse, relay, respond } from '../respond/respond.js';
import { decideFailure, type OriginFailure } from '../rfc9111/decide.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import type { Engine } from './engine.js';
import type { Found } from './lookup.js';
import type { CacheRequest } from './origin-request.js';
import type { FetchResult, SmallAnswer } from './result.js';

/** Why a request goes towards the origin, for Cache-Status. */
export interface Forwarding {
  readonly reason: ForwardReason;
  readonly detail?: string;
}

/** A caller on the way to an answer from the origin. */
export interface FetchContext {
  readonly engine: Engine;
  readonly wanted: CacheRequest;
  readonly found: Found;
  readonly forwarding: Forwarding;
  /** Whether another had asked for it before. */
  readonly joined: boolean;
  readonly client: ClientSignal;
}

interface OriginResult {
  /** What the origin answered, where that is not what goes out. */
  readonly status?: number;
  readonly stored?: boolean;
}

/** A response that is held, or on its way into the cache; `body` is null for the answer to a HEAD. */
export function answerEntry(
  context: FetchContext,
  entry: Entry,
  body: Body | null,
  outcome: Outcome,
  result: OriginResult,
): Answer {
  const { engine, wanted } = context;
  const now = engine.clock.now();
  const cacheStatus = forwarded(context, { ...result, ttlMs: entry.staleAt - now });
  const response = { entry, body, cacheStatus, endsAt: wanted.endsAt };
  return {
    kind: 'reply',
    reply: respond(wanted.request, response, now, engine.responding()),
    outcome,
    mediaId: entry.mediaId,
  };
}

export type Arriving = Extract<FetchResult, { kind: 'arriving' }>;

/** A body on its way in, taken hold of before anything else can happen to it. */
export function answerArriving(
  context: FetchContext,
  { fill, status, unstoredFields }: Arriving,
  outcome: Outcome,
): Answer {
  const { engine, wanted, client, joined } = context;
  const { entry } = fill;
  const now = engine.clock.now();
  const result = { status, stored: true, ttlMs: entry.staleAt - now };
  const response: CachedResponse = {
    entry,
    body: fill,
    cacheStatus: forwarded(context, result),
    endsAt: wanted.endsAt,
    gone: client.gone(),
    ...(!joined && wanted.fetchAs === 'client' && { unstoredFields }),
  };
  return {
    kind: 'reply',
    reply: respond(wanted.request, response, now, engine.responding()),
    outcome,
    mediaId: entry.mediaId,
  };
}

/** A small answer that is not kept: everybody who waited gets it. */
export function answerSmall(context: FetchContext, answer: SmallAnswer): Answer {
  const { wanted } = context;
  if (isWithheld(context, answer)) return answerUnauthorized(context);
  const body = wanted.request.method === 'HEAD' ? NO_BODY : ({ kind: 'bytes', bytes: answer.bytes } as const);
  return relayed(context, { ...answer, body }, answer.status);
}

/** An answer that streams through for one caller, with nothing kept. */
export function answerStream(context: FetchContext, answered: Answered): Answer {
  const { wanted } = context;
  const { status, headers, body, sizeBytes } = answered;
  if (isWithheld(context, answered)) {
    body.destroy();
    return answerUnauthorized(context);
  }
  // The whole may have come although the caller holds it (RFC 9110 13.2.2).
  const unchanged = status === 200 && evaluateConditions(wanted.request, validatorsIn(headers)) === 'not_modified';
  if (unchanged || wanted.request.method === 'HEAD' || status === 304 || status === 204) {
    body.destroy();
    return relayed(context, { status: unchanged ? 304 : status, headers, body: NO_BODY }, status);
  }
  const stream = { kind: 'stream', sizeBytes, open: () => body } as const;
  return relayed(context, { status, headers, body: stream }, status);
}

/** What is not from the cache, as this caller may see it. `status`: what the origin answered. */
function relayed(context: FetchContext, answer: Reply, status: number): Answer {
  const { engine, wanted } = context;
  const cacheStatus = forwarded(context, { status });
  const reply = relay(wanted.request, answer, cacheStatus, wanted.endsAt, engine.clock.now(), engine.responding());
  return { kind: 'reply', reply, outcome: 'miss', mediaId: wanted.target.mediaId };
}

function validatorsIn(headers: HeaderList): { etag: string | null; lastModifiedAt: null } {
  return { etag: headerOf(headers, 'etag') ?? null, lastModifiedAt: null };
}

/**
 * Whether a caller for media must not have this answer: the origin refuses it,
 * or it is for callers with a credential and came to one without.
 */
function isWithheld({ engine, wanted }: FetchContext, answer: { status: number; headers: HeaderList }): boolean {
  if (wanted.fetchAs === 'client') return false;
  if (answer.status === 401) return true;
  if (wanted.fetchAs !== 'anonymous' || !SHOWS_MEDIA.has(answer.status)) return false;
  return !governingDirectives(answer.headers, engine.deciding.targetedFields).directives.public;
}

const SHOWS_MEDIA: ReadonlySet<number> = new Set([200, 203, 206, 304]);

/**
 * The origin lets nobody see it without a credential. What the caller is told
 * depends on the credential alone, so that it is the same for what is private,
 * gone or was never there.
 */
export function answerUnauthorized(context: FetchContext): Answer {
  const { engine, wanted } = context;
  if (wanted.refusal === undefined) {
    engine.log.error(
      { target: wanted.target.originTarget },
      'the origin does not accept this edge: check access.edge_secret',
    );
    return answerFailure(context, 'garbage');
  }
  const fault = wanted.refusal();
  engine.counters.refusals.add(1, { reason: fault.code });
  const reply = refuse(wanted.request, fault, undefined, engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: 'refused', mediaId: null };
}

/** RFC 5861 4: what is held, where it may stand in for an answer that failed; nothing while the edge is cut off. */
export async function answerStale(
  { engine, wanted, found, client }: FetchContext,
  failure: OriginFailure,
): Promise<Answer | undefined> {
  if (found.kind !== 'stored') return undefined;
  const held = found.stored.entry;
  if (held.mediaId !== null && engine.lease() !== 'yes') return undefined;
  const now = engine.clock.now();
  const { kind } = decideFailure(held, failure, requestDirectives(wanted.request), now, engine.deciding);
  // Looked up again: it may have been taken down since, or be for fewer eyes.
  const stored = kind === 'serve_stale' ? engine.cache.peek(held.key) : undefined;
  if (stored === undefined || (wanted.fetchAs === 'anonymous' && stored.entry.audience !== 'anyone')) return undefined;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.gone())) === 'lost') return undefined;
  const cacheStatus = engine.cacheStatus({ kind: 'hit', ttlMs: stored.entry.staleAt - now, detail: 'stale-if-error' });
  const response = { entry: stored.entry, body: stored.body, cacheStatus, endsAt: wanted.endsAt };
  const reply = respond(wanted.request, response, now, engine.responding());
  return { kind: 'reply', reply, outcome: 'stale', mediaId: stored.entry.mediaId };
}

export function answerLoop({ engine, wanted }: FetchContext): Answer {
  const fault = new Fault('misdirected', 'The request has been at this cache before.');
  engine.counters.refusals.add(1, { reason: 'loop' });
  const reply = refuse(wanted.request, fault, undefined, engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: 'refused', mediaId: null };
}

const FAULT_OF: Readonly<Record<UpstreamFailure, FaultCode>> = {
  connect: 'bad_gateway',
  connect_timeout: 'gateway_timeout',
  tls: 'bad_gateway',
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

/** A hint only: most failures are over by then, and the breaker spares the origin those who come back. */
const RETRY_AFTER_SECONDS = '1';

export function answerFailure(context: FetchContext, failure: UpstreamFailure): Answer {
  const { engine, wanted } = context;
  const code = FAULT_OF[failure];
  const headers: Readonly<Record<string, string>> =
    code === 'gateway_timeout' ? {} : { 'retry-after': RETRY_AFTER_SECONDS };
  const fault = new Fault(code, PUBLIC_WORDS[code] ?? '', { headers });
  engine.counters.refusals.add(1, { reason: failure });
  const reply = refuse(wanted.request, fault, forwarded(context, {}), engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: code === 'overloaded' ? 'refused' : 'failed', mediaId: null };
}

function forwarded(
  { engine, forwarding, joined }: FetchContext,
  result: OriginResult & { readonly ttlMs?: number },
): string {
  return engine.cacheStatus({ kind: 'forwarded', ...forwarding, ...result, collapsed: joined });
}
