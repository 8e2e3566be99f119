/**
 * Who may do what, decided from the request's credential by the gate. Reading
 * depends on the visibility of the media; everything else needs a token.
 */

import { type Caller, type Gate, type Grant, mayRead, mayUpload } from '../src/access/grant.js';
import { faultOfGrant } from '../src/access/refusal.js';
import { Fault } from '../src/errors.js';
import type { Found, Media } from './meta/media.js';
import type { OriginRequest } from './server/request.js';

/** Who reads media. An edge has asked its own gate, so it may read what any caller may. */
export type Viewer =
  | { readonly kind: 'edge' }
  /** `edge`: an edge asks for this client, so the response has lifetimes for the edge. */
  | { readonly kind: 'client'; readonly grant: Grant; readonly edge: boolean };

const ANONYMOUS: Grant = { kind: 'anonymous', refusal: 'none' };

export async function viewerOf(gate: Gate, request: OriginRequest): Promise<Viewer> {
  switch (request.sender) {
    case 'edge':
      return { kind: 'edge' };
    case 'edge_for_anonymous':
      return { kind: 'client', grant: ANONYMOUS, edge: true };
    case 'client':
      return { kind: 'client', grant: await grantOf(gate, request), edge: false };
  }
}

/**
 * The media, if this viewer may read it; otherwise throws a Fault. A viewer who
 * may not read it cannot tell private, gone and unknown media apart.
 */
export function admitViewer(viewer: Viewer, found: Found): Media {
  switch (found.kind) {
    case 'unknown':
      requireReader(viewer, false);
      throw new Fault('not_found', 'There is no media with this id.');
    case 'deleted':
      requireReader(viewer, found.record.public);
      throw new Fault('deleted', 'The media was deleted.');
    case 'expired':
      requireReader(viewer, found.record.public);
      throw new Fault('expired', 'The media has expired.');
    case 'quarantined':
      requireReader(viewer, found.media.record.public);
      throw found.media.blob.quarantine?.cause === 'held'
        ? new Fault('quarantined', 'The media is withheld until it has been scanned.')
        : new Fault('quarantined', 'The media is quarantined.');
    case 'live':
      requireReader(viewer, found.media.record.public);
      return found.media;
  }
}

function requireReader(viewer: Viewer, isPublic: boolean): void {
  if (viewer.kind === 'client' && !mayRead(viewer.grant, isPublic)) throw faultOfGrant(viewer.grant);
}

/** A caller who may upload. */
export async function requireUploader(gate: Gate, request: OriginRequest): Promise<Caller> {
  const grant = await grantOf(gate, request);
  if (!mayUpload(grant)) throw faultOfGrant(grant);
  return grant.caller;
}

/** Any valid token. */
export async function requireCaller(gate: Gate, request: OriginRequest): Promise<Caller> {
  const grant = await grantOf(gate, request);
  if (grant.kind !== 'caller') throw faultOfGrant(grant);
  return grant.caller;
}

export async function requireAdmin(gate: Gate, request: OriginRequest): Promise<Caller> {
  const caller = await requireCaller(gate, request);
  if (!caller.roles.has('admin')) throw new Fault('forbidden', 'This needs the role `admin`.');
  return caller;
}

/** What a caller may do with media: all of them as an admin, or their own. */
export type Rights = { readonly caller: Caller; readonly over: 'all' | 'own' };

/** An admin; or an owner, where owners may delete, by a token that is not limited to reading or uploading. */
export async function requireKeeper(gate: Gate, request: OriginRequest, ownersMayDelete: boolean): Promise<Rights> {
  const caller = await requireCaller(gate, request);
  if (caller.roles.has('admin')) return { caller, over: 'all' };
  if (ownersMayDelete && caller.scope === 'all') return { caller, over: 'own' };
  throw new Fault('forbidden', 'This needs the role `admin`.');
}

async function grantOf(gate: Gate, request: OriginRequest): Promise<Grant> {
  const { method, path, query, signal } = request;
  const grant = await gate.open({ method, path, query, authorization: request.header('authorization') }, signal);
  if (grant.kind === 'caller') {
    request.identify(grant.caller);
    request.meter.subject(grant.caller.subject);
  }
  return grant;
}
