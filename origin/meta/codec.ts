/**
 * The form of a record on disk: a version byte, a CRC-32 of the JSON that has
 * the version as its initial value, then the JSON. Reading checks the sum, then
 * every field. A record that fails becomes a DamagedRecord, which names its table
 * and key; other records are not affected.
 *
 * A codec writes its newest version and reads every version that it has a reader
 * for: the newest and at least the one before.
 */
import { crc32 } from 'node:zlib';
import { type MediaId, parseMediaId, parseSha256, type Sha256 } from '../../src/ids.js';
import { type BlobKey, type Place, parseBlobKey, parsePlace } from '../blobs/blob-store.js';

const HEAD_BYTES = 5;

export class DamagedRecord extends Error {
  override readonly name = 'DamagedRecord';
  readonly table: string;
  readonly key: string;

  constructor(table: string, key: string, why: string) {
    super(`the record ${key} of ${table} is damaged: ${why}`);
    this.table = table;
    this.key = key;
  }
}

export interface Codec<T> {
  encode(value: T): Buffer;
  /** Throws an Error that says what is wrong. The caller adds table and key. */
  decode(bytes: Uint8Array): T;
}

/** `readers`: for each version, how to make today's value from its fields. */
export function createCodec<T extends object>(readers: Readonly<Record<number, (fields: Fields) => T>>): Codec<T> {
  const version = Math.max(...Object.keys(readers).map(Number));
  return {
    encode(value) {
      const payload = Buffer.from(JSON.stringify(value));
      const bytes = Buffer.allocUnsafe(HEAD_BYTES + payload.length);
      bytes[0] = version;
      bytes.writeUInt32BE(sumOf(version, payload), 1);
      payload.copy(bytes, HEAD_BYTES);
      return bytes;
    },
    decode(bytes) {
      if (bytes.length <= HEAD_BYTES) throw new Error(`it has only ${bytes.length} bytes`);
      const [written = 0] = bytes;
      const read = readers[written];
      if (read === undefined) throw new Error(`it has version ${written}; this release reads up to ${version}`);
      const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
      const payload = view.subarray(HEAD_BYTES);
      if (view.readUInt32BE(1) !== sumOf(written, payload)) throw new Error('its checksum is wrong');
      return read(fieldsOf(JSON.parse(payload.toString('utf8')), 'the record'));
    },
  };
}

function sumOf(version: number, payload: Uint8Array): number {
  return crc32(payload, version);
}

/** Checks that a stored value has the type T. Throws an Error with the name of the field. */
export type Read<T> = (value: unknown, name: string) => T;

/** The fields of a stored object. */
export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  take<T>(name: string, read: Read<T>): T {
    return read(this.#values[name], name);
  }
}

export const text: Read<string> = (value, name) => (typeof value === 'string' ? value : wrong(name, 'a string'));

/** Any finite number. */
export const number: Read<number> = (value, name) =>
  Number.isFinite(value) ? (value as number) : wrong(name, 'a number');

/** A whole number of at least 0: a size, a count, a position. */
export const count: Read<number> = (value, name) =>
  Number.isSafeInteger(value) && Number(value) >= 0 ? (value as number) : wrong(name, 'a whole number of at least 0');

export const flag: Read<boolean> = (value, name) => (typeof value === 'boolean' ? value : wrong(name, 'true or false'));

export const mediaId: Read<MediaId> = (value, name) => parseMediaId(text(value, name)) ?? wrong(name, 'a media id');

export const sha256: Read<Sha256> = (value, name) => parseSha256(text(value, name)) ?? wrong(name, 'a SHA-256');

export const place: Read<Place> = (value, name) => parsePlace(text(value, name)) ?? wrong(name, 'a place');

export const blobKey: Read<BlobKey> = (value, name) =>
  parseBlobKey(text(value, name)) ?? wrong(name, 'the key of a blob');

export function choice<const C extends readonly string[]>(of: C): Read<C[number]> {
  return (value, name) => of.find((known) => known === value) ?? wrong(name, of.join(' or '));
}

export function nullable<T>(read: Read<T>): Read<T | null> {
  return (value, name) => (value === null ? null : read(value, name));
}

export function object<T>(read: (fields: Fields) => T): Read<T> {
  return (value, name) => read(fieldsOf(value, name));
}

export function listOf<T>(read: Read<T>): Read<readonly T[]> {
  return (value, name) => (Array.isArray(value) ? value.map((item) => read(item, name)) : wrong(name, 'a list'));
}

function fieldsOf(value: unknown, name: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return wrong(name, 'an object');
  return new Fields(value as Record<string, unknown>);
}

function wrong(name: string, what: string): never {
  throw new Error(`\`${name}\` is not ${what}`);
}
