/**
 * The answer to a caller whose grant does not suffice. It is made from the
 * credential alone, never from what was asked for: a private id, an unknown id
 * and a private tombstone get the same one, byte for byte.
 */
import { Fault, unreachable } from '../errors.js';
import type { Grant } from './grant.js';

const REALM = 'Bearer realm="media"';

/** The one place where a grant becomes 401, 403 (a token limited to the other half) or 503. */
export function faultOfGrant(grant: Grant): Fault {
  switch (grant.kind) {
    case 'anonymous':
      return grant.refusal.startsWith('token_') ? tokenFault(grant.refusal === 'token_expired') : needsCredential();
    case 'link':
      return needsCredential();
    case 'caller':
      return new Fault('forbidden', 'The token is limited to other uses of the service.', {
        headers: challenge(`${REALM}, error="insufficient_scope"`),
      });
    case 'unavailable':
      return new Fault('auth_unavailable', 'The token cannot be checked at the moment.', {
        headers: { 'retry-after': String(Math.max(1, Math.ceil(grant.retryAfterMs / 1_000))) },
      });
    default:
      return unreachable(grant);
  }
}

/** RFC 6750 3.1: who brought no token is told of no error. */
function needsCredential(): Fault {
  return new Fault('unauthorized', 'Send a token that holds, or use a signed link.', { headers: challenge(REALM) });
}

function tokenFault(expired: boolean): Fault {
  const description = expired ? 'The token has expired' : 'The token does not hold';
  return new Fault('unauthorized', `${description}.`, {
    headers: challenge(`${REALM}, error="invalid_token", error_description="${description}"`),
  });
}

function challenge(value: string): Readonly<Record<string, string>> {
  return { 'www-authenticate': value };
}
