/**
 * Cache-Control of requests and responses (RFC 9111 5.2, RFC 5861) and its
 * targeted form (RFC 9213), read into the same plain directives. Never throws.
 *
 * A malformed directive is read so that less is reused: a malformed lifetime is
 * 0, a restriction with an unexpected argument still restricts, a permission
 * with one permits nothing. Several directives with one name are combined in the
 * same way (RFC 9111 4.2.1).
 */
import type { RequestHead } from './conditional.js';
import { fieldValue, listMembers, trimSpace } from './fields.js';
import type { HeaderList } from './reply.js';
import { readDictionary, type StructuredValue } from './structured.js';

/** What a directive with an optional list of fields covers: nothing, the whole response, or these fields (lower case). */
export type FieldScope = 'none' | 'all' | readonly string[];

export interface ResponseDirectives {
  readonly noStore: boolean;
  readonly noCache: FieldScope;
  readonly private: FieldScope;
  readonly public: boolean;
  readonly mustRevalidate: boolean;
  readonly proxyRevalidate: boolean;
  readonly mustUnderstand: boolean;
  /** Our own extension (RFC 9111 5.2.3): no cache rule may extend the stated lifetime, because the head may change. */
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

/** RFC 9111 1.2.2: larger values count as 2³¹ seconds, 68 years. */
const DELTA_SECONDS_MAX = 2 ** 31;

/** RFC 9111 1.2.2, in milliseconds; undefined for anything but digits. */
export function parseDeltaSeconds(text: string | undefined): number | undefined {
  return /^\d+$/.test(text ?? '') ? Math.min(Number(text), DELTA_SECONDS_MAX) * 1_000 : undefined;
}

/** RFC 9111 5.2.1 and 5.4. Malformed limits are ignored, because a cache may ignore the directives of a request. */
export function requestDirectives(request: Pick<RequestHead, 'header'>): RequestDirectives {
  const value = request.header('cache-control');
  if (value === undefined) {
    const pragma = request.header('pragma');
    // 5.4: Pragma counts only without Cache-Control.
    return pragma !== undefined && saysNoCache(pragma) ? PRAGMA_NO_CACHE : NO_REQUEST_DIRECTIVES;
  }
  const found: { -readonly [K in keyof RequestDirectives]: RequestDirectives[K] } = { ...NO_REQUEST_DIRECTIVES };
  for (const { name, argument } of directivesIn(value)) {
    const limitMs = parseDeltaSeconds(argument);
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

function smaller(before: number | undefined, given: number | undefined): number | undefined {
  return given === undefined ? before : Math.min(before ?? Number.POSITIVE_INFINITY, given);
}

function larger(before: number | undefined, given: number | undefined): number | undefined {
  return given === undefined ? before : Math.max(before ?? 0, given);
}

/** The directives that govern the caching of a response, and the field that they come from. */
export interface GoverningDirectives {
  readonly directives: ResponseDirectives;
  /** `targeted`: Cache-Control and Expires do not count. */
  readonly from: 'targeted' | 'cache_control' | 'nowhere';
}

/**
 * RFC 9213 2.2: the first field of the target list that is present and valid
 * governs alone, otherwise Cache-Control does. `targets` in lower case, the most
 * specific first.
 */
export function governingDirectives(headers: HeaderList, targets: readonly string[]): GoverningDirectives {
  for (const target of targets) {
    const directives = targetedDirectives(fieldValue(headers, target) ?? '');
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

/** RFC 9213 2.1: a field that is empty or not a dictionary counts as missing: undefined. */
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

/** RFC 9213 2.1: lifetimes are integers and lists of fields are strings; other types are malformed. */
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

/** Collects the directives of one response. */
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
        // 5.2.3: unknown directives are ignored.
        break;
    }
  }

  /** RFC 9111 4.2.1: an invalid lifetime is 0, and so are several that differ. */
  #limit(name: string, argument: string | undefined): void {
    const ms = parseDeltaSeconds(argument) ?? 0;
    const before = this.#lifetimes.get(name);
    this.#lifetimes.set(name, before === undefined || before === ms ? ms : 0);
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

/** RFC 9111 5.2.2.4 and 5.2.2.7: without valid field names, the directive covers the whole response. */
function widen(before: FieldScope, argument: string | undefined): FieldScope {
  const fields = argument === undefined ? [] : listMembers(argument.toLowerCase());
  if (before === 'all' || fields.length === 0 || !fields.every(isToken)) return 'all';
  return before === 'none' ? fields : [...before, ...fields];
}

function isToken(text: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(text);
}

interface Directive {
  /** Lower case. */
  readonly name: string;
  /** Without its quotes; undefined if there is no `=`. */
  readonly argument: string | undefined;
}

/**
 * RFC 9111 5.2: the members of the list. An argument may be a token or quoted.
 * White space around `=` is not in the grammar: the name counts, and the argument
 * is made unusable, so that neither a number nor a field name is read from it.
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

/** The text of a quoted string. Anything else stays as it is, also a string with something after it. */
function unquote(argument: string): string {
  const text = /^"((?:[^"\\]|\\.)*)"$/.exec(argument)?.[1];
  return text === undefined ? argument : text.replace(/\\(.)/g, '$1');
}
