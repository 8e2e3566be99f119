/**
 * What a request target names, and the cache key of its response. Pure; keys are
 * made here alone.
 *
 * The key of media is the id and, for a thumbnail, the variant and the format
 * that the origin would choose. Credentials, unknown parameters and other ways to
 * write the same query do not change the key. In generic mode the key is the
 * target as received (RFC 9111 2).
 */
import { LINKS_PATH } from '../src/access/make-links.js';
import { type MediaId, parseMediaId } from '../src/ids.js';
import {
  acceptsPicturesAlone,
  type ChosenFormat,
  chooseFormat,
  chooseVariant,
  isForPicture,
  readThumbSize,
  type ThumbOptions,
} from '../src/media/thumb-choice.js';
import type { CacheKey } from './entry.js';
import type { EdgeRequest } from './request.js';

/** The kinds of path that cache rules match on. */
export const PATH_KINDS = ['original', 'thumb', 'info', 'other'] as const;
export type PathKind = (typeof PATH_KINDS)[number];

/** What of media a request asks for. */
export type MediaForm = Exclude<PathKind, 'other'>;

export type Target =
  | { readonly kind: 'media'; readonly form: MediaForm; readonly id: MediaId }
  /** It has something else in the place of a media id. */
  | { readonly kind: 'invalid_id' }
  /** Not media: cacheable as the origin says, and anyone may see it. */
  | { readonly kind: 'generic' }
  /** A request for links to many media. */
  | { readonly kind: 'links' }
  /** Passed on to the origin. */
  | { readonly kind: 'pass' }
  /** For our own processes only: clients get 404. */
  | { readonly kind: 'hidden' };

export interface TargetRules {
  /** `off` is generic mode: every target is generic. */
  readonly access: 'media' | 'off';
  /** Paths of generic targets in media mode. */
  readonly sharedPaths: ReadonlySet<string>;
}

const MEDIA = '/v1/media/';
const THUMB = '/thumb';
const INFO = '/info';
const INTERNAL = '/internal/';

const INVALID_ID: Target = { kind: 'invalid_id' };
const GENERIC: Target = { kind: 'generic' };
const LINKS: Target = { kind: 'links' };
const PASS: Target = { kind: 'pass' };
const HIDDEN: Target = { kind: 'hidden' };

export function targetOf(request: Pick<EdgeRequest, 'method' | 'path'>, rules: TargetRules): Target {
  const reads = request.method === 'GET' || request.method === 'HEAD';
  if (rules.access === 'off') return reads ? GENERIC : PASS;
  if (request.path.startsWith(INTERNAL)) return HIDDEN;
  if (!reads) return request.method === 'POST' && request.path === LINKS_PATH ? LINKS : PASS;
  if (request.path.startsWith(MEDIA)) return mediaTargetOf(request.path.slice(MEDIA.length));
  return rules.sharedPaths.has(request.path) ? GENERIC : PASS;
}

/** `{id}`, `{id}/thumb` or `{id}/info`. A path with more segments is another endpoint, which the origin may know. */
function mediaTargetOf(rest: string): Target {
  const form = rest.endsWith(THUMB) ? 'thumb' : rest.endsWith(INFO) ? 'info' : 'original';
  const text = rest.slice(0, rest.length - SUFFIX[form].length);
  if (text.includes('/') || text === '') return PASS;
  const id = parseMediaId(text);
  return id === undefined ? INVALID_ID : { kind: 'media', form, id };
}

const SUFFIX: Readonly<Record<MediaForm, string>> = { original: '', thumb: THUMB, info: INFO };

/** Under which key a response is stored, and how the origin is asked for it. */
export interface CacheTarget {
  readonly pathKind: PathKind;
  readonly mediaId: MediaId | null;
  /** The normalised target, without what Vary selects. */
  readonly primaryKey: string;
  /** The target of the request to the origin. */
  readonly originTarget: string;
  /** The Accept that the origin gets. Null: the client's own is sent. */
  readonly accept: string | null;
  /** Whether the caller can show nothing but a picture, so that the origin waits longer for a pending thumbnail. */
  readonly forPicture: boolean;
}

