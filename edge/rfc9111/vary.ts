/**
 * Which stored response a request selects (RFC 9111 4.1): the fields that Vary
 * names, each in a normal form, so that values with the same meaning are equal.
 * The normal form only removes what has no meaning to a server: white space, and
 * order and letter case in fields where they do not matter.
 */
import { createHash } from 'node:crypto';
import { fieldValue, listMembers, skipQuoted, trimSpace } from '../../src/http/fields.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';

type Headed = { header(name: string): string | undefined };

/** The names in Vary, in lower case, sorted, without duplicates. `any` for `*`, which no later request matches. */
export function varyNames(headers: HeaderList): readonly string[] | 'any' {
  const value = fieldValue(headers, 'vary');
  if (value === undefined) return [];
  const names = listMembers(value.toLowerCase());
  return names.includes('*') ? 'any' : [...new Set(names)].sort();
}

/** The fields of a request that select a response with this Vary, for Entry.selectedBy. `never`: no request selects it. */
export function selectedBy(headers: HeaderList, request: Headed): Readonly<Record<string, string>> | 'never' {
  const names = varyNames(headers);
  if (names === 'any') return 'never';
  // Without a prototype, so that a field named `__proto__` is a key like any other.
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
 * newest that matches, or else the newest in the language that the request
 * prefers above all others.
 */
export function selectStored<E extends Pick<Entry, 'selectedBy' | 'headers' | 'bornAt'>>(
  stored: readonly E[],
  request: Headed,
): E | undefined {
  return (
    newest(stored, (entry) => matches(entry, request)) ??
    newest(stored, (entry) => isInPreferredLanguage(entry, request))
  );
}

function newest<E extends Pick<Entry, 'bornAt'>>(stored: readonly E[], fits: (entry: E) => boolean): E | undefined {
  let best: E | undefined;
  for (const entry of stored) {
    if ((best === undefined || entry.bornAt > best.bornAt) && fits(entry)) best = entry;
  }
  return best;
}

/**
 * 4.1 lets a cache use what it knows about a field: a response in the language
 * that the request prefers is what the server would send, whichever
 * Accept-Language it was first fetched with.
 */
function isInPreferredLanguage(entry: Pick<Entry, 'selectedBy' | 'headers'>, request: Headed): boolean {
  if (entry.selectedBy['accept-language'] === undefined) return false;
  const language = fieldValue(entry.headers, 'content-language')?.toLowerCase();
  const accepted = request.header('accept-language');
  if (language === undefined || accepted === undefined || favourite(accepted) !== language) return false;
  for (const name in entry.selectedBy) {
    if (name !== 'accept-language' && entry.selectedBy[name] !== normalise(name, request.header(name))) return false;
  }
  return true;
}

/** The language with the highest weight; undefined if several share it. */
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

/** The normal forms of an absent field and of an empty one. They differ: `Accept-Encoding:` refuses all codings. */
const ABSENT = '';
const EMPTY = ' ';

/** Values that are secret, and long ones, are stored as hashes. */
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
      // RFC 9110 12.4.2, 12.5: weights say what is preferred; case and order do not matter.
      return [...new Set(listMembers(value).map(preference))].sort().join(',');
    case 'authorization':
    case 'cookie':
      return trimSpace(value);
    default:
      // RFC 9110 5.6.1: any field may be a list, and white space around its members has no meaning.
      return listMembers(value).join(',');
  }
}

/** One member of an Accept field: names in lower case, values unchanged, the weight in its shortest form, and left out if it is 1. */
function preference(member: string): string {
  const { value, weight } = weighed(namesLowered(withoutInnerSpace(member)));
  return weight === 1 ? value : `${value};q=${weight}`;
}

/** RFC 9110 12.4.2. An invalid weight stays part of the value. */
function weighed(member: string): { readonly value: string; readonly weight: number } {
  const match = /^(.*?)[ \t]*;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/i.exec(member);
  const [, value, weight] = match ?? [];
  return value === undefined ? { value: member, weight: 1 } : { value, weight: Number(weight) };
}

/** RFC 9110 5.6.6, 8.3.1: types and parameter names are case-insensitive; parameter values may not be. */
function namesLowered(text: string): string {
  return outsideQuotes(text, (piece) => piece.replace(/(?:;|^)[^=;]*/g, (name) => name.toLowerCase()));
}

/** Removes white space around `;` and `=`, and leaves single spaces elsewhere. */
function withoutInnerSpace(text: string): string {
  return outsideQuotes(text, (piece) => piece.replace(/[ \t]*([;=])[ \t]*/g, '$1').replace(/[ \t]+/g, ' '));
}

function outsideQuotes(text: string, change: (piece: string) => string): string {
  const open = text.indexOf('"');
  if (open === -1) return change(text);
  const close = skipQuoted(text, open);
  return change(text.slice(0, open)) + text.slice(open, close + 1) + outsideQuotes(text.slice(close + 1), change);
}
