/**
 * What a caller may see. The first step of every request for media: nothing
 * looks at the object before.
 */
import { type Gate, type Grant, isAdmin } from '../src/access/grant.js';
import { faultOfGrant } from '../src/access/refusal.js';
import type { EpochMs } from '../src/clock.js';
import { type Fault, unreachable } from '../src/errors.js';
import { EDGE_PROOF, MEDIA_CALLER } from '../src/wire.js';
import type { Entry } from './entry.js';
import type { PassSender } from './pass/config.js';
import type { EdgeRequest } from './request.js';

export type Access =
  /** A token or a signed link: all media. `endsAt` is the end of the link; for a token it is Infinity. */
  | { readonly kind: 'all'; readonly endsAt: EpochMs; readonly subject: string | undefined }
  /** No valid credential: public media only. `refusal` is the answer for other media. */
  | { readonly kind: 'public'; refusal(): Fault }
  | { readonly kind: 'none'; refusal(): Fault };

const ALL: Access = { kind: 'all', endsAt: Number.POSITIVE_INFINITY, subject: undefined };

/**
 * Synchronous for remembered tokens, for links and for callers without a
 * credential, so that a hit in memory needs no promise. Callers with the same
 * unknown token share one check, which the gate limits in time; a caller that
 * leaves does not end it, so no signal is needed either.
 */
export function authorize(gate: Gate, request: EdgeRequest): Access | Promise<Access> {
  const { method, path, query, carrier } = request;
  const grant = gate.open({ method, path, query, authorization: request.header('authorization'), carrier });
  return grant instanceof Promise
    ? grant.then((known) => accessOf(noted(request, known)))
    : accessOf(noted(request, grant));
}

/**
 * An edge behind this one, which has authorised its caller: it may have all media, or public media only if
 * it says that its caller has no credential. Undefined: not an edge. The proof is good for reading media
 * alone; whatever is passed on needs the credential of its sender.
 */
export function authorizeEdge(isEdge: IsEdge, request: Pick<EdgeRequest, 'header'>): Access | undefined {
  const proof = request.header(EDGE_PROOF);
  if (proof === undefined || !isEdge(proof)) return undefined;
  return request.header(MEDIA_CALLER) === 'anonymous' ? ANONYMOUS : ALL;
}

/** Whether a value of `edge-authorization` proves an edge by a secret that is accepted now. */
export type IsEdge = (proof: string | undefined) => boolean;

const ANONYMOUS: Access = {
  kind: 'public',
  refusal: () => faultOfGrant({ kind: 'anonymous', refusal: 'none' }),
};

export const ANYONE: PassSender = { subject: undefined, admin: false };

/** Who sends a request that is passed on. A body needs a token that is valid, whatever the origin would do with it. */
export function identifySender(gate: Gate, request: EdgeRequest): PassSender | Promise<PassSender> {
  const { method, path, query, carrier } = request;
  const grant = gate.open({ method, path, query, authorization: request.header('authorization'), carrier });
  return grant instanceof Promise
    ? grant.then((known) => senderOf(noted(request, known)))
    : senderOf(noted(request, grant));
}

/** The log says who asked. */
function noted(request: EdgeRequest, grant: Grant): Grant {
  if (grant.kind === 'caller') request.caller = grant.caller;
  return grant;
}

function senderOf(grant: Grant): PassSender {
  switch (grant.kind) {
    case 'caller':
      return { subject: grant.caller.subject, admin: isAdmin(grant) };
    case 'link':
    case 'anonymous':
      return { ...ANYONE, refuseBody: () => faultOfGrant(grant) };
    // The origin may know the key. Until it has decided, the limit of one address applies.
    case 'unavailable':
      return ANYONE;
    default:
      return unreachable(grant);
  }
}

function accessOf(grant: Grant): Access {
  switch (grant.kind) {
    case 'caller':
      if (grant.caller.scope === 'upload') return { kind: 'none', refusal: () => faultOfGrant(grant) };
      return { kind: 'all', endsAt: Number.POSITIVE_INFINITY, subject: grant.caller.subject };
    case 'link':
      return { kind: 'all', endsAt: grant.expiresAt, subject: undefined };
    case 'anonymous':
      return { kind: 'public', refusal: () => faultOfGrant(grant) };
    case 'unavailable':
      return { kind: 'none', refusal: () => faultOfGrant(grant) };
    default:
      return unreachable(grant);
  }
}

/**
 * As whom the origin is asked: as the edge, which has authorised the caller; for
 * a caller without a credential, who may see public media only; or, outside
 * media, as the client itself.
 */
export type FetchAs = 'edge' | 'anonymous' | 'client';

/** Whether a caller may see a stored or arriving response. The only place of this rule. */
export function maySee(entry: Pick<Entry, 'audience'>, { fetchAs }: { readonly fetchAs: FetchAs }): boolean {
  return fetchAs !== 'anonymous' || entry.audience === 'anyone';
}
