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
import type { Errand } from './fetch/origin-request.js';
import { serveFromPart } from './fetch/serve-incomplete.js';
import { type Aim, aimOf, type Place, placeOfOriginal, placeOfTarget, placeOfThumb } from './key.js';
import type { Answer, Ask, Leaving, Outcome } from './request.js';
import type { ForwardReason, Handling } from './respond/cache-status.js';
import { refuse, respond } from './respond/respond.js';
import { type Decision, decide, passReason } from './rfc9111/decide.js';

export function handle(engine: Engine, ask: Ask, client: Leaving): Answer | Promise<Answer> {
  const aim = aimOf(ask, engine.aims);
  switch (aim.kind) {
    case 'media':
      return handleMedia(engine, ask, aim, client);
    case 'generic':
      return answer(engine, { ask, place: placeOfTarget(ask.target), behalf: 'client', ...UNBOUNDED }, client);
    case 'invalid_id':
      return refused(engine, ask, new Fault('invalid_id', 'A media id is a ULID of 26 characters.'));
    case 'hidden':
      return refused(engine, ask, new Fault('not_found', 'There is nothing here.'));
    case 'pass':
      return PASS;
    default:
      return unreachable(aim);
  }
}

const UNBOUNDED = { refusal: undefined, endsAt: Number.POSITIVE_INFINITY };
const CUT_OFF = new Fault('cut_off', 'Try again, or another edge.', { headers: { 'retry-after': '1' } });

type MediaAim = Extract<Aim, { kind: 'media' }>;
const PASS: Answer = { kind: 'pass', outcome: 'pass' };

function handleMedia(engine: Engine, ask: Ask, aim: MediaAim, client: Leaving): Answer | Promise<Answer> {
  if (engine.gate === null) throw new Error('media are served behind a gate only');
  const access = authorize(engine.gate, ask);
  if (access instanceof Promise) return access.then((known) => serveMedia(engine, ask, aim, known, client));
  return serveMedia(engine, ask, aim, access, client);
}

function serveMedia(
  engine: Engine,
  ask: Ask,
  aim: MediaAim,
  access: Access,
  client: Leaving,
): Answer | Promise<Answer> {
  if (access.kind === 'none') return refused(engine, ask, access.refusal());
  if (engine.lease() === 'refuse') return refused(engine, ask, CUT_OFF);
  const place = placeOf(engine, ask, aim);
  // Nobody knows yet which wishes mean the same thumbnail.
  if (place === undefined) return PASS;
  const errand: Errand =
    access.kind === 'all'
      ? { ask, place, behalf: 'edge', refusal: undefined, endsAt: access.endsAt }
      : { ask, place, behalf: 'anonymous', refusal: () => access.refusal(), endsAt: Number.POSITIVE_INFINITY };
  return answer(engine, errand, client);
}

function placeOf(engine: Engine, ask: Ask, { form, id }: MediaAim): Place | undefined {
  if (form === 'original') return placeOfOriginal(id);
  const menu = engine.menu();
  return menu === undefined ? undefined : placeOfThumb(id, ask.query, ask.header('accept'), menu);
}

/** How often a request begins anew because what it found was gone or taken down on the way. */
const ROUNDS_MAX = 3;

function answer(engine: Engine, errand: Errand, client: Leaving): Answer | Promise<Answer> {
  const first = attempt(engine, errand, client);
  return first instanceof Promise ? persist(engine, errand, client, first) : first;
}

async function persist(
  engine: Engine,
  errand: Errand,
  client: Leaving,
  first: Promise<Answer | Again>,
): Promise<Answer> {
  let outcome = await first;
  for (let round = 1; outcome === AGAIN; round += 1) {
    outcome =
      round < ROUNDS_MAX ? await attempt(engine, errand, client) : await bypass(engine, errand, 'unsettled', client);
  }
  return outcome;
}

