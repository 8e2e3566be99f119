/**
 * One GET or HEAD at the edge, from top to bottom:
 * target > access > lookup > decision > stored response | fetch | refusal.
 *
 * A stored response in memory is answered in one synchronous pass, without a
 * promise; everything else goes through one async function. Works with plain values
 * only: `server/` reads requests and writes answers.
 */
import { Fault, faultOf, unreachable } from '../src/errors.js';
import type { ByteSpan } from '../src/http/range.js';
import { EDGE_PROOF } from '../src/wire.js';
import { type Access, ANYONE, authorize, authorizeEdge, identifySender, maySee } from './authorize.js';
import type { IncompleteResponse, Stored } from './cache/cache.js';
import { answerIncomplete, answerStored, type Forwarding, refuse } from './fetch/answers.js';
import type { CacheRequest } from './fetch/cache-request.js';
import { findIncomplete } from './fetch/complete.js';
import type { Engine } from './fetch/engine.js';
import { type Attempt, fetchBypassing, fetchShared, LOOK_AGAIN } from './fetch/fetch.js';
import { revalidateInBackground } from './fetch/join.js';
import { decideOn, type Found, lookUp, mayReuse } from './fetch/lookup.js';
import { missOf } from './fetch/miss.js';
import { isPathOfEdges } from './journal/behind.js';
import {
  type CacheTarget,
  genericTarget,
  keyOf,
  plainTarget,
  type Target,
  type ThumbFields,
  targetOf,
  thumbTarget,
} from './key.js';
import type { PassSender } from './pass/config.js';
import type { Answer, ClientSignal, EdgeRequest } from './request.js';
import { spansAnswered } from './respond/respond.js';
import { passReason } from './rfc9111/decide.js';

const PASS: Answer = { kind: 'pass', outcome: 'pass', sender: ANYONE };
const BY_LEASE = { kind: 'refused', detail: 'lease' } as const;
const CUT_OFF = new Fault('cut_off', 'Try again, or use another edge.', { headers: { 'retry-after': '1' } });

export function handle(engine: Engine, request: EdgeRequest, client: ClientSignal): Answer | Promise<Answer> {
  const target = targetOf(request, engine.targets);
  switch (target.kind) {
    case 'media': {
      if (engine.gate === null) throw new Error('media are served behind a gate only');
      const edge = authorizeEdge(engine.isEdge, request);
      if (edge !== undefined) return answerEdge(engine, request, target, edge, client);
      const access = authorize(engine.gate, request);
      return access instanceof Promise
        ? access.then((known) => answerMedia(engine, request, target, known, false, client))
        : answerMedia(engine, request, target, access, false, client);
    }
    case 'generic':
      return answer(
        engine,
        { request, target: sharedTarget(engine, request), fetchAs: 'client', forEdge: false, ...NOBODY },
        client,
      );
    case 'invalid_id':
      return refuse(engine, request, new Fault('invalid_id', 'A media id is a ULID of 26 characters.'));
    case 'hidden':
      if (isOfEdge(engine, request)) return OF_EDGE;
      return refuse(engine, request, new Fault('not_found', 'There is nothing here.'));
    case 'links':
      return engine.signsLinks() ? answerLinks(engine, request) : passOn(engine, request);
    case 'pass':
      return passOn(engine, request);
    default:
      return unreachable(target);
  }
}

const OF_EDGE: Answer = { kind: 'of_edge', outcome: 'own' };

function isOfEdge({ isEdge }: Engine, request: EdgeRequest): boolean {
  return isPathOfEdges(request.method, request.path) && isEdge(request.header(EDGE_PROOF));
}

/** In media mode a shared path has one response, whatever its query: strangers could split the cache otherwise. */
function sharedTarget({ mode }: Engine, { path, target }: EdgeRequest): CacheTarget {
  return genericTarget(mode === 'media' ? path : target);
}

const NOBODY = { subject: undefined, refusal: undefined, endsAt: Number.POSITIVE_INFINITY };

/** Reads that are passed on need no credential here. For all else, it decides about the slot (edge/pass/slots.ts). */
function passOn({ gate }: Engine, request: EdgeRequest): Answer | Promise<Answer> {
  if (gate === null || SAFE.has(request.method)) return PASS;
  const sender = identifySender(gate, request);
  return sender instanceof Promise ? sender.then(passFor) : passFor(sender);
}

const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

function passFor(sender: PassSender): Answer {
  return { kind: 'pass', outcome: 'pass', sender };
}

const LINKS: Answer = { kind: 'links', outcome: 'own' };

/** Whoever may read media may share them. Links to many are counted as what the origin would have to answer. */
function answerLinks(engine: Engine, request: EdgeRequest): Answer | Promise<Answer> {
  if (engine.gate === null) throw new Error('links are signed behind a gate only');
  const access = authorize(engine.gate, request);
  return access instanceof Promise
    ? access.then((known) => admitToLinks(engine, request, known))
    : admitToLinks(engine, request, access);
}

