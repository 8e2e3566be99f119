/**
 * How an edge proves itself to the origin: the request header
 * `edge-authorization` has a value that is derived from the secret that both
 * know. The secret itself is never sent.
 */
import { createHmac, hash, timingSafeEqual } from 'node:crypto';

/** The value of `edge-authorization`. */
export function edgeProof(secret: string): string {
  return `v1.${createHmac('sha256', secret).update('media-service edge proof').digest('base64url')}`;
}

/** Tests whether a value is the proof of one of the secrets, in constant time. */
export function createEdgeCheck(secrets: readonly string[]): (value: string | undefined) => boolean {
  // Hashes have equal lengths, so that not even the length of a guess matters.
  const known = secrets.map((secret) => hash('sha256', edgeProof(secret), 'buffer'));
  return (value) => {
    if (value === undefined) return false;
    const given = hash('sha256', value, 'buffer');
    return known.reduce((found, each) => timingSafeEqual(given, each) || found, false);
  };
}
