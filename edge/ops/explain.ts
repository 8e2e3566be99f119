/**
 * Why the edge would answer a request as it would: its key and variant, access,
 * the stored response with its tier and freshness, the rule that decided, and
 * why a response is not stored. Asks the cache without counting a use, and never
 * the origin. Leaves out every token and signature.
 */
import { faultOf, unreachable } from '../../src/errors.js';
import { originForm, splitTarget } from '../../src/http/head.js';
import { headerOf } from '../../src/http/reply.js';
import { loggable } from '../../src/log.js';
import { type Access, authorize, type FetchAs } from '../authorize.js';
import type { KnownFate } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { CacheRequest } from '../fetch/cache-request.js';
import type { Engine } from '../fetch/engine.js';
import { decideOn, lookUp, mayReuse } from '../fetch/lookup.js';
import { type Rule, ruleNumberOf, subjectOf } from '../fetch/rules.js';
import { type CacheTarget, genericTarget, keyOf, plainTarget, targetOf, thumbTarget } from '../key.js';
import type { EdgeRequest } from '../request.js';
import { passReason } from '../rfc9111/decide.js';

/** The request to explain. */
export interface ExplainOrder {
  readonly method: 'GET' | 'HEAD';
  /** The path and query. */
  readonly target: string;
  /** Names in lower case. */
  readonly fields: Readonly<Record<string, string>>;
}

export interface Explanation {
  readonly edge: string;
  readonly target: string;
  /** How the edge would answer, in a word. */
  readonly answer: 'hit' | 'stale' | 'revalidate' | 'miss' | 'refused' | 'passed';
  readonly key: string | null;
  readonly tier: 'memory' | 'disk' | 'incomplete' | null;
  /** The number of the entry of `edge.rules` that decided; 0: none. Null: not known before there is a response. */
  readonly rule: number | null;
  /** What became of the key when nothing is stored. */
  readonly fate: KnownFate | null;
  /** All of it for a person, a line each. */
  readonly says: readonly string[];
}

export type ExplainRead =
  | { readonly kind: 'order'; readonly order: ExplainOrder }
  | { readonly kind: 'refused'; readonly detail: string };

const FIELDS_MAX = 50;

/** Takes `{url, method?, headers?}`. */
export function readExplain(value: unknown): ExplainRead {
  if (typeof value !== 'object' || value === null) return { kind: 'refused', detail: 'give an object with `url`' };
  const { url, method = 'GET', headers = {} } = value as Readonly<Record<string, unknown>>;
  const target = typeof url === 'string' ? originForm(url.split('#', 1)[0] ?? '').target : '';
  if (!target.startsWith('/')) return { kind: 'refused', detail: '`url` must be a URL or a path' };
  if (method !== 'GET' && method !== 'HEAD') return { kind: 'refused', detail: '`method` must be GET or HEAD' };
  const pairs = typeof headers === 'object' && headers !== null ? Object.entries(headers) : [];
  if (pairs.length > FIELDS_MAX || pairs.some(([, text]) => typeof text !== 'string')) {
    return { kind: 'refused', detail: `\`headers\` must be at most ${FIELDS_MAX} texts by their names` };
  }
  const fields = Object.fromEntries(pairs.map(([name, text]) => [name.toLowerCase(), String(text)]));
  return { kind: 'order', order: { method, target, fields } };
}