/** What has one representation: its query and its Accept mean nothing. */
export function plainTarget(id: MediaId, form: Exclude<MediaForm, 'thumb'>): CacheTarget {
  const originTarget = MEDIA + id + SUFFIX[form];
  return {
    pathKind: form,
    mediaId: id,
    primaryKey: originTarget,
    originTarget,
    accept: '*/*',
    forPicture: false,
  };
}

/**
 * The origin gets a query for the size of the chosen variant, which makes it
 * choose the same variant, and an Accept that makes it choose the same format.
 */
export function thumbTarget(
  id: MediaId,
  query: string,
  { accept, destination }: ThumbFields,
  options: ThumbOptions,
): CacheTarget {
  const { sizeQuery, format, picturesAlone } = choiceOf(options, query, accept ?? '*/*');
  const forPicture = isForPicture(destination, picturesAlone);
  const originTarget = `${MEDIA}${id}${THUMB}${sizeQuery}`;
  return {
    pathKind: 'thumb',
    mediaId: id,
    primaryKey: `${originTarget}#${format}`,
    originTarget,
    accept: forPicture ? `image/${format}` : ACCEPT_OF[format],
    forPicture,
  };
}

/** The fields of a request on which its thumbnail depends. */
export interface ThumbFields {
  readonly accept: string | undefined;
  /** Sec-Fetch-Dest. */
  readonly destination: string | undefined;
}

interface Choice {
  /** The query for the size of the variant. */
  readonly sizeQuery: string;
  readonly format: ChosenFormat;
  readonly picturesAlone: boolean;
}

/** Clients of one kind send the same query and Accept for every thumbnail: what they choose is remembered. */
const choices = new WeakMap<ThumbOptions, Map<string, Choice>>();
const CHOICES_MAX = 1_000;
/** Longer values are unusual, or belong to a signed link, and are not remembered. */
const QUERY_KEPT_MAX = 64;
const ACCEPT_KEPT_MAX = 300;

function choiceOf(options: ThumbOptions, query: string, accept: string): Choice {
  if (query.length > QUERY_KEPT_MAX || accept.length > ACCEPT_KEPT_MAX) return choose(options, query, accept);
  const known = choices.get(options) ?? new Map<string, Choice>();
  // A query contains no space.
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
  return {
    sizeQuery: `?w=${width}&h=${height}`,
    format: chooseFormat(accept, options.formats),
    picturesAlone: acceptsPicturesAlone(accept),
  };
}

/** For callers who understand the 202 of a pending thumbnail. A picture alone makes the origin answer with a placeholder. */
const ACCEPT_OF: Readonly<Record<ChosenFormat, string>> = {
  avif: 'image/avif, application/json;q=0.5',
  webp: 'image/webp, application/json;q=0.5',
  jpeg: 'image/jpeg, application/json;q=0.5',
};

export function genericTarget(originTarget: string): CacheTarget {
  return { pathKind: 'other', mediaId: null, primaryKey: originTarget, originTarget, accept: null, forPicture: false };
}

/** The kind of path of a stored response: the inverse of the targets above. */
export function pathKindOf({ mediaId, primaryKey }: Pick<CacheTarget, 'mediaId' | 'primaryKey'>): PathKind {
  if (mediaId === null) return 'other';
  if (primaryKey === MEDIA + mediaId) return 'original';
  return primaryKey === MEDIA + mediaId + INFO ? 'info' : 'thumb';
}

/** The key of the response that Vary selected under a primary key (RFC 9111 4.1). A target contains no space. */
export function keyOf(primaryKey: string, selectedBy: Readonly<Record<string, string>>): CacheKey {
  const names = Object.keys(selectedBy);
  if (names.length === 0) return primaryKey as CacheKey;
  const pairs = names.sort().map((name) => [name, selectedBy[name]]);
  return `${primaryKey} ${JSON.stringify(pairs)}` as CacheKey;
}
