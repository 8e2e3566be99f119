/**
 * Cache-Control as requests and responses say it (RFC 9111 5.2, RFC 5861,
 * RFC 8246), and its targeted form (RFC 9213), both read into the same plain
 * directives. Nothing throws, whatever stands there.
 *
 * Where a directive is malformed, the reading that reuses less counts: a
 * lifetime that is none is 0, a restriction with a strange argument still
 * restricts, a permission with one permits nothing. What several directives of
 * one name say is joined the same way (RFC 9111 4.2.1).
 */
import type { RequestHead } from './conditional.js';
import { fieldValue, listMembers, skipQuoted, trimSpace } from './fields.js';
import type { HeaderList } from './reply.js';
import { readDictionary, type StructuredValue } from './structured.js';

/** What a directive with an optional list of fields covers: nothing, the whole response, or those fields (lower case). */
export type FieldScope = 'none' | 'all' | readonly string[];

export interface ResponseDirectives {
  readonly noStore: boolean;
  readonly noCache: FieldScope;
  readonly private: FieldScope;
  readonly public: boolean;
  readonly mustRevalidate: boolean;
  readonly proxyRevalidate: boolean;
  readonly mustUnderstand: boolean;
  /** RFC 9111 5.2.3: an extension of our own. The stated lifetime is not to be prolonged by anybody's rule: the head may change. */
  readonly provisional: boolean;
  readonly maxAgeMs: number | undefined;
  readonly sMaxageMs: number | undefined;
  readonly staleWhileRevalidateMs: number | undefined;
  readonly staleIfErrorMs: number | undefined;
}

export interface RequestDirectives {
  readonly noStore: boolean;
  readonly noCache: boolean;
  readonly onlyIfCached: boolean;
  readonly maxAgeMs: number | undefined;
  readonly minFreshMs: number | undefined;
  /** Infinity for `max-stale` without an argument: stale by any amount. */
  readonly maxStaleMs: number | undefined;
  /** RFC 5861 4 allows it in requests too. */
  readonly staleIfErrorMs: number | undefined;
}

export const NO_REQUEST_DIRECTIVES: RequestDirectives = {
  noStore: false,
  noCache: false,
  onlyIfCached: false,
  maxAgeMs: undefined,
  minFreshMs: undefined,
  maxStaleMs: undefined,
  staleIfErrorMs: undefined,
};

/** RFC 9111 1.2.2: what does not fit is taken for 2³¹ seconds, 68 years. */
const DELTA_SECONDS_MAX = 2 ** 31;

/** RFC 9111 1.2.2, in milliseconds; undefined for anything but digits. */
export function parseDeltaSeconds(text: string): number | undefined {
  return /^\d+$/.test(text) ? Math.min(Number(text), DELTA_SECONDS_MAX) * 1_000 : undefined;
}

/** RFC 9111 5.2.1 and 5.4. Malformed limits are no limits: a request's directives are wishes. */
export function requestDirectives(request: Pick<RequestHead, 'header'>): RequestDirectives {
  const value = request.header('cache-control');
  if (value === undefined) {
    const pragma = request.header('pragma');
    // 5.4: Pragma stands in where there is no Cache-Control.
    return pragma !== undefined && saysNoCache(pragma) ? PRAGMA_NO_CACHE : NO_REQUEST_DIRECTIVES;
  }
  const found: { -readonly [K in keyof RequestDirectives]: RequestDirectives[K] } = { ...NO_REQUEST_DIRECTIVES };
  for (const { name, argument } of directivesIn(value)) {
    const limitMs = argument === undefined ? undefined : parseDeltaSeconds(argument);
    if (name === 'no-store') found.noStore = true;
    else if (name === 'no-cache') found.noCache = true;
    else if (name === 'only-if-cached') found.onlyIfCached = true;
    else if (name === 'max-age') found.maxAgeMs = smaller(found.maxAgeMs, limitMs);
    else if (name === 'min-fresh') found.minFreshMs = larger(found.minFreshMs, limitMs);
    else if (name === 'stale-if-error') found.staleIfErrorMs = smaller(found.staleIfErrorMs, limitMs);
    else if (name === 'max-stale') {
      found.maxStaleMs = smaller(found.maxStaleMs, argument === undefined ? Number.POSITIVE_INFINITY : limitMs);
    }
  }
  return found;
}

const PRAGMA_NO_CACHE: RequestDirectives = { ...NO_REQUEST_DIRECTIVES, noCache: true };

function saysNoCache(pragma: string): boolean {
  return listMembers(pragma).some((member) => member.toLowerCase() === 'no-cache');
}

function smaller(held: number | undefined, given: number | undefined): number | undefined {
  return given === undefined ? held : Math.min(held ?? Number.POSITIVE_INFINITY, given);
}

function larger(held: number | undefined, given: number | undefined): number | undefined {
  return given === undefined ? held : Math.max(held ?? 0, given);
}

/** The directives that a response's cache goes by, and the field they stand in. */
export interface GoverningDirectives {
  readonly directives: ResponseDirectives;
  /** `targeted`: Cache-Control and Expires do not count. */
  readonly from: 'targeted' | 'cache_control' | 'nowhere';
}

/**
 * RFC 9213 2.2: the first field of the target list that is there and parses
 * governs alone; else Cache-Control does. `targets` in lower case, most
 * specific first.
 */
