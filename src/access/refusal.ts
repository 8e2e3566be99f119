/**
 * The answer to a caller whose grant is not enough. It depends on the credential
 * alone, never on the media: a private id, an unknown id and a private tombstone
 * get the same answer, byte for byte.
 */
import { Fault, unreachable } from '../errors.js';
import type { Grant } from './grant.js';

const REALM = 'Bearer realm="media"';

/** The one place where a grant becomes 401, 403 (a token that is limited to another use) or 503. */
export function faultOfGrant(grant: Grant): Fault {
  switch (grant.kind) {
    case 'anonymous':
      if (grant.refusal.startsWith('token_')) return tokenFault(grant.refusal === 'token_expired');
      return grant.refusal === 'link_expired' ? linkExpiredFault() : credentialFault();
    case 'link':
      return credentialFault();
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

/** RFC 6750 3.1: a request without a token gets a challenge without an error code. */
function credentialFault(): Fault {
  return new Fault('unauthorized', 'Send a valid token, or use a signed link.', { headers: challenge(REALM) });
}

/** Its signature was right, so it tells nothing to those who never had it. */
function linkExpiredFault(): Fault {
  return new Fault('link_expired', 'Request a new link.', { headers: challenge(REALM) });
}

function tokenFault(expired: boolean): Fault {
  const description = expired ? 'The token has expired' : 'The token is not valid';
  return new Fault('unauthorized', `${description}.`, {
    headers: challenge(`${REALM}, error="invalid_token", error_description="${description}"`),
  });
}

function challenge(value: string): Readonly<Record<string, string>> {
  return { 'www-authenticate': value };
}