export async function explain(engine: Engine, order: ExplainOrder): Promise<Explanation> {
  const request = requestOf(order);
  const plain = { edge: engine.identity.edgeName, target: loggable(order.target), ...NOTHING };
  const target = targetOf(request, engine.targets);
  switch (target.kind) {
    case 'invalid_id':
      return { ...plain, answer: 'refused', says: ['400: what stands in the place of the id is no media id.'] };
    case 'hidden':
      return { ...plain, answer: 'refused', says: ['404: this path is for edges and origins alone.'] };
    case 'pass':
      return { ...plain, answer: 'passed', says: ['This path does not use the cache: it is passed on to the origin.'] };
    case 'links':
      return { ...plain, answer: 'passed', says: ['The edge makes signed links itself, and asks nobody.'] };
    case 'generic':
      return explainCached(engine, request, genericTarget(engine.mode === 'media' ? request.path : request.target), {
        fetchAs: 'client',
        says: ['Anyone may see this path.'],
      });
    case 'media': {
      const { form, id } = target;
      const options = engine.thumbOptions();
      if (form === 'thumb' && options === undefined) {
        const why = 'The origin has not said yet which thumbnails it makes, so thumbnails are passed on.';
        return { ...plain, answer: 'passed', says: [why] };
      }
      const accept = { accept: request.header('accept'), destination: request.header('sec-fetch-dest') };
      const cacheTarget =
        form === 'thumb' && options !== undefined
          ? thumbTarget(id, request.query, accept, options)
          : plainTarget(id, form === 'info' ? 'info' : 'original');
      return explainCached(engine, request, cacheTarget, await callerOf(engine, request));
    }
    default:
      return unreachable(target);
  }
}

const NOTHING = { key: null, tier: null, rule: null, fate: null } as const;

/** What the caller of the request may see. */
interface ExplainedCaller {
  readonly fetchAs: FetchAs;
  readonly says: readonly string[];
  /** The caller is refused, whatever is stored. */
  readonly refused?: boolean;
}

async function callerOf({ gate }: Engine, request: EdgeRequest): Promise<ExplainedCaller> {
  if (gate === null) return { fetchAs: 'client', says: [] };
  const access: Access = await authorize(gate, request);
  switch (access.kind) {
    case 'all':
      return { fetchAs: 'edge', says: [`Access: a valid ${access.subject === undefined ? 'signed link' : 'token'}.`] };
    case 'public':
      return {
        fetchAs: 'anonymous',
        says: [`Access: no valid credential (${faultOf(access.refusal()).code}), so public media alone.`],
      };
    case 'none': {
      const { status, code } = access.refusal();
      return { fetchAs: 'anonymous', refused: true, says: [`Access: ${status} ${code}.`] };
    }
    default:
      return unreachable(access);
  }
}

function explainCached(
  engine: Engine,
  request: EdgeRequest,
  target: CacheTarget,
  caller: ExplainedCaller,
): Explanation {
  const { cache } = engine;
  const wanted = wantedBy(request, target, caller.fetchAs);
  // An operator may know what is stored, whoever the caller is.
  const asEdge = caller.fetchAs === 'anonymous' ? wantedBy(request, target, 'edge') : wanted;
  const peeking = { get: cache.peek.bind(cache), variantsOf: cache.variantsOf.bind(cache) };
  const found = lookUp(peeking, asEdge);
  const partly = cache.incomplete.keysOfPrimary(target.primaryKey).length > 0;
  const stored = found.kind === 'stored' ? found.stored : undefined;
  const key = stored?.entry.key ?? keyOf(target.primaryKey, {});
  const entry = stored?.entry;
  const tier = stored?.tier ?? (partly ? ('incomplete' as const) : null);
  const fate = stored === undefined ? (cache.fates.recall(key) ?? null) : null;
  const { rules } = engine.policy();
  const rule = entry === undefined ? null : ruleNumberOf(rules, subjectOf(entry));
  const decision = answerOf(engine, wanted, stored?.entry, caller);
  return {
    edge: engine.identity.edgeName,
    target: loggable(request.target),
    answer: decision.answer,
    key: loggable(target.primaryKey),
    tier,
    rule,
    fate,
    says: [
      decision.says,
      `Key: ${loggable(target.primaryKey)}${variantOf(target, entry)}.`,
      ...caller.says,
      ...leaseLines(engine, target),
      ...(entry === undefined
        ? notStoredLines(engine, target, fate, partly ? 'partly' : found.kind === 'others' ? 'others' : 'nothing')
        : storedLines(engine, entry, tier ?? 'memory')),
      ruleLine(rules, rule),
    ],
  };
}

function wantedBy(request: EdgeRequest, target: CacheTarget, fetchAs: FetchAs): CacheRequest {
  return {
    request,
    target,
    fetchAs,
    forEdge: false,
    subject: undefined,
    refusal: undefined,
    endsAt: Number.POSITIVE_INFINITY,
  };
}

