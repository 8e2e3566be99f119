/**
 * What admins may read (and of the pages, where owners may delete, those of the caller's own media): pages of media by owner, type, state and time, and all
 * that is known of one media, including which edges have confirmed its last
 * takedown. The audit log records these reads too.
 */
import type { Gate } from '../src/access/grant.js';
import type { EpochMs } from '../src/clock.js';
import { Fault } from '../src/errors.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import type { EdgePosition } from '../src/journal/confirmations.js';
import type { AuditLog } from './audit.js';
import { type Rights, requireAdmin, requireKeeper } from './authorize.js';
import type { OriginJournal } from './edges/origin-journal.js';
import { stateOf } from './meta/find.js';
import type { BlobRecord, Found, MediaRecord, ThumbMade, ThumbState } from './meta/media.js';
import type { ListQuery, MetaStore } from './meta/store.js';
import { describeMedia, instantText } from './respond/media-json.js';
import type { OriginRequest } from './server/request.js';
import { recordAct } from './takedown.js';

export interface AdminDeps {
  readonly audit: Pick<AuditLog, 'append'>;
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find' | 'findBlob' | 'idsOfBlob' | 'list' | 'takedownSeqOf'>;
  readonly journal: Pick<OriginJournal, 'confirmed' | 'positions'>;
  readonly baseUri: string;
  readonly ownersMayDelete: boolean;
}

export const LISTED_STATES = ['live', 'deleted', 'expired', 'quarantined', 'held'] as const;

export interface ListOptions {
  readonly owner: string | undefined;
  readonly type: string | undefined;
  readonly state: (typeof LISTED_STATES)[number] | undefined;
  readonly from: EpochMs | undefined;
  readonly to: EpochMs | undefined;
  readonly cursor: MediaId | undefined;
  readonly limit: number | undefined;
}

const PAGE = 50;

export async function listMedia(deps: AdminDeps, request: OriginRequest, options: ListOptions): Promise<Reply> {
  const { caller, over } = await requireKeeper(deps.gate, request, deps.ownersMayDelete);
  const owner = over === 'all' ? options.owner : caller.subject;
  if (options.owner !== undefined && options.owner !== owner) {
    throw new Fault('forbidden', 'Only an admin lists the media of others.');
  }
  const page = await deps.meta.list(queryOf({ ...options, owner }, request.receivedAt));
  await recordAct(deps, request, caller, { act: 'inspect', target: null, outcome: 'done' });
  return jsonReply(200, { items: page.found.map((found) => listed(found, over)), next: page.next });
}

function queryOf(options: ListOptions, now: EpochMs): ListQuery {
  return {
    ...(options.owner !== undefined && { owner: options.owner }),
    ...(options.type !== undefined && { mime: options.type }),
    ...(options.state !== undefined && { state: options.state }),
    ...(options.from !== undefined && { createdFrom: options.from }),
    ...(options.to !== undefined && { createdTo: options.to }),
    ...(options.cursor !== undefined && { after: options.cursor }),
    limit: options.limit ?? PAGE,
    now,
  };
}

export async function inspectMedia(deps: AdminDeps, request: OriginRequest, id: MediaId): Promise<Reply> {
  const caller = await requireAdmin(deps.gate, request);
  const found = await deps.meta.find(id, request.receivedAt);
  await recordAct(deps, request, caller, { act: 'inspect', target: id, outcome: found.kind });
  if (found.kind === 'unknown') throw new Fault('not_found', 'There is no media with this id.');
  const record = recordOf(found);
  const blob = 'media' in found ? found.media.blob : await deps.meta.findBlob(record.sha256);
  const [ids, seq, edges] = await Promise.all([
    deps.meta.idsOfBlob(record.sha256),
    deps.meta.takedownSeqOf(id),
    deps.journal.positions(),
  ]);
  return jsonReply(200, {
    ...listed(found, 'all'),
    ...(blob !== undefined && { ...describeMedia({ record, blob }, deps.baseUri), content: contentOf(blob) }),
    duplicates: ids.filter((each) => each !== id),
    takedown: seq === 0 ? null : { seq, edges: edges.map((edge) => confirmationOf(edge, seq)) },
  });
}

function recordOf(found: Exclude<Found, { kind: 'unknown' }>): MediaRecord {
  return 'media' in found ? found.media.record : found.record;
}

/** An owner is not told which admin has deleted it. */
function listed(found: Exclude<Found, { kind: 'unknown' }>, over: Rights['over']): Readonly<Record<string, unknown>> {
  const record = recordOf(found);
  const { state } = record;
  return {
    id: record.id,
    state: stateOf(found),
    owner: record.owner,
    public: record.public,
    sha256: record.sha256,
    filename: record.filename,
    created_at: instantText(record.createdAt),
    expires_at: record.expiresAt === null ? null : instantText(record.expiresAt),
    used_at: instantText(record.usedAt),
    ...(state.kind === 'deleted' && { deleted_at: instantText(state.at) }),
    ...(state.kind === 'deleted' && over === 'all' && { deleted_by: state.by }),
    ...('media' in found && { mime: found.media.blob.mime, size: found.media.blob.sizeBytes }),
    ...(over === 'all' && found.kind === 'quarantined' && { quarantine: quarantineOf(found.media.blob) }),
  };
}

/** What clients do not see of the blob record. */
function contentOf(blob: BlobRecord): unknown {
  const { storedAt, picture, thumbs } = blob;
  return {
    stored_at: instantText(storedAt),
    frames: picture.frames,
    orientation: picture.orientation,
    quarantine: quarantineOf(blob),
    thumbnails: thumbsOf(thumbs),
  };
}

function quarantineOf({ quarantine }: BlobRecord): unknown {
  if (quarantine === null) return null;
  const { at, by, reason, cause } = quarantine;
  return { at: instantText(at), by, reason, cause };
}

function thumbsOf(thumbs: ThumbState): unknown {
  switch (thumbs.kind) {
    case 'pending':
      return { state: 'pending' };
    case 'none':
      return { state: 'none', reason: thumbs.reason };
    case 'ready':
      return {
        state: 'ready',
        made: thumbs.made.map(thumbOf),
      };
  }
}

function thumbOf({ variant, format, sha256, sizeBytes, width, height, animated }: ThumbMade): unknown {
  return { variant, format, sha256, size: sizeBytes, width, height, animated };
}

function confirmationOf(edge: EdgePosition, seq: number): unknown {
  return {
    edge: edge.edge,
    connected: edge.connected,
    confirmed: edge.confirmed >= seq,
    heard_at: instantText(edge.heardAt),
  };
}
