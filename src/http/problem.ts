/**
 * Problem documents (RFC 9457): the only place where a failure becomes an
 * answer. It contains the table's texts and the public detail, nothing else.
 */
import { FAULTS, type Fault } from '../errors.js';
import { CORS_HEADERS, GUARD_HEADERS } from './browser.js';
import type { HeaderList, Reply } from './reply.js';

const CHALLENGE = 'Bearer realm="media"';
/** Where the fault says nothing else: a limit is over soon, a lack of room lasts longer (RFC 9110 10.2.3). */
const RETRY_AFTER_SECONDS: Readonly<Record<number, string>> = { 503: '1', 507: '60' };

export function problemReply(fault: Fault): Reply {
  const kind = FAULTS[fault.code];
  const retryAfter = RETRY_AFTER_SECONDS[kind.status];
  const document = {
    type: `urn:media-service:problem:${fault.code}`,
    title: kind.title,
    status: kind.status,
    detail: fault.detail,
    code: fault.code,
    ...fault.members,
  };
  const headers: HeaderList = [
    ['content-type', 'application/problem+json'],
    ['cache-control', 'no-store'],
    ...(kind.status === 401 && fault.headers['www-authenticate'] === undefined
      ? ([['www-authenticate', CHALLENGE]] as const)
      : []),
    ...(retryAfter !== undefined && fault.headers['retry-after'] === undefined
      ? ([['retry-after', retryAfter]] as const)
      : []),
    ...Object.entries(fault.headers),
  ];
  return { status: kind.status, headers, body: { kind: 'bytes', bytes: Buffer.from(JSON.stringify(document)) } };
}

/** The same on a listener for clients: a script in a browser may read it. */
export function clientProblem(fault: Fault): Reply {
  const reply = problemReply(fault);
  return { ...reply, headers: [...reply.headers, ...GUARD_HEADERS, ...CORS_HEADERS] };
}
