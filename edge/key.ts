/**
 * What a request names, and under which key its answer is held: pure functions.
 * Media are named by id and, for thumbnails, by the variant and format that the
 * origin would choose; credentials, unknown parameters and the thousand ways to
 * write the same wish never reach a key. In generic mode the key is the target
 * as received (RFC 9111 2).
 *
 * This is the only place where keys are made.
 */
import { type MediaId, parseMediaId } from '../src/ids.js';
import {
  type ChosenFormat,
  chooseFormat,
  chooseVariant,
  readThumbSize,
  type ThumbOptions,
} from '../src/media/thumb-choice.js';
import type { CacheKey } from './entry.js';
import type { EdgeRequest } from './request.js';

/** The kinds of path that rules of the configuration may match on. */
export const PATH_KINDS = ['original', 'thumb', 'other'] as const;
export type PathKind = (typeof PATH_KINDS)[number];

export type Target =
  | { readonly kind: 'media'; readonly form: 'original' | 'thumb'; readonly id: MediaId }
  /** The place of an id holds something else. */
  | { readonly kind: 'invalid_id' }
  /** Cacheable by what the origin says of it alone, for anyone. */
  | { readonly kind: 'generic' }
  /** Not the edge's to answer. */
  | { readonly kind: 'pass' }
  /** Between our own processes: not for clients. */
  | { readonly kind: 'hidden' };

export interface TargetRules {
  /** Generic mode: every target is cacheable, none is ours. */
  readonly access: 'media' | 'off';
  /** Paths that anyone may see, cached as in generic mode. */
  readonly sharedPaths: ReadonlySet<string>;
}

const MEDIA = '/v1/media/';
const THUMB = '/thumb';
const INTERNAL = '/internal/';

const INVALID_ID: Target = { kind: 'invalid_id' };
const GENERIC: Target = { kind: 'generic' };
const PASS: Target = { kind: 'pass' };
const HIDDEN: Target = { kind: 'hidden' };

export function targetOf(request: Pick<EdgeRequest, 'method' | 'path'>, rules: TargetRules): Target {
  const reads = request.method === 'GET' || request.method === 'HEAD';
  if (rules.access === 'off') return reads ? GENERIC : PASS;
  if (request.path.startsWith(INTERNAL)) return HIDDEN;
  if (!reads) return PASS;
  if (request.path.startsWith(MEDIA)) return mediaTargetOf(request.path.slice(MEDIA.length));
  return rules.sharedPaths.has(request.path) ? GENERIC : PASS;
}

/** `{id}` or `{id}/thumb`; what has more segments is another endpoint, known or not. */
function mediaTargetOf(rest: string): Target {
  const form = rest.endsWith(THUMB) ? 'thumb' : 'original';
  const text = form === 'thumb' ? rest.slice(0, -THUMB.length) : rest;
  if (text.includes('/') || text === '') return PASS;
  const id = parseMediaId(text);
  return id === undefined ? INVALID_ID : { kind: 'media', form, id };
}

/** Where an answer is held, and how the origin is asked for it. */
export interface CacheTarget {
  readonly pathKind: PathKind;
  readonly mediaId: MediaId | null;
  /** The normalised target without what Vary selects. */
  readonly primaryKey: string;
  /** The target that the origin is asked for. */
  readonly originTarget: string;
  /** Stands in for the client's own Accept; null where that is sent. */
  readonly accept: string | null;
}

export function originalTarget(id: MediaId): CacheTarget {
  const originTarget = MEDIA + id;
  return { pathKind: 'original', mediaId: id, primaryKey: originTarget, originTarget, accept: '*/*' };
}

/**
 * The chosen variant written as a wish for its own size, which chooses it again
 * at the origin, and an Accept that chooses the format again.
 */
export function thumbTarget(
  id: MediaId,
  query: string,
  accept: string | undefined,
  options: ThumbOptions,
): CacheTarget {
  const { sizeQuery, format } = choiceOf(options, query, accept ?? '*/*');
  const originTarget = `${MEDIA}${id}${THUMB}${sizeQuery}`;
  return {
    pathKind: 'thumb',
    mediaId: id,
    primaryKey: `${originTarget}#${format}`,
    originTarget,
    accept: ACCEPT_OF[format],
  };
}

interface Choice {
  /** The query that chooses the variant again. */
  readonly sizeQuery: string;
  readonly format: ChosenFormat;
}

/** Clients of one kind wish the same way for every picture: their choices, by query and Accept, for each menu. */
const choices = new WeakMap<ThumbOptions, Map<string, Choice>>();
const CHOICES_MAX = 1_000;
/** What is longer is no client's usual way, or a signed link, and not kept. */
const QUERY_KEPT_MAX = 64;
const ACCEPT_KEPT_MAX = 300;

function choiceOf(options: ThumbOptions, query: string, accept: string): Choice {
  if (query.length > QUERY_KEPT_MAX || accept.length > ACCEPT_KEPT_MAX) return choose(options, query, accept);
  const known = choices.get(options) ?? new Map<string, Choice>();
  // No space stands in a query.
  const name = `${query} ${accept}`;
  const found = known.get(name);
  if (found !== undefined) return found;
  const choice = choose(options, query, accept);
  if (known.size >= CHOICES_MAX) known.clear();
  choices.set(options, known.set(name, choice));
  return choice;
}

function choose(options: ThumbOptions, query: string, accept: string): Choice {
  const { width, height } = chooseVariant(options, readThumbSize(query));
  return { sizeQuery: `?w=${width}&h=${height}`, format: chooseFormat(accept, options.formats) };
}

const ACCEPT_OF: Readonly<Record<ChosenFormat, string>> = {
  avif: 'image/avif',
  webp: 'image/webp',
  jpeg: 'image/jpeg',
};

export function genericTarget(originTarget: string): CacheTarget {
  return { pathKind: 'other', mediaId: null, primaryKey: originTarget, originTarget, accept: null };
}

/** The kind of path that something held was asked for under: the inverse of the places above. */
export function pathKindOf({ mediaId, primaryKey }: Pick<CacheTarget, 'mediaId' | 'primaryKey'>): PathKind {
  if (mediaId === null) return 'other';
  return primaryKey === MEDIA + mediaId ? 'original' : 'thumb';
}

/** The key of what Vary selected under a primary key (RFC 9111 4.1). A space stands in no target. */
export function keyOf(primaryKey: string, selectedBy: Readonly<Record<string, string>>): CacheKey {
  const names = Object.keys(selectedBy);
  if (names.length === 0) return primaryKey as CacheKey;
  const pairs = names.sort().map((name) => [name, selectedBy[name]]);
  return `${primaryKey} ${JSON.stringify(pairs)}` as CacheKey;
}