interface Decided {
  readonly answer: Explanation['answer'];
  readonly says: string;
}

function answerOf(engine: Engine, wanted: CacheRequest, entry: Entry | undefined, caller: ExplainedCaller): Decided {
  if (caller.refused === true) return { answer: 'refused', says: 'Refused: the caller may see nothing.' };
  if (wanted.target.mediaId !== null && engine.lease() === 'refuse') {
    return { answer: 'refused', says: 'Refused (503): the edge is cut off, and edge.journal.lease.mode is refuse.' };
  }
  if (entry !== undefined && caller.fetchAs === 'anonymous' && entry.audience !== 'anyone') {
    return { answer: 'refused', says: 'Refused (401): it is private, and the caller has no valid credential.' };
  }
  const bypass = passReason(wanted.request, engine.mode);
  if (bypass !== undefined) return { answer: 'passed', says: `The cache is not used (${bypass}).` };
  const { kind } = decideOn(engine, wanted, entry);
  switch (kind) {
    case 'hit':
      return { answer: 'hit', says: 'A hit: answered from the cache, and fresh.' };
    case 'hit_stale':
      return { answer: 'stale', says: 'Answered stale from the cache, as the request allows (max-stale).' };
    case 'stale_while_revalidate':
      return {
        answer: 'stale',
        says: 'Answered stale from the cache, while one request asks the origin for a newer one.',
      };
    case 'revalidate':
      return { answer: 'revalidate', says: 'Stored, and the origin is asked first whether it is still current.' };
    case 'miss':
      return { answer: 'miss', says: 'A miss: the origin is asked for it.' };
    case 'only_if_cached':
      return { answer: 'refused', says: 'Refused (504): the request wants a stored response alone.' };
    default:
      return unreachable(kind);
  }
}

/** Of fields that Vary names, their values could be secret. */
function variantOf({ pathKind, primaryKey, originTarget }: CacheTarget, entry: Entry | undefined): string {
  const varied = Object.keys(entry?.selectedBy ?? {});
  if (varied.length > 0) return `, one of several by the fields ${varied.join(', ')}`;
  if (pathKind !== 'thumb') return '';
  const [, width = '?', height = '?'] = /w=(\d+)&h=(\d+)/.exec(originTarget) ?? [];
  return `, the variant ${width}x${height} as ${primaryKey.slice(primaryKey.lastIndexOf('#') + 1)}`;
}

function leaseLines(engine: Engine, { mediaId }: CacheTarget): readonly string[] {
  const verdict = engine.lease();
  if (mediaId === null || verdict === 'yes') return [];
  return [
    `Lease: the edge is not current with the journal, so what is stored is ${verdict === 'refuse' ? 'refused' : 'confirmed first'}.`,
  ];
}

function storedLines(engine: Engine, entry: Entry, tier: string): readonly string[] {
  const now = engine.clock.now();
  const type = headerOf(entry.headers, 'content-type') ?? 'without a type';
  const seconds = (from: number, to: number): string => `${Math.floor((to - from) / 1_000)} s`;
  const until = (name: string, at: number): readonly string[] =>
    at > now ? [`${name} for ${Number.isFinite(at) ? seconds(now, at) : 'ever'}`] : [];
  const fresh =
    now < entry.staleAt ? `fresh for ${seconds(now, entry.staleAt)}` : `stale since ${seconds(entry.staleAt, now)}`;
  return [
    `Stored: in the ${tier} tier, ${entry.status}, ${type}, ${entry.sizeBytes ?? '?'} bytes, for ${entry.audience === 'anyone' ? 'anyone' : 'authorised callers'}.`,
    `Freshness: age ${seconds(entry.bornAt, now)}, ${[
      fresh,
      ...until('may be stale while it is revalidated', entry.revalidateUntil),
      ...until('may be stale if the origin fails', entry.errorUntil),
      ...(Number.isFinite(entry.deleteAt) ? [`ends in ${seconds(now, entry.deleteAt)}`] : []),
    ].join(', ')}.`,
    ...(mayReuse(engine, entry) ? [] : ['The lease keeps it from being served unasked.']),
  ];
}

