/**
 * The first step of every request for media: what its caller may see. Nothing
 * looks at the object before.
 */
import type { Gate, Grant } from '../src/access/grant.js';
import { faultOfGrant } from '../src/access/refusal.js';
import { type Fault, unreachable } from '../src/errors.js';
import type { Ask } from './ask.js';
import type { Leaving } from './engine.js';

export type Access =
  /** A token or a signed link: all media. */
  | { readonly kind: 'all' }
  /** No credential that holds: what anyone may see. `refusal` is the answer where that is not enough. */
  | { readonly kind: 'public'; refusal(): Fault }
  | { readonly kind: 'none'; refusal(): Fault };

const ALL: Access = { kind: 'all' };

/** At once for remembered tokens, links and strangers. */
export function authorize(gate: Gate, ask: Ask, client: Leaving): Access | Promise<Access> {
  const authorization = ask.header('authorization');
  const { method, path, query } = ask;
  // Without a credential there is nothing to wait for, and no signal to make.
  const signal = authorization === undefined ? undefined : client.leaving();
  const grant = gate.open({ method, path, query, authorization }, signal);
  return grant instanceof Promise ? grant.then(accessOf) : accessOf(grant);
}

function accessOf(grant: Grant): Access {
  switch (grant.kind) {
    case 'caller':
      return grant.caller.scope === 'upload' ? { kind: 'none', refusal: () => faultOfGrant(grant) } : ALL;
    case 'link':
      return ALL;
    case 'anonymous':
      return { kind: 'public', refusal: () => faultOfGrant(grant) };
    case 'unavailable':
      return { kind: 'none', refusal: () => faultOfGrant(grant) };
    default:
      return unreachable(grant);
  }
}
