/**
 * The first step of every request for media: what its caller may see. Nothing
 * looks at the object before.
 */
import type { Gate, Grant } from '../src/access/grant.js';
import { faultOfGrant } from '../src/access/refusal.js';
import type { EpochMs } from '../src/clock.js';
import { type Fault, unreachable } from '../src/errors.js';
import type { EdgeRequest } from './request.js';

export type Access =
  /** A token or a signed link: all media. `endsAt`: the link's end; otherwise Infinity. */
  | { readonly kind: 'all'; readonly endsAt: EpochMs }
  /** No credential that holds: what anyone may see. `refusal` is the answer where that is not enough. */
  | { readonly kind: 'public'; refusal(): Fault }
  | { readonly kind: 'none'; refusal(): Fault };

const ALL: Access = { kind: 'all', endsAt: Number.POSITIVE_INFINITY };

/**
 * At once for remembered tokens, links and strangers. The check of an unknown
 * token is shared by all who bring it and bounded in time by the gate, so that a
 * caller who leaves ends nothing; and no hit has to pay for a signal.
 */
export function authorize(gate: Gate, request: EdgeRequest): Access | Promise<Access> {
  const { method, path, query, carrier } = request;
  const grant = gate.open({ method, path, query, authorization: request.header('authorization'), carrier });
  return grant instanceof Promise ? grant.then(accessOf) : accessOf(grant);
}

function accessOf(grant: Grant): Access {
  switch (grant.kind) {
    case 'caller':
      return grant.caller.scope === 'upload' ? { kind: 'none', refusal: () => faultOfGrant(grant) } : ALL;
    case 'link':
      return { kind: 'all', endsAt: grant.expiresAt };
    case 'anonymous':
      return { kind: 'public', refusal: () => faultOfGrant(grant) };
    case 'unavailable':
      return { kind: 'none', refusal: () => faultOfGrant(grant) };
    default:
      return unreachable(grant);
  }
}