/** Once through lookup, decision and what follows from it. */
function attempt(engine: Engine, errand: Errand, client: Leaving): Answer | Promise<Answer | Again> {
  const { ask } = errand;
  const reason = passReason(ask, engine.mode);
  if (reason !== undefined) return bypass(engine, errand, reason, client);
  const found = lookUp(engine.cache, errand);
  const part = found.kind === 'stored' ? undefined : findPart(engine, errand);
  if (part !== undefined) {
    const answer = serveFromPart(engine, errand, part, decideOn(engine, errand, part.entry), client);
    if (answer !== undefined) return answer;
  }
  const decision = decideOn(engine, errand, found.kind === 'stored' ? found.stored.entry : undefined);
  switch (decision.kind) {
    case 'hit':
    case 'hit_stale':
      return serve(engine, errand, storedOf(found), decision.kind === 'hit' ? undefined : 'max-stale', client);
    case 'stale_while_revalidate':
      revalidateInBackground(engine, errand, storedOf(found).entry);
      return serve(engine, errand, storedOf(found), 'stale-while-revalidate', client);
    case 'revalidate':
      return fetchShared(engine, errand, found, decision.because, client);
    case 'miss':
      return fetchShared(engine, errand, found, missReason(errand, found, part), client);
    case 'only_if_cached':
      return refused(engine, ask, new Fault('gateway_timeout', 'There is no copy here that is fresh enough.'));
    default:
      return unreachable(decision);
  }
}

/** Past the cache: the request as it is, for this caller alone. */
function bypass(engine: Engine, errand: Errand, detail: string, client: Leaving): Promise<Answer> {
  const forwarding = { reason: 'bypass', detail } as const;
  return fetchExactly({ engine, errand, found: { kind: 'nothing' }, forwarding, joined: false, client });
}

const UNTRUSTED: Decision = { kind: 'revalidate', because: 'stale' };

function decideOn(engine: Engine, errand: Errand, entry: Entry | undefined): Decision {
  // Cut off from the journal, only what the origin has just confirmed may be shown.
  if (entry !== undefined && entry.mediaId !== null && engine.lease() !== 'yes') return UNTRUSTED;
  return decide(entry, requestDirectives(errand.ask), engine.clock.now(), engine.deciding);
}

function missReason({ ask }: Errand, found: Found, part: IncompleteResponse | undefined): ForwardReason {
  if (part !== undefined && ask.method === 'GET') return 'partial';
  return found.kind === 'others' ? 'vary-miss' : 'uri-miss';
}

function storedOf(found: Found): Stored {
  if (found.kind !== 'stored') throw new Error('decided to serve what is not held');
  return found.stored;
}

/** From memory at once; a body on disk is made sure of first. */
function serve(
  engine: Engine,
  errand: Errand,
  stored: Stored,
  stale: string | undefined,
  client: Leaving,
): Answer | Promise<Answer | Again> {
  const { tier, body } = stored;
  if (tier === 'memory' || body.whole !== undefined) return served(engine, errand, stored, stale);
  return body
    .ensure(client.leaving())
    .then((state) => (state === 'lost' ? AGAIN : served(engine, errand, stored, stale)));
}

function served(engine: Engine, errand: Errand, { entry, tier, body }: Stored, stale: string | undefined): Answer {
  const now = engine.clock.now();
  if (errand.ask.method === 'GET') engine.warming.used(entry.key);
  const handling: Handling = { kind: 'hit', ttlMs: entry.staleAt - now, detail: stale ?? tier };
  const told = { entry, body, cacheStatus: engine.cacheStatus(handling), endsAt: errand.endsAt };
  return {
    kind: 'reply',
    reply: respond(errand.ask, told, now, engine.responding()),
    outcome: outcomeOf(tier, stale),
    mediaId: entry.mediaId,
  };
}

function outcomeOf(tier: Stored['tier'], stale: string | undefined): Outcome {
  if (stale !== undefined) return 'stale';
  return tier === 'memory' ? 'hit_memory' : 'hit_disk';
}

function refused(engine: Engine, ask: Ask, fault: Fault): Answer {
  engine.counters.refusals.add(1, { reason: fault.code });
  const reply = refuse(ask, fault, undefined, engine.responding().edgeName);
  return { kind: 'reply', reply, outcome: 'refused', mediaId: null };
}