function admitToLinks(engine: Engine, request: EdgeRequest, access: Access): Answer {
  if (access.kind !== 'all') return refuse(engine, request, access.refusal());
  const { subject } = access;
  return refuseAtLimit(engine, { request, subject, forEdge: false }) ?? LINKS;
}

type MediaTarget = Extract<Target, { kind: 'media' }>;

/** An edge behind this one may have applied more takedowns, through another edge. */
function answerEdge(
  engine: Engine,
  request: EdgeRequest,
  media: MediaTarget,
  access: Access,
  client: ClientSignal,
): Answer | Promise<Answer> {
  const caughtUp = engine.caughtUp(request, () => client.gone());
  if (caughtUp === undefined) return answerMedia(engine, request, media, access, true, client);
  return caughtUp.then(
    () => answerMedia(engine, request, media, access, true, client),
    (thrown: unknown) => refuse(engine, request, faultOf(thrown)),
  );
}

function answerMedia(
  engine: Engine,
  request: EdgeRequest,
  media: MediaTarget,
  access: Access,
  forEdge: boolean,
  client: ClientSignal,
): Answer | Promise<Answer> {
  if (access.kind === 'none') return refuse(engine, request, access.refusal());
  if (engine.lease() === 'refuse') {
    return refuse(engine, request, CUT_OFF, { cacheStatus: engine.cacheStatus(BY_LEASE) });
  }
  const target = cacheTargetOf(engine, request, media);
  // Until the origin has said which thumbnails it makes, the edge cannot know which queries mean the same one.
  if (target === undefined) return forEdge ? refuse(engine, request, NO_THUMBNAILS_YET) : PASS;
  const wanted: CacheRequest =
    access.kind === 'all'
      ? {
          request,
          target,
          fetchAs: 'edge',
          forEdge,
          refusal: undefined,
          endsAt: access.endsAt,
          subject: access.subject,
        }
      : {
          request,
          target,
          fetchAs: 'anonymous',
          forEdge,
          refusal: () => access.refusal(),
          endsAt: Number.POSITIVE_INFINITY,
          subject: undefined,
        };
  return answer(engine, wanted, client);
}

/** A request that is passed on would need the credential of its sender. */
const NO_THUMBNAILS_YET = new Fault('overloaded', 'The origin has not said yet which thumbnails it makes.');

function cacheTargetOf(engine: Engine, request: EdgeRequest, { form, id }: MediaTarget): CacheTarget | undefined {
  if (form !== 'thumb') return plainTarget(id, form);
  const options = engine.thumbOptions();
  return options === undefined ? undefined : thumbTarget(id, request.query, thumbFieldsOf(request), options);
}

function thumbFieldsOf(request: EdgeRequest): ThumbFields {
  return { accept: request.header('accept'), destination: request.header('sec-fetch-dest') };
}

/** The caller is known and may ask. */
function answer(engine: Engine, wanted: CacheRequest, client: ClientSignal): Answer | Promise<Answer> {
  const reason = passReason(wanted.request, engine.mode);
  if (reason !== undefined) return refuseAtLimit(engine, wanted) ?? fetchBypassing(engine, wanted, reason, client);
  const found = lookUp(engine.cache, wanted);
  return (
    answerFromMemory(engine, wanted, found) ??
    refuseKnown(engine, wanted, found) ??
    answerInTurn(engine, wanted, found, client)
  );
}

/** A hit in memory, answered without a promise. Undefined if nothing is stored there, or if it may not be served. */
function answerFromMemory(engine: Engine, wanted: CacheRequest, found: Found): Answer | undefined {
  if (found.kind !== 'stored' || found.stored.body.whole === undefined) return undefined;
  const { kind } = decideOn(engine, wanted, found.stored.entry);
  const servable = kind === 'hit' || kind === 'hit_stale' || kind === 'stale_while_revalidate';
  return servable ? serve(engine, wanted, found.stored, kind) : undefined;
}

/**
 * What the origin would refuse, as the edge knows from a private copy or from a
 * refusal a moment ago. Without a credential the answer is the same as for
 * private, gone and unknown media. Undefined if the origin has to be asked.
 */
function refuseKnown(engine: Engine, wanted: CacheRequest, found: Found): Answer | undefined {
  const { request, refusal, target } = wanted;
  const { mediaId } = target;
  if (mediaId === null || found.kind === 'stored' || engine.lease() !== 'yes') return undefined;
  const absence = engine.absences.recall(mediaId);
  if (refusal !== undefined) {
    const closed = absence !== undefined || hasPrivateCopy(engine, wanted);
    return closed ? refuse(engine, request, refusal()) : undefined;
  }
  if (absence !== 'unknown') return undefined;
  const fault = new Fault('not_found', 'There is no media with this id.');
  const cacheStatus = engine.cacheStatus({ kind: 'hit', detail: 'absent' });
  return refuse(engine, request, fault, { reason: 'absent', cacheStatus });
}

function hasPrivateCopy({ cache, clock }: Engine, wanted: CacheRequest): boolean {
  const entry = cache.peek(keyOf(wanted.target.primaryKey, {}))?.entry;
  return entry !== undefined && !maySee(entry, wanted) && clock.now() < entry.staleAt;
}

