/**
 * What is wanted of the origin on a caller's behalf, as plain values, and the
 * head of the request that is sent for it.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Fault } from '../../src/errors.js';
import { endToEnd, withVia } from '../../src/http/fields.js';
import type { HeaderList } from '../../src/http/reply.js';
import { EDGE_PROOF, INTERNAL_FIELDS, MEDIA_CALLER, REQUEST_ID } from '../../src/wire.js';
import type { Entry } from '../entry.js';
import type { CacheTarget } from '../key.js';
import type { EdgeRequest } from '../request.js';
import { preconditions, REPLACED_BY_PRECONDITIONS } from '../rfc9111/validate.js';
import { matches } from '../rfc9111/vary.js';

/**
 * As whom the origin is asked: as the edge, which has authorised the caller; for
 * somebody without a credential, who may see public media only; or, in generic
 * mode, as the client itself.
 */
export type FetchAs = 'edge' | 'anonymous' | 'client';

export interface CacheRequest {
  readonly request: EdgeRequest;
  readonly target: CacheTarget;
  readonly fetchAs: FetchAs;
  /** For a caller without a credential: the answer where what is asked for is not public. */
  readonly refusal: (() => Fault) | undefined;
  /** When the right to see it ends that the caller has by a signed link; otherwise Infinity. */
  readonly endsAt: EpochMs;
}

export interface Identity {
  /** The value of `edge-authorization`. */
  readonly proof: string;
  /** What stands in Via. */
  readonly edgeName: string;
}

/** Beside whose flight it may go: a stranger never shares one with callers who may see more. */
export function flightKey({ target, fetchAs }: CacheRequest, method: 'GET' | 'HEAD'): string {
  return `${method} ${fetchAs} ${target.primaryKey}`;
}

/** What selects among stored responses (RFC 9111 4.1). Of media it is all in the key. */
export function selecting({ request, fetchAs }: CacheRequest): Pick<EdgeRequest, 'header'> {
  return fetchAs === 'client' ? { header: (name) => request.header(name) } : NOTHING;
}

const NOTHING: Pick<EdgeRequest, 'header'> = { header: () => undefined };

/**
 * The head for an answer that is to be kept and shared: the whole, whatever
 * part or condition the caller named. With `asked`, only if none of those holds
 * any more (RFC 9111 4.3.1).
 */
export function sharedFields(wanted: CacheRequest, stored: readonly Entry[], identity: Identity): HeaderList {
  const selected = stored.length === 1 && stored.every((entry) => matches(entry, selecting(wanted)));
  return [...ownFields(wanted, identity, ONE_CALLERS), ...preconditions(stored, selected)];
}

/** The head for one caller's own answer: parts and conditions as the caller wants them. */
export function loneFields(wanted: CacheRequest, identity: Identity): HeaderList {
  const base = ownFields(wanted, identity, NEVER_SENT_ON);
  if (wanted.fetchAs === 'client') return base;
  const own = wanted.request.fields().filter(([name]) => ONE_CALLERS.has(name) && !NEVER_SENT_ON.has(name));
  return [...base, ...own];
}

/** A part of the representation that `etag` names, or the whole where the origin has another by now. */
export function partFields(wanted: CacheRequest, range: string, etag: string, identity: Identity): HeaderList {
  return [...ownFields(wanted, identity, ONE_CALLERS), ['range', range], ['if-range', etag]];
}

/** Whether an answer made for this caller alone would differ from the whole. */
export function wantsOwn(request: EdgeRequest): boolean {
  if (request.method === 'HEAD') return true;
  for (const name of REPLACED_BY_PRECONDITIONS) if (request.header(name) !== undefined) return true;
  return false;
}

function ownFields(
  { request, target, fetchAs }: CacheRequest,
  { proof, edgeName }: Identity,
  without: ReadonlySet<string>,
): HeaderList {
  if (fetchAs === 'client') {
    const crossing = endToEnd(request.fields()).filter(([name]) => !without.has(name));
    return withVia([...crossing, [REQUEST_ID, request.requestId]], '1.1', edgeName);
  }
  return [
    ['accept', target.accept ?? '*/*'],
    // One stored form serves all: media are compressed already.
    ['accept-encoding', 'identity'],
    [EDGE_PROOF, proof],
    ...(fetchAs === 'anonymous' ? ([[MEDIA_CALLER, 'anonymous']] as const) : []),
    [REQUEST_ID, request.requestId],
    ['via', `1.1 ${edgeName}`],
  ];
}

/** Framing and identity are made anew; what is between edge and origin is never a client's to say. */
const NEVER_SENT_ON: ReadonlySet<string> = new Set([...INTERNAL_FIELDS, 'host', 'content-length', 'expect']);

/** What makes an answer right for one caller only. */
const ONE_CALLERS: ReadonlySet<string> = new Set([...NEVER_SENT_ON, ...REPLACED_BY_PRECONDITIONS]);