function notStoredLines(
  engine: Engine,
  { primaryKey, mediaId }: CacheTarget,
  fate: KnownFate | null,
  held: keyof typeof HELD,
): readonly string[] {
  const alone = engine.uncacheable.recall(primaryKey);
  const absence = mediaId === null ? undefined : engine.absences.recall(mediaId);
  const when = fate === null ? '' : ` (${new Date(fate.at).toISOString()})`;
  return [
    HELD[held],
    fate === null
      ? 'Why: nobody has asked this edge for it since it was started, as far as it remembers.'
      : `Why: ${FATES[fate.fate]}${when}.`,
    ...(alone === undefined
      ? []
      : [
          `Requests for it are not joined for now: its last response was ${alone === 'large' ? 'too large to store' : 'not for all callers'}.`,
        ]),
    ...(absence === undefined ? [] : ['The origin has just said that it has none, or none for everyone.']),
  ];
}

const HELD = {
  nothing: 'Stored: nothing.',
  partly: 'Stored: some ranges of it, in memory.',
  others: 'Stored: only for requests with other fields, as Vary says.',
} as const;

const FATES: Readonly<Record<KnownFate['fate'], string>> = {
  stored: 'it was stored, and is gone since',
  evicted: 'it was stored and evicted to make room',
  expired: 'its media have expired',
  purged: 'it was purged by an operator or with the whole cache',
  taken_down: 'it was taken down',
  invalidated: 'it was invalidated by a change or by the origin',
  corrupt: 'its bytes were not what the origin had announced',
  replaced: 'it was replaced',
  too_large: 'its body is larger than `max_object` of every tier that may store it',
  not_admitted: 'the replacement policy or the admission did not admit it',
  disk_full: 'there was no room on the disk',
  no_tier: 'a rule says that no tier stores it',
  large: 'its body is larger than edge.fill.object_max',
  method: 'responses to this method are not stored',
  status: 'responses with this status are not stored',
  request_no_store: 'the request said no-store',
  no_store: 'the response said no-store',
  private: 'the response said private',
  set_cookie: 'the response sets a cookie (edge.storing.set_cookie)',
  authorization: 'the request had a credential, and the response does not allow sharing',
  vary: 'the response varies by `*`',
  no_freshness: 'the response states no lifetime',
  no_use: 'the response was stale on arrival, and cannot be validated',
  partial: 'only a range arrived that could not be joined with others',
  ended: 'its Sunset had passed',
};

function ruleLine(rules: readonly Rule[], rule: number | null): string {
  if (rules.length === 0) return 'Rule: edge.rules has none.';
  if (rule === null) return `Rule: one of ${rules.length} is chosen once the response has a type and a size.`;
  const found = rules[rule - 1];
  return found === undefined
    ? 'Rule: none of edge.rules matches it.'
    : `Rule: number ${rule} of edge.rules (${describe(found)}).`;
}

/** What a rule matches and sets, without what it leaves open. */
function describe(rule: Rule): string {
  const seconds = (ms: number | null): string | null => (ms === null ? null : `${ms / 1_000}s`);
  const said: readonly (readonly [string, string | number | null, string | number | null])[] = [
    ['path', rule.path, 'any'],
    ['type', rule.type, '*/*'],
    ['from', rule.fromBytes, 0],
    ['to', rule.toBytes, 8e12],
    ['ttl', seconds(rule.ttlMs), null],
    ['stale_while_revalidate', seconds(rule.staleWhileRevalidateMs), null],
    ['stale_if_error', seconds(rule.staleIfErrorMs), null],
    ['tiers', rule.tiers, 'both'],
    ['admission', rule.admission, 'as_set'],
    ['warm', rule.warm, 'as_set'],
  ];
  return said
    .filter(([, value, usual]) => value !== usual)
    .map(([name, value]) => `${name}: ${String(value)}`)
    .join(', ');
}

function requestOf({ method, target, fields }: ExplainOrder): EdgeRequest {
  return {
    method,
    target,
    ...splitTarget(target),
    header: (name) => (Object.hasOwn(fields, name) ? fields[name] : undefined),
    fields: () => Object.entries(fields),
    sender: () => ({ address: '', scheme: 'http' }),
    requestId: 'explained',
  };
}
