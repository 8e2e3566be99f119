/**
 * Names of the header fields that edge and origin exchange in addition to those
 * of HTTP. Clients neither set nor see the internal ones.
 */

/** Request: proves that an edge sent it (access/edge-proof.ts). */
export const EDGE_PROOF = 'edge-authorization';

/** Request: `anonymous` if the edge asks for a caller without a credential. */
export const MEDIA_CALLER = 'media-caller';

/** Response: the media that its bytes belong to. */
export const MEDIA_ID = 'media-id';

/** Both ways: one id for a request in every log. Each hop decides which id it sends on. */
export const REQUEST_ID = 'x-request-id';

/**
 * Request: how far the asking edge has applied the journal (journal/position-field.ts). Response: what the origin knew of
 * it when it looked.
 */
export const MEDIA_POSITION = 'media-position';

/** Never taken from a client and never passed on to one. */
export const INTERNAL_FIELDS: readonly string[] = [EDGE_PROOF, MEDIA_CALLER, MEDIA_ID, MEDIA_POSITION, REQUEST_ID];
