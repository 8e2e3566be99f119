/**
 * From a request to who may do what, by the one gate. Reading media goes by
 * visibility and has many answers; everything else needs a caller.
 */

import { hash } from 'node:crypto';
import { type Caller, type Gate, type Grant, mayRead, mayUpload } from '../src/access/grant.js';
import { faultOfGrant } from '../src/access/refusal.js';
import { Fault } from '../src/errors.js';
import type { Found, Media } from './meta/media.js';
import type { OriginRequest } from './server/request.js';

/** Who looks at media. An edge has asked its own gate, so it sees what any caller may see. */
export type Viewer =
  | { readonly kind: 'edge' }
  /** `edge`: an edge asks on behalf of this one, and gets its own cache lifetimes. */
  | { readonly kind: 'client'; readonly grant: Grant; readonly edge: boolean };

const ANONYMOUS: Grant = { kind: 'anonymous', refusal: 'none' };

export async function viewerOf(gate: Gate, request: OriginRequest): Promise<Viewer> {
  switch (request.sender) {
    case 'edge':
      return { kind: 'edge' };
    case 'edge_for_anonymous':
      return { kind: 'client', grant: ANONYMOUS, edge: true };
    case 'client':
      return { kind: 'client', grant: await openGate(gate, request), edge: false };
  }
}

/**
 * The media, where this viewer may have it; else the refusal as a Fault. To
 * whoever may not read it, what is private, gone or never was looks the same.
 */
export function admitViewer(viewer: Viewer, found: Found): Media {
  switch (found.kind) {
    case 'unknown':
      requireSight(viewer, false);
      throw new Fault('not_found', 'There is no media with this id.');
    case 'deleted':
      requireSight(viewer, found.record.public);
      throw new Fault('deleted', 'The media was deleted.');
    case 'expired':
      requireSight(viewer, found.record.public);
      throw new Fault('expired', 'The media has expired.');
    case 'quarantined':
      requireSight(viewer, found.media.record.public);
      throw found.media.blob.quarantine?.cause === 'held'
        ? new Fault('quarantined', 'The media is withheld until it has been scanned.')
        : new Fault('quarantined', 'The media is quarantined.');
    case 'live':
      requireSight(viewer, found.media.record.public);
      return found.media;
  }
}

function requireSight(viewer: Viewer, isPublic: boolean): void {
  if (viewer.kind === 'client' && !mayRead(viewer.grant, isPublic)) throw faultOfGrant(viewer.grant);
}

/** Who may upload. */
export async function requireUploader(gate: Gate, request: OriginRequest): Promise<Caller> {
  const grant = await openGate(gate, request);
  if (!mayUpload(grant)) throw faultOfGrant(grant);
  return grant.caller;
}

/** Any valid token. */
export async function requireCaller(gate: Gate, request: OriginRequest): Promise<Caller> {
  const grant = await openGate(gate, request);
  if (grant.kind !== 'caller') throw faultOfGrant(grant);
  return grant.caller;
}

export async function requireAdmin(gate: Gate, request: OriginRequest): Promise<Caller> {
  const caller = await requireCaller(gate, request);
  if (!caller.roles.has('admin')) throw new Fault('forbidden', 'This needs the role of an admin.');
  return caller;
}

async function openGate(gate: Gate, request: OriginRequest): Promise<Grant> {
  const { method, path, query, signal } = request;
  const grant = await gate.open({ method, path, query, authorization: request.header('authorization') }, signal);
  if (grant.kind === 'caller') {
    request.note({ subject: subjectMark(grant.caller) });
    request.meter.subject(grant.caller.subject);
  }
  return grant;
}

/** Tells callers apart in the log without naming them. */
function subjectMark(caller: Caller): string {
  return hash('sha256', `${caller.issuer}\n${caller.subject}`).slice(0, 12);
}
