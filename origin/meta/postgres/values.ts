/**
 * How ids, hashes and texts are written to PostgreSQL and read from it. Rows are sent as JSON (jsonb_to_recordset), so
 * each value here is one that JSON has.
 */
import type { MediaId, Sha256 } from '../../../src/ids.js';

const BASE32 = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const DIGITS = new Map(BASE32.split('').map((digit, value) => [digit, BigInt(value)]));

/** The 128 bits of an id, so that 16 bytes are stored in place of 26. The order stays the same. */
export function uuidOf(id: MediaId): string {
  let bits = 0n;
  for (const digit of id) bits = bits * 32n + (DIGITS.get(digit) ?? 0n);
  return bits.toString(16).padStart(32, '0');
}

export function idOf(uuid: string): MediaId {
  let bits = BigInt(`0x${uuid.replaceAll('-', '')}`);
  let id = '';
  for (let at = 0; at < 26; at += 1) {
    id = `${BASE32[Number(bits % 32n)]}${id}`;
    bits /= 32n;
  }
  return id as MediaId;
}

export function byteaOf(hash: string): string {
  return `\\x${hash}`;
}

/** `bytea` as the server writes it: `\x` and hexadecimal digits. */
export function hashOf(bytea: string): Sha256 {
  return bytea.slice(2) as Sha256;
}

/** What a text of PostgreSQL cannot hold beside NUL: halves of surrogate pairs; and the character that stands for them. */
const UNSTORABLE = /\uE000|\p{Surrogate}/gu;
const ESCAPED = /\uE000([0-9a-f]{4})/g;

/** Reversible: two texts never become one, for names of owners are among them. */
export function textOf(text: string): string {
  return text.replace(UNSTORABLE, escaped).replaceAll('\0', escaped('\0'));
}

export function fromText(stored: string): string {
  return stored.replace(ESCAPED, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function escaped(one: string): string {
  return `\uE000${one.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** The instant of the server's clock, as columns have it. */
export const SERVER_NOW = '(extract(epoch FROM clock_timestamp()) * 1000)::bigint';

/** Columns of instants and sizes are whole numbers. */
export function whole(value: number): number {
  return Math.floor(value);
}
