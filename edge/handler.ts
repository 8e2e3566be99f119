/**
 * One request at the edge, told once:
 * authorize > key > lookup > decide > serve | revalidate | fill | pass | refuse.
 *
 * Answers at once, without a promise, where the gate remembers, the copy lies
 * in memory and nothing needs the origin. Deals in plain values only; what
 * listens and writes is server/node-http.ts.
 */
import { Fault, unreachable } from '../src/errors.js';
import { requestDirectives } from '../src/http/cache-control.js';
import { type Access, authorize } from './authorize.js';
import type { IncompleteResponse, Stored } from './cache/cache.js';
import type { Entry } from './entry.js';
import { findPart } from './fetch/complete.js';
import type { Engine } from './fetch/engine.js';
import { AGAIN, type Again, fetchExactly, fetchShared, revalidateInBackground } from './fetch/fetch.js';
import { type Found, lookUp } from './fetch/lookup.js';
import type { CacheRequest } from './fetch/origin-request.js';
import { serveFromPart } from './fetch/serve-incomplete.js';
import { type CacheTarget, genericTarget, originalTarget, type Target, targetOf, thumbTarget } from './key.js';
import type { Answer, ClientSignal, EdgeRequest, Outcome } from './request.js';
import type { ForwardReason, Handling } from './respond/cache-status.js';
import { refuse, respond } from './respond/respond.js';
import { type Decision, decide, passReason } from './rfc9111/decide.js';

export function handle(engine: Engine, request: EdgeRequest, client: ClientSignal): Answer | Promise<Answer> {
  const target = targetOf(request, engine.targets);
  switch (target.kind) {
    case 'media':
      return handleMedia(engine, request, target, client);
    case 'generic':
      return answer(
        engine,
        { request, target: genericTarget(request.target), fetchAs: 'client', ...UNBOUNDED },
        client,
      );
    case 'invalid_id':
      return refused(engine, request, new Fault('invalid_id', 'A media id is a ULID of 26 characters.'));
    case 'hidden':
      return refused(engine, request, new Fault('not_found', 'There is nothing here.'));
    case 'pass':
      return PASS;
    default:
      return unreachable(target);
  }
}

const UNBOUNDED = { refusal: undefined, endsAt: Number.POSITIVE_INFINITY };
const CUT_OFF = new Fault('cut_off', 'Try again, or another edge.', { headers: { 'retry-after': '1' } });

type MediaTarget = Extract<Target, { kind: 'media' }>;
const PASS: Answer = { kind: 'pass', outcome: 'pass' };

function handleMedia(
  engine: Engine,
  request: EdgeRequest,
  target: MediaTarget,
  client: ClientSignal,
): Answer | Promise<Answer> {
  if (engine.gate === null) throw new Error('media are served behind a gate only');
  const access = authorize(engine.gate, request);
  if (access instanceof Promise) return access.then((known) => serveMedia(engine, request, target, known, client));
  return serveMedia(engine, request, target, access, client);
}

function serveMedia(
  engine: Engine,
  request: EdgeRequest,
  target: MediaTarget,
  access: Access,
  client: ClientSignal,
): Answer | Promise<Answer> {
  if (access.kind === 'none') return refused(engine, request, access.refusal());
  if (engine.lease() === 'refuse') return refused(engine, request, CUT_OFF);
  const cacheTarget = cacheTargetOf(engine, request, target);
  // Nobody knows yet which wishes mean the same thumbnail.
  if (cacheTarget === undefined) return PASS;
  const wanted: CacheRequest =
    access.kind === 'all'
      ? { request, target: cacheTarget, fetchAs: 'edge', refusal: undefined, endsAt: access.endsAt }
      : {
          request,
          target: cacheTarget,
          fetchAs: 'anonymous',
          refusal: () => access.refusal(),
          endsAt: Number.POSITIVE_INFINITY,
        };
  return answer(engine, wanted, client);
}

function cacheTargetOf(engine: Engine, request: EdgeRequest, { form, id }: MediaTarget): CacheTarget | undefined {
  if (form === 'original') return originalTarget(id);
  const menu = engine.thumbOptions();
  return menu === undefined ? undefined : thumbTarget(id, request.query, request.header('accept'), menu);
}

/** How often a request begins anew because what it found was gone or taken down on the way. */
const ROUNDS_MAX = 3;

function answer(engine: Engine, wanted: CacheRequest, client: ClientSignal): Answer | Promise<Answer> {
  const first = attempt(engine, wanted, client);
  return first instanceof Promise ? persist(engine, wanted, client, first) : first;
}

