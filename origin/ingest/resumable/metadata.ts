/**
 * The field Upload-Metadata (tus 1.0.0, Creation): pairs of a key and a value in
 * Base64, separated by commas. Pure.
 *
 * Reads it as every list in HTTP (RFC 9110 5.6.1): with white space around the
 * commas, and with empty elements.
 */
import { Fault } from '../../../src/errors.js';

const KEY = /^[\x21-\x2b\x2d-\x7e]+$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The metadata of an upload stay in memory as long as it exists. */
const CHARACTERS_MAX = 6_144;

/** The field without what is optional in it, as it is stored and sent back; empty without metadata. */
export function readMetadata(field: string | undefined): string {
  const pairs = new Map<string, string>();
  for (const element of (field ?? '').split(',').map((each) => each.trim())) {
    if (element === '') continue;
    const [key = '', value = '', ...more] = element.split(/[ \t]+/);
    if (more.length > 0 || !KEY.test(key) || !BASE64.test(value)) {
      throw new Fault('malformed', 'Upload-Metadata has pairs of a key and a value in Base64, separated by commas.');
    }
    if (pairs.has(key)) throw new Fault('malformed', 'Upload-Metadata has the same key twice.');
    pairs.set(key, value);
  }
  const metadata = joined(pairs);
  if (metadata.length > CHARACTERS_MAX) {
    throw new Fault('malformed', `Upload-Metadata has at most ${CHARACTERS_MAX} characters.`);
  }
  return metadata;
}

/** The decoded values by their keys. A key without a value counts as not given. */
export function metadataValues(metadata: string): ReadonlyMap<string, string> {
  const pairs = metadata.split(',').map((pair) => pair.split(' '));
  return new Map(
    pairs.flatMap(([key = '', value]) => (value === undefined ? [] : [[key, Buffer.from(value, 'base64').toString()]])),
  );
}

/** The field for decoded values; null stands for a key without one. */
export function writeMetadata(values: Readonly<Record<string, string | null>>): string {
  return joined(
    new Map(Object.entries(values).map(([key, value]) => [key, Buffer.from(value ?? '').toString('base64')])),
  );
}

function joined(pairs: ReadonlyMap<string, string>): string {
  return [...pairs].map(([key, value]) => (value === '' ? key : `${key} ${value}`)).join(',');
}
