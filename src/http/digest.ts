/**
 * Digest fields (RFC 9530): what a sender says its bytes hash to, and how we
 * say it. SHA-256 is the one algorithm that counts; others are passed over, as
 * 9530 2 allows.
 */
import type { Sha256 } from '../ids.js';
import { readDictionary } from './structured.js';

export type StatedDigest =
  /** Nothing stated, or only algorithms that we do not use. */
  { readonly kind: 'none' } | { readonly kind: 'sha256'; readonly sha256: Sha256 } | { readonly kind: 'malformed' };

/** Reads a Repr-Digest or Content-Digest field; several lines come joined by commas. */
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
