/**
 * How an edge proves to the origin that it is one: a value derived from the
 * secret that both hold, in the request header `edge-authorization`. The
 * secret itself never travels.
 */
import { createHmac, hash, timingSafeEqual } from 'node:crypto';

export const EDGE_PROOF_HEADER = 'edge-authorization';

/** The value of `edge-authorization`. */
export function edgeProof(secret: string): string {
  return `v1.${createHmac('sha256', secret).update('media-service edge proof').digest('base64url')}`;
}

/** Takes as long for a near miss as for a far one. */
export function isEdgeProof(value: string | undefined, secret: string): boolean {
  if (value === undefined) return false;
  // Of equal length whatever was sent, so that not even the length tells.
  return timingSafeEqual(hash('sha256', value, 'buffer'), hash('sha256', edgeProof(secret), 'buffer'));
}
