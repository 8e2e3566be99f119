/**
 * Which stored response a request selects (RFC 9111 4.1): the fields that Vary
 * names, each in a normal form, so that values that mean the same are the same.
 * Normal forms only take away what cannot matter to a server: order where order
 * has no meaning, letter case where there is none, white space.
 */
import { createHash } from 'node:crypto';
import { fieldValue, listMembers, skipQuoted, trimSpace } from '../../src/http/fields.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';

type Headed = { header(name: string): string | undefined };

/** The names in Vary, in lower case, sorted, each once; `any` for `*`, which no later request matches. */
export function varyNames(headers: HeaderList): readonly string[] | 'any' {
  const value = fieldValue(headers, 'vary');
  if (value === undefined) return [];
  const names = listMembers(value.toLowerCase());
  return names.includes('*') ? 'any' : [...new Set(names)].sort();
}

/** What of a request selects a response with such a Vary, for Entry.selectedBy. `never`: no request would. */
export function selectedBy(headers: HeaderList, request: Headed): Readonly<Record<string, string>> | 'never' {
  const names = varyNames(headers);
  if (names === 'any') return 'never';
  // A field named `__proto__` must be a key like any other.
  const selected: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const name of names) selected[name] = normalise(name, request.header(name));
  return selected;
}

export function matches(entry: Pick<Entry, 'selectedBy'>, request: Headed): boolean {
  for (const name in entry.selectedBy) {
    if (entry.selectedBy[name] !== normalise(name, request.header(name))) return false;
  }
  return true;
}

/**
 * The stored response that a request selects among those of one target: the
 * newest that matches; else one whose language is plainly what the request
 * wants most.
 */
export function selectStored<E extends Pick<Entry, 'selectedBy' | 'headers' | 'bornAt'>>(
  stored: readonly E[],
  request: Headed,
): E | undefined {
  return newest(stored, (entry) => matches(entry, request)) ?? newest(stored, (entry) => speaksFor(entry, request));
}

function newest<E extends Pick<Entry, 'bornAt'>>(stored: readonly E[], fits: (entry: E) => boolean): E | undefined {
  let best: E | undefined;
  for (const entry of stored) {
    if ((best === undefined || entry.bornAt > best.bornAt) && fits(entry)) best = entry;
  }
  return best;
}

/**
 * 4.1 lets a cache use what it knows of a field. A response in the very language
 * that a request prefers above all others is what the server has for it,
 * whichever wish it was first made for.
 */
function speaksFor(entry: Pick<Entry, 'selectedBy' | 'headers'>, request: Headed): boolean {
  if (entry.selectedBy['accept-language'] === undefined) return false;
  const language = fieldValue(entry.headers, 'content-language')?.toLowerCase();
  const wish = request.header('accept-language');
  if (language === undefined || wish === undefined || favourite(wish) !== language) return false;
  for (const name in entry.selectedBy) {
    if (name !== 'accept-language' && entry.selectedBy[name] !== normalise(name, request.header(name))) return false;
  }
  return true;
}

/** The one language with the highest weight, or undefined where several share it. */
function favourite(acceptLanguage: string): string | undefined {
  let best: string | undefined;
  let bestWeight = 0;
  for (const member of listMembers(acceptLanguage.toLowerCase())) {
    const { value, weight } = weighed(member);
    if (weight > bestWeight) {
      best = value;
      bestWeight = weight;
    } else if (weight === bestWeight) best = undefined;
  }
  return best;
}

/** A field that a request does not have. A field that it has without a value is another thing: `Accept-Encoding:` refuses all codings. */
const ABSENT = '';
const EMPTY = ' ';

/** Values that must not rest in a cache's index, and those that would fill it. */
const SECRET: ReadonlySet<string> = new Set(['authorization', 'cookie', 'proxy-authorization']);
const LENGTH_MAX = 256;

/** The normal form of one selecting field. */
export function normalise(name: string, value: string | undefined): string {
  if (value === undefined) return ABSENT;
  const normal = normalForm(name, value);
  if (normal === '') return EMPTY;
  if (normal.length <= LENGTH_MAX && !SECRET.has(name)) return normal;
  return `sha256:${createHash('sha256').update(normal).digest('hex')}`;
}

function normalForm(name: string, value: string): string {
  switch (name) {
    case 'accept':
    case 'accept-charset':
    case 'accept-encoding':
    case 'accept-language':
      // RFC 9110 12.4.2, 12.5: weights tell what is preferred; case and order do not.
      return [...new Set(listMembers(value).map(preference))].sort().join(',');
    case 'authorization':
    case 'cookie':
      return trimSpace(value);
    default:
      // RFC 9110 5.6.1: what is a list for all that is known of it may be spaced in any way.
      return listMembers(value).join(',');
  }
}

/** One member of an Accept field: names in lower case, values as they are, the weight in its shortest form and left out where it is 1. */
function preference(member: string): string {
  const { value, weight } = weighed(namesLowered(withoutInnerSpace(member)));
  return weight === 1 ? value : `${value};q=${weight}`;
}

/** RFC 9110 12.4.2. A weight that is none is left where it stands: it makes a value of its own. */
function weighed(member: string): { readonly value: string; readonly weight: number } {
  const match = /^(.*?)[ \t]*;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/i.exec(member);
  const [, value, weight] = match ?? [];
  return value === undefined ? { value: member, weight: 1 } : { value, weight: Number(weight) };
}

/** RFC 9110 5.6.6, 8.3.1: types and names of parameters have no case; their values may. */
function namesLowered(text: string): string {
  return outsideQuotes(text, (part) => part.replace(/(?:;|^)[^=;]*/g, (name) => name.toLowerCase()));
}

/** Without the white space around `;` and `=`, and with single spaces elsewhere. */
function withoutInnerSpace(text: string): string {
  return outsideQuotes(text, (part) => part.replace(/[ \t]*([;=])[ \t]*/g, '$1').replace(/[ \t]+/g, ' '));
}

function outsideQuotes(text: string, change: (part: string) => string): string {
  const open = text.indexOf('"');
  if (open === -1) return change(text);
  const close = skipQuoted(text, open);
  return change(text.slice(0, open)) + text.slice(open, close + 1) + outsideQuotes(text.slice(close + 1), change);
}
