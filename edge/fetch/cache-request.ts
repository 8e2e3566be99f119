/** A request on its way to the cache and the origin: what is requested, and for whom. Plain values. */
import type { EpochMs } from '../../src/clock.js';
import type { Fault } from '../../src/errors.js';
import { isForwardingField } from '../../src/http/fields.js';
import type { FetchAs } from '../authorize.js';
import type { CacheTarget } from '../key.js';
import type { EdgeRequest } from '../request.js';

export interface CacheRequest {
  readonly request: EdgeRequest;
  readonly target: CacheTarget;
  readonly fetchAs: FetchAs;
  /** For a caller without a credential: the answer if the media is not public. */
  readonly refusal: (() => Fault) | undefined;
  /** Of the caller's token; undefined without one. */
  readonly subject: string | undefined;
  /** The caller is an edge behind this one, and gets the fields that are for edges. */
  readonly forEdge: boolean;
  /** When the caller's signed link ends; Infinity without one. */
  readonly endsAt: EpochMs;
}

/**
 * The request fields that select among stored responses (RFC 9111 4.1), as the
 * origin gets them. None for media: their key says it all.
 */
export function selecting({ request, fetchAs }: CacheRequest): Pick<EdgeRequest, 'header'> {
  return fetchAs === 'client' ? { header: (name) => headerAtOrigin(request, name) } : NOTHING;
}

function headerAtOrigin(request: EdgeRequest, name: string): string | undefined {
  if (name === 'x-forwarded-for') return request.sender().address;
  if (name === 'x-forwarded-proto') return request.sender().scheme;
  return isForwardingField(name) ? undefined : request.header(name);
}

const NOTHING: Pick<EdgeRequest, 'header'> = { header: () => undefined };