export function governingDirectives(headers: HeaderList, targets: readonly string[]): GoverningDirectives {
  for (const target of targets) {
    const value = fieldValue(headers, target);
    const directives = value === undefined ? undefined : targetedDirectives(value);
    if (directives !== undefined) return { directives, from: 'targeted' };
  }
  const value = fieldValue(headers, 'cache-control');
  return value === undefined
    ? { directives: NO_DIRECTIVES, from: 'nowhere' }
    : { directives: responseDirectives(value), from: 'cache_control' };
}

/** RFC 9111 5.2.2: the directives of a Cache-Control value. */
export function responseDirectives(value: string): ResponseDirectives {
  const found = new Gathered();
  for (const { name, argument } of directivesIn(value)) found.add(name, argument);
  return found.directives();
}

/** RFC 9213 2.1: undefined for a field that is empty or no dictionary, which is as if it were not there. */
export function targetedDirectives(value: string): ResponseDirectives | undefined {
  const members = readDictionary(value);
  if (members === undefined || members.size === 0) return undefined;
  const found = new Gathered();
  for (const [name, member] of members) {
    if (member.kind === 'boolean' && !member.value) continue;
    found.add(name, argumentOf(name, member));
  }
  return found.directives();
}

/** RFC 9213 2.1: lifetimes are integers, lists of fields strings; of another type they are as malformed as letters. */
function argumentOf(name: string, member: StructuredValue): string | undefined {
  switch (member.kind) {
    case 'boolean':
      return undefined;
    case 'number':
      return String(member.value);
    case 'text':
    case 'token':
      return name === 'private' || name === 'no-cache' ? member.text : NOT_A_NUMBER;
    case 'bytes':
    case 'other':
      return NOT_A_NUMBER;
  }
}

const NOT_A_NUMBER = '?';

/** The directives of one response as they are read, each name once. */
class Gathered {
  #noCache: FieldScope = 'none';
  #private: FieldScope = 'none';
  readonly #said = new Set<string>();
  readonly #lifetimes = new Map<string, number>();

  add(name: string, argument: string | undefined): void {
    switch (name) {
      case 'no-cache':
        this.#noCache = widen(this.#noCache, argument);
        break;
      case 'private':
        this.#private = widen(this.#private, argument);
        break;
      case 'no-store':
      case 'must-revalidate':
      case 'proxy-revalidate':
        this.#said.add(name);
        break;
      case 'public':
      case 'must-understand':
      case 'provisional':
        if (argument === undefined) this.#said.add(name);
        break;
      case 'max-age':
      case 's-maxage':
      case 'stale-while-revalidate':
      case 'stale-if-error':
        this.#limit(name, argument);
        break;
      default:
        // 5.2.3: what is not known is passed over.
        break;
    }
  }

  /** RFC 9111 4.2.1: invalid is stale, and so are several that disagree. */
  #limit(name: string, argument: string | undefined): void {
    const ms = (argument === undefined ? undefined : parseDeltaSeconds(argument)) ?? 0;
    const held = this.#lifetimes.get(name);
    this.#lifetimes.set(name, held === undefined || held === ms ? ms : 0);
  }

  directives(): ResponseDirectives {
    return {
      noStore: this.#said.has('no-store'),
      noCache: this.#noCache,
      private: this.#private,
      public: this.#said.has('public'),
      mustRevalidate: this.#said.has('must-revalidate'),
      proxyRevalidate: this.#said.has('proxy-revalidate'),
      mustUnderstand: this.#said.has('must-understand'),
      provisional: this.#said.has('provisional'),
      maxAgeMs: this.#lifetimes.get('max-age'),
      sMaxageMs: this.#lifetimes.get('s-maxage'),
      staleWhileRevalidateMs: this.#lifetimes.get('stale-while-revalidate'),
      staleIfErrorMs: this.#lifetimes.get('stale-if-error'),
    };
  }
}

const NO_DIRECTIVES: ResponseDirectives = new Gathered().directives();

/** RFC 9111 5.2.2.4 and 5.2.2.7: without fields, or with a list that names none, it is about the whole response. */
function widen(held: FieldScope, argument: string | undefined): FieldScope {
  const fields = argument === undefined ? [] : listMembers(argument.toLowerCase());
  if (held === 'all' || fields.length === 0 || !fields.every(isToken)) return 'all';
  return held === 'none' ? fields : [...held, ...fields];
}

function isToken(text: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(text);
}

interface Directive {
  /** Lower case. */
  readonly name: string;
  /** Without its quotes; undefined where there is no `=`. */
  readonly argument: string | undefined;
}

/**
 * RFC 9111 5.2: the members of the list. Both the token and the quoted form of
 * an argument are taken. White space around `=` is not in the grammar: the name
 * counts, and the argument is spoilt, so that neither a number nor a field name
 * is read from it.
 */
function directivesIn(value: string): Directive[] {
  return listMembers(value).map((member) => {
    const equals = member.indexOf('=');
    if (equals === -1) return { name: member.toLowerCase(), argument: undefined };
    const written = member.slice(0, equals);
    const name = trimSpace(written).toLowerCase();
    const argument = unquote(member.slice(equals + 1));
    return { name, argument: written.length === name.length ? argument : `=${argument}` };
  });
}

/** The text of a quoted string; anything else as it stands, a string with something behind it included. */
function unquote(argument: string): string {
  if (!argument.startsWith('"') || argument.length < 2) return argument;
  const end = skipQuoted(argument, 0);
  if (end !== argument.length - 1 || argument[end] !== '"') return argument;
  return argument.slice(1, -1).replace(/\\(.)/g, '$1');
}