async function persist(
  engine: Engine,
  wanted: CacheRequest,
  client: ClientSignal,
  first: Promise<Answer | Again>,
): Promise<Answer> {
  let outcome = await first;
  for (let round = 1; outcome === AGAIN; round += 1) {
    outcome =
      round < ROUNDS_MAX ? await attempt(engine, wanted, client) : await bypass(engine, wanted, 'unsettled', client);
  }
  return outcome;
}

/** Once through lookup, decision and what follows from it. */
function attempt(engine: Engine, wanted: CacheRequest, client: ClientSignal): Answer | Promise<Answer | Again> {
  const { request } = wanted;
  const reason = passReason(request, engine.mode);
  if (reason !== undefined) return bypass(engine, wanted, reason, client);
  const found = lookUp(engine.cache, wanted);
  const part = found.kind === 'stored' ? undefined : findPart(engine, wanted);
  if (part !== undefined) {
    const answer = serveFromPart(engine, wanted, part, decideOn(engine, wanted, part.entry), client);
    if (answer !== undefined) return answer;
  }
  const decision = decideOn(engine, wanted, found.kind === 'stored' ? found.stored.entry : undefined);
  switch (decision.kind) {
    case 'hit':
    case 'hit_stale':
      return serve(engine, wanted, storedOf(found), decision.kind === 'hit' ? undefined : 'max-stale', client);
    case 'stale_while_revalidate':
      revalidateInBackground(engine, wanted, storedOf(found).entry);
      return serve(engine, wanted, storedOf(found), 'stale-while-revalidate', client);
    case 'revalidate':
      return fetchShared(engine, wanted, found, decision.because, client);
    case 'miss':
      return fetchShared(engine, wanted, found, missReason(wanted, found, part), client);
    case 'only_if_cached':
      return refused(engine, request, new Fault('gateway_timeout', 'There is no copy here that is fresh enough.'));
    default:
      return unreachable(decision);
  }
}

/** Past the cache: the request as it is, for this caller alone. */
function bypass(engine: Engine, wanted: CacheRequest, detail: string, client: ClientSignal): Promise<Answer> {
  const forwarding = { reason: 'bypass', detail } as const;
  return fetchExactly({ engine, wanted, found: { kind: 'nothing' }, forwarding, joined: false, client });
}

const UNTRUSTED: Decision = { kind: 'revalidate', because: 'stale' };

function decideOn(engine: Engine, wanted: CacheRequest, entry: Entry | undefined): Decision {
  // Cut off from the journal, only what the origin has just confirmed may be shown.
  if (entry !== undefined && entry.mediaId !== null && engine.lease() !== 'yes') return UNTRUSTED;
  return decide(entry, requestDirectives(wanted.request), engine.clock.now(), engine.deciding);
}

function missReason({ request }: CacheRequest, found: Found, part: IncompleteResponse | undefined): ForwardReason {
  if (part !== undefined && request.method === 'GET') return 'partial';
  return found.kind === 'others' ? 'vary-miss' : 'uri-miss';
}

function storedOf(found: Found): Stored {
  if (found.kind !== 'stored') throw new Error('decided to serve what is not held');
  return found.stored;
}

/** From memory at once; a body on disk is made sure of first. */
function serve(
  engine: Engine,
  wanted: CacheRequest,
  stored: Stored,
  stale: string | undefined,
  client: ClientSignal,
): Answer | Promise<Answer | Again> {
  const { tier, body } = stored;
  if (tier === 'memory' || body.whole !== undefined) return served(engine, wanted, stored, stale);
  return body.ensure(client.gone()).then((state) => (state === 'lost' ? AGAIN : served(engine, wanted, stored, stale)));
}

function served(
  engine: Engine,
  wanted: CacheRequest,
  { entry, tier, body }: Stored,
  stale: string | undefined,
): Answer {
  const now = engine.clock.now();
  if (wanted.request.method === 'GET') engine.warmMarks.used(entry.key);
  const handling: Handling = { kind: 'hit', ttlMs: entry.staleAt - now, detail: stale ?? tier };
  const told = { entry, body, cacheStatus: engine.cacheStatus(handling), endsAt: wanted.endsAt };
  return {
    kind: 'reply',
    reply: respond(wanted.request, told, now, engine.responding()),
    outcome: outcomeOf(tier, stale),
    mediaId: entry.mediaId,
  };
}

function outcomeOf(tier: Stored['tier'], stale: string | undefined): Outcome {
  if (stale !== undefined) return 'stale';
  return tier === 'memory' ? 'hit_memory' : 'hit_disk';
}

function refused(engine: Engine, request: EdgeRequest, fault: Fault): Answer {
  engine.counters.refusals.add(1, { reason: fault.code });
  const reply = refuse(request, fault, undefined, engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: 'refused', mediaId: null };
}
