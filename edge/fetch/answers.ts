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
import type { Answer, Leaving, Outcome } from '../request.js';
import type { ForwardReason } from '../respond/cache-status.js';
import { refuse, relay, respond } from '../respond/respond.js';
import { decideFailure, type OriginFailure } from '../rfc9111/decide.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import type { Engine } from './engine.js';
import type { Found } from './lookup.js';
import type { Errand } from './origin-request.js';
import type { Landing, WholeAnswer } from './result.js';

/** Why a request goes towards the origin, for Cache-Status. */
export interface Forwarding {
  readonly reason: ForwardReason;
  readonly detail?: string;
}

/** A caller on the way to an answer from the origin. */
export interface Fetching {
  readonly engine: Engine;
  readonly errand: Errand;
  readonly found: Found;
  readonly forwarding: Forwarding;
  /** Whether another had asked for it before. */
  readonly joined: boolean;
  readonly client: Leaving;
}

interface Brought {
  /** What the origin answered, where that is not what goes out. */
  readonly status?: number;
  readonly stored?: boolean;
}

/** A response that is held, or on its way into the cache; `body` is null for the answer to a HEAD. */
export function tellEntry(
  fetching: Fetching,
  entry: Entry,
  body: Body | null,
  outcome: Outcome,
  brought: Brought,
): Answer {
  const { engine, errand } = fetching;
  const now = engine.clock.now();
  const cacheStatus = forwarded(fetching, { ...brought, ttlMs: entry.staleAt - now });
  const told = { entry, body, cacheStatus, endsAt: errand.endsAt };
  return { kind: 'reply', reply: respond(errand.ask, told, now, engine.responding()), outcome, mediaId: entry.mediaId };
}

export type Incoming = Extract<Landing, { kind: 'filling' }>;

/** A body on its way in, taken hold of before anything else can happen to it. */
export function tellFilling(fetching: Fetching, { filling, status, withheld }: Incoming, outcome: Outcome): Answer {
  const { engine, errand, client, joined } = fetching;
  const { entry } = filling;
  const now = engine.clock.now();
  const brought = { status, stored: true, ttlMs: entry.staleAt - now };
  const told = {
    entry,
    body: filling,
    cacheStatus: forwarded(fetching, brought),
    endsAt: errand.endsAt,
    leaving: client.leaving(),
    ...(!joined && errand.behalf === 'client' && { withheld }),
  };
  return { kind: 'reply', reply: respond(errand.ask, told, now, engine.responding()), outcome, mediaId: entry.mediaId };
}

/** A small answer that is not kept: everybody who waited gets it. */
export function tellWhole(fetching: Fetching, answer: WholeAnswer): Answer {
  const { errand } = fetching;
  if (isWithheld(fetching, answer)) return tellUnauthorized(fetching);
  const body = errand.ask.method === 'HEAD' ? NO_BODY : ({ kind: 'bytes', bytes: answer.bytes } as const);
  return relayed(fetching, { ...answer, body }, answer.status);
}

/** An answer that streams through for one caller, with nothing kept. */
export function tellStream(fetching: Fetching, answered: Answered): Answer {
  const { errand } = fetching;
  const { status, headers, body, sizeBytes } = answered;
  if (isWithheld(fetching, answered)) {
    body.destroy();
    return tellUnauthorized(fetching);
  }
  // The whole may have come although the caller holds it (RFC 9110 13.2.2).
  const unchanged = status === 200 && evaluateConditions(errand.ask, validatorsIn(headers)) === 'not_modified';
  if (unchanged || errand.ask.method === 'HEAD' || status === 304 || status === 204) {
    body.destroy();
    return relayed(fetching, { status: unchanged ? 304 : status, headers, body: NO_BODY }, status);
  }
  const stream = { kind: 'stream', sizeBytes, open: () => body } as const;
  return relayed(fetching, { status, headers, body: stream }, status);
}

/** What is not from the cache, as this caller may see it. `status`: what the origin answered. */
function relayed(fetching: Fetching, answer: Reply, status: number): Answer {
  const { engine, errand } = fetching;
  const cacheStatus = forwarded(fetching, { status });
  const reply = relay(errand.ask, answer, cacheStatus, errand.endsAt, engine.clock.now(), engine.responding());
  return { kind: 'reply', reply, outcome: 'miss', mediaId: errand.place.mediaId };
}

