/**
 * How an edge proves to the origin that it is one: a value derived from the
 * secret that both hold, in the request header `edge-authorization`. The
 * secret itself never travels.
 */
import { createHmac, hash, timingSafeEqual } from 'node:crypto';

/** The value of `edge-authorization`. */
export function edgeProof(secret: string): string {
  return `v1.${createHmac('sha256', secret).update('media-service edge proof').digest('base64url')}`;
}

/** Says whether a value proves an edge, by any of the secrets. Takes as long for a near miss as for a far one. */
export function createEdgeCheck(secrets: readonly string[]): (value: string | undefined) => boolean {
  // Of equal length whatever was sent, so that not even the length tells.
  const known = secrets.map((secret) => hash('sha256', edgeProof(secret), 'buffer'));
  return (value) => {
    if (value === undefined) return false;
    const given = hash('sha256', value, 'buffer');
    return known.reduce((found, each) => timingSafeEqual(given, each) || found, false);
  };
}