/** How often the cache is looked up, at most. What was found may be lost or taken down before it is served. */
const ROUNDS_MAX = 3;

/** Everything that has to wait, for the disk or for the origin. */
async function answerInTurn(engine: Engine, wanted: CacheRequest, first: Found, client: ClientSignal): Promise<Answer> {
  let found = first;
  for (let round = 1; ; round += 1) {
    const attempt = await answerFound(engine, wanted, found, client);
    if (attempt.kind !== 'look_again') return attempt;
    if (round === ROUNDS_MAX) return fetchBypassing(engine, wanted, 'unsettled', client);
    found = lookUp(engine.cache, wanted);
  }
}

/** One round: decides what to do with what was found, and does it. */
async function answerFound(engine: Engine, wanted: CacheRequest, found: Found, client: ClientSignal): Promise<Attempt> {
  const stored = found.kind === 'stored' ? found.stored : undefined;
  const incomplete = stored === undefined ? findIncomplete(engine, wanted) : undefined;
  if (incomplete !== undefined) {
    const answer = answerIncomplete(engine, wanted, incomplete, decideOn(engine, wanted, incomplete.entry), client);
    if (answer !== undefined) return answer;
  }
  const decision = decideOn(engine, wanted, stored?.entry);
  switch (decision.kind) {
    case 'hit':
    case 'hit_stale':
    case 'stale_while_revalidate':
      if (stored === undefined) throw new Error('there is no stored response to serve');
      // A body on disk is verified before its head is sent.
      if (stored.body.whole === undefined) {
        const span = spanAnswered(engine, wanted, stored);
        if ((await stored.body.ensure(client.gone(), span)) === 'lost') return LOOK_AGAIN;
      }
      return serve(engine, wanted, stored, decision.kind);
    case 'revalidate':
      return (
        refuseAtLimit(engine, wanted) ??
        fetchShared(engine, wanted, found, staleness(engine, stored, decision.because), client)
      );
    case 'miss': {
      const forwarding = absence(engine, wanted, found, incomplete);
      return refuseAtLimit(engine, wanted) ?? fetchShared(engine, wanted, found, forwarding, client);
    }
    case 'only_if_cached':
      // Without a credential the answer is the same for what is private, unknown or not stored.
      return refuse(engine, wanted.request, wanted.refusal?.() ?? NOT_CACHED);
    default:
      return unreachable(decision);
  }
}

/** The one range that the answer will have, if it has one. */
function spanAnswered(engine: Engine, wanted: CacheRequest, { entry, body }: Stored): ByteSpan | undefined {
  const { request } = wanted;
  if (body.sizeBytes === null || request.header('range') === undefined || request.method !== 'GET') return undefined;
  const spans = spansAnswered(request, entry, body.sizeBytes, engine.responding(wanted));
  return spans?.length === 1 ? spans[0] : undefined;
}

/** The refusal of a client that has made this edge ask the origin too often. */
function refuseAtLimit(
  engine: Engine,
  { request, subject, forEdge }: Pick<CacheRequest, 'request' | 'subject' | 'forEdge'>,
): Answer | undefined {
  if (forEdge) return undefined;
  try {
    engine.rates.admit({ address: request.sender().address, subject });
    return undefined;
  } catch (thrown) {
    return refuse(engine, request, faultOf(thrown));
  }
}

const NOT_CACHED = new Fault('gateway_timeout', 'No stored response is fresh enough.');

/** Why a stored response has to be confirmed by the origin. */
function staleness(engine: Engine, stored: Stored | undefined, reason: 'stale' | 'request'): Forwarding {
  if (stored !== undefined && !mayReuse(engine, stored.entry)) return { reason, miss: 'lease' };
  return { reason, miss: reason === 'stale' ? 'expired' : 'request' };
}

/** Why there is no stored response for a request. */
function absence(
  { cache }: Engine,
  { request, target }: CacheRequest,
  found: Found,
  incomplete: IncompleteResponse | undefined,
): Forwarding {
  if (incomplete !== undefined && request.method === 'GET') return { reason: 'partial', miss: 'partial' };
  if (found.kind === 'others') return { reason: 'vary-miss', miss: 'variant' };
  return { reason: 'uri-miss', miss: missOf(cache.fates.recall(keyOf(target.primaryKey, {}))?.fate) };
}

type Servable = 'hit' | 'hit_stale' | 'stale_while_revalidate';

/** RFC 5861 3: a stale response may be served while one fetch brings a newer one. */
function serve(engine: Engine, wanted: CacheRequest, stored: Stored, decision: Servable): Answer {
  if (decision === 'stale_while_revalidate') revalidateInBackground(engine, wanted, stored.entry);
  return answerStored(engine, wanted, stored, STALE_DETAIL[decision]);
}

/** The rule that allows a stale response, for Cache-Status. */
const STALE_DETAIL = {
  hit: undefined,
  hit_stale: 'max-stale',
  stale_while_revalidate: 'stale-while-revalidate',
} as const;