function validatorsIn(headers: HeaderList): { etag: string | null; lastModifiedAt: null } {
  return { etag: headerOf(headers, 'etag') ?? null, lastModifiedAt: null };
}

/**
 * Whether a caller for media must not have this answer: the origin refuses it,
 * or it is for callers with a credential and came to one without.
 */
function isWithheld({ engine, errand }: Fetching, answer: { status: number; headers: HeaderList }): boolean {
  if (errand.behalf === 'client') return false;
  if (answer.status === 401) return true;
  if (errand.behalf !== 'anonymous' || !SHOWS_MEDIA.has(answer.status)) return false;
  return !governingDirectives(answer.headers, engine.deciding.targetedFields).directives.public;
}

const SHOWS_MEDIA: ReadonlySet<number> = new Set([200, 203, 206, 304]);

/**
 * The origin lets nobody see it without a credential. What the caller is told
 * depends on the credential alone, so that it is the same for what is private,
 * gone or was never there.
 */
export function tellUnauthorized(fetching: Fetching): Answer {
  const { engine, errand } = fetching;
  if (errand.refusal === undefined) {
    engine.log.error({ target: errand.place.target }, 'the origin does not accept this edge: check access.edge_secret');
    return tellFailure(fetching, 'garbage');
  }
  const fault = errand.refusal();
  engine.counters.refusals.add(1, { reason: fault.code });
  const reply = refuse(errand.ask, fault, undefined, engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: 'refused', mediaId: null };
}

/** RFC 5861 4: what is held, where it may stand in for an answer that failed; nothing while the edge is cut off. */
export async function tellStale(
  { engine, errand, found, client }: Fetching,
  failure: OriginFailure,
): Promise<Answer | undefined> {
  if (found.kind !== 'stored') return undefined;
  const held = found.stored.entry;
  if (held.mediaId !== null && engine.lease() !== 'yes') return undefined;
  const now = engine.clock.now();
  const { kind } = decideFailure(held, failure, requestDirectives(errand.ask), now, engine.deciding);
  // Looked up again: it may have been taken down since, or be for fewer eyes.
  const stored = kind === 'serve_stale' ? engine.cache.peek(held.key) : undefined;
  if (stored === undefined || (errand.behalf === 'anonymous' && stored.entry.audience !== 'anyone')) return undefined;
  if (stored.body.whole === undefined && (await stored.body.ensure(client.leaving())) === 'lost') return undefined;
  const cacheStatus = engine.cacheStatus({ kind: 'hit', ttlMs: stored.entry.staleAt - now, detail: 'stale-if-error' });
  const told = { entry: stored.entry, body: stored.body, cacheStatus, endsAt: errand.endsAt };
  const reply = respond(errand.ask, told, now, engine.responding());
  return { kind: 'reply', reply, outcome: 'stale', mediaId: stored.entry.mediaId };
}

export function tellLoop({ engine, errand }: Fetching): Answer {
  const fault = new Fault('misdirected', 'The request has been at this cache before.');
  engine.counters.refusals.add(1, { reason: 'loop' });
  const reply = refuse(errand.ask, fault, undefined, engine.responding().edgeName);
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

export function tellFailure(fetching: Fetching, failure: UpstreamFailure): Answer {
  const { engine, errand } = fetching;
  const code = FAULT_OF[failure];
  const headers: Readonly<Record<string, string>> =
    code === 'gateway_timeout' ? {} : { 'retry-after': RETRY_AFTER_SECONDS };
  const fault = new Fault(code, PUBLIC_WORDS[code] ?? '', { headers });
  engine.counters.refusals.add(1, { reason: failure });
  const reply = refuse(errand.ask, fault, forwarded(fetching, {}), engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: code === 'overloaded' ? 'refused' : 'failed', mediaId: null };
}

function forwarded({ engine, forwarding, joined }: Fetching, brought: Brought & { readonly ttlMs?: number }): string {
  return engine.cacheStatus({ kind: 'forwarded', ...forwarding, ...brought, collapsed: joined });
}
