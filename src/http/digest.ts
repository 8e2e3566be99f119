/**
 * Digest fields (RFC 9530), read and written. Only SHA-256 is used; other
 * algorithms are ignored, as RFC 9530 2 allows.
 */
import type { Sha256 } from '../ids.js';
import { readDictionary } from './structured.js';

export type StatedDigest =
  /** No digest, or only of other algorithms. */
  { readonly kind: 'none' } | { readonly kind: 'sha256'; readonly sha256: Sha256 } | { readonly kind: 'malformed' };

/** Reads a Repr-Digest or Content-Digest field; several lines are joined by commas. */
export function readDigest(field: string | undefined): StatedDigest {
  if (field === undefined) return { kind: 'none' };
  const stated = readDictionary(field);
  if (stated === undefined) return { kind: 'malformed' };
  const value = stated.get('sha-256');
  if (value === undefined) return { kind: 'none' };
  if (value.kind !== 'bytes' || value.bytes.length !== 32) return { kind: 'malformed' };
  return { kind: 'sha256', sha256: value.bytes.toString('hex') as Sha256 };
}

/** `sha-256=:…:` for a hash in hexadecimal. */
export function formatDigest(sha256: Sha256): string {
  return `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`;
}
