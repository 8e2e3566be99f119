/**
 * One file that is to be imported, as a list names it. Pure: nothing is opened here.
 * A record of a list is refused where it cannot be understood, and the others are imported.
 */
import { isAbsolute, join, normalize, sep } from 'node:path';
import { parseSha256, type Sha256 } from '../../src/ids.js';

export interface Entry {
  /** What the file was known as before. An id is imported once. */
  readonly id: string;
  /** Relative to the folder of the source. */
  readonly path: string;
  readonly owner: string;
  readonly name: string | null;
  /** The type that the list states. */
  readonly type: string | null;
  readonly sha256: Sha256 | null;
  readonly public: boolean;
  /** When it was uploaded before, RFC 3339. */
  readonly created: string | null;
}

/** Why an entry is not imported: a code of the service, or one of RefusalHere. */
export interface Refusal {
  readonly code: string;
  readonly detail: string;
}

/** `malformed`: of the list; the others of the file. */
export type RefusalHere = 'malformed' | 'missing' | 'unreadable';

export type Read =
  | { readonly kind: 'entry'; readonly entry: Entry }
  | { readonly kind: 'refused'; readonly id: string; readonly path: string; readonly refusal: Refusal };

/** What holds for entries that say nothing else. */
export interface EntryDefaults {
  readonly owner: string | null;
  readonly public: boolean;
}

/** The columns of a list. */
export const COLUMNS = ['path', 'id', 'owner', 'name', 'type', 'sha256', 'public', 'created'] as const;

/** As of tokens (src/access/claims.ts). */
const SUBJECT = /^[^\p{Cc}]{1,255}$/u;
const NAME_CHARS_MAX = 255;
const ID_CHARS_MAX = 1_024;

/** `at`: the place in the list, for a record that has no path. Empty values count as absent. */
export function readEntry(record: Readonly<Record<string, unknown>>, at: string, defaults: EntryDefaults): Read {
  const faults: string[] = [];
  const text = (name: string): string | null => {
    const value = record[name];
    if (value === undefined || value === null || value === '') return null;
    if (typeof value === 'string') return value;
    if (typeof value === 'number' && Number.isFinite(value)) return String(value);
    faults.push(`${name} is no text`);
    return null;
  };
  const path = text('path');
  const id = text('id') ?? path ?? at;
  const owner = text('owner') ?? defaults.owner;
  const entry: Entry = {
    id,
    path: path ?? '',
    owner: owner ?? '',
    name: nameOf(text('name')),
    type: text('type'),
    sha256: hashOf(text('sha256'), faults),
    public: flagOf(record['public'], defaults.public, faults),
    created: instantOf(text('created'), faults),
  };
  if (path === null) faults.push('there is no path');
  else if (!staysBelow(path)) faults.push('the path leads out of the folder');
  if (id.length > ID_CHARS_MAX) faults.push(`the id is longer than ${ID_CHARS_MAX} characters`);
  if (owner === null) faults.push('there is no owner: add the column, or give --owner');
  else if (!SUBJECT.test(owner)) faults.push('the owner is no text of 1 to 255 characters');
  if (faults.length === 0) return { kind: 'entry', entry };
  return refusedHere(id, path ?? at, 'malformed', `${faults.join('; ')}.`);
}

export function refusedHere(id: string, path: string, code: RefusalHere, detail: string): Read & { kind: 'refused' } {
  return { kind: 'refused', id, path, refusal: { code, detail } };
}

/** Lists come from databases that users have written to: none may name a file beside the folder. */
function staysBelow(path: string): boolean {
  if (isAbsolute(path) || path.includes('\0')) return false;
  const first = normalize(join('.', path)).split(sep)[0];
  return first !== '..' && first !== '.';
}

/** Cut to what the service keeps, without half of a character; control characters are no part of a name. */
function nameOf(name: string | null): string | null {
  const plain = (name ?? '').replace(/\p{Cc}/gu, ' ').trim();
  // Lone surrogates are half of a character.
  const cut = plain.slice(0, NAME_CHARS_MAX).replace(/\p{Cs}/gu, '');
  return cut === '' ? null : cut;
}

function hashOf(text: string | null, faults: string[]): Sha256 | null {
  if (text === null) return null;
  const hash = parseSha256(text.toLowerCase());
  if (hash === undefined) faults.push('sha256 is no SHA-256 in hexadecimal');
  return hash ?? null;
}

/** Also as databases write them. */
const FLAGS: ReadonlyMap<unknown, boolean> = new Map<unknown, boolean>([
  [true, true],
  [false, false],
  ...['true', 't', '1', 'yes'].map((word) => [word, true] as const),
  ...['false', 'f', '0', 'no'].map((word) => [word, false] as const),
]);

function flagOf(value: unknown, otherwise: boolean, faults: string[]): boolean {
  if (value === undefined || value === null || value === '') return otherwise;
  const flag = FLAGS.get(
    typeof value === 'string' ? value.toLowerCase() : typeof value === 'number' ? String(value) : value,
  );
  if (flag === undefined) faults.push('public is neither true nor false');
  return flag ?? false;
}

/** A number of this or less is of seconds: as milliseconds it would be in 1973 or before. */
const SECONDS_MAX = 100_000_000_000;

/** RFC 3339, or seconds or milliseconds since 1970. */
function instantOf(text: string | null, faults: string[]): string | null {
  if (text === null) return null;
  const number = /^\d{1,15}(?:\.\d+)?$/.test(text) ? Number(text) : undefined;
  const at = new Date(number === undefined ? text : number <= SECONDS_MAX ? number * 1_000 : number);
  if (Number.isFinite(at.getTime())) return at.toISOString();
  faults.push('created is no instant');
  return null;
}
