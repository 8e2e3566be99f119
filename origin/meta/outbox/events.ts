/**
 * What the chat server is told of media by webhooks: one event for each id. Rules tell it in the transaction that makes
 * it true, and the store keeps it there (outbox.ts). Which events there are is decided here, for every store.
 *
 * Media are told to be ready, or refused, once for each id: when they can be seen and all facts that an upload waits for
 * are known. Thumbnails that are rendered again later are not told.
 */
import type { MediaId } from '../../../src/ids.js';
import { type Change, readOrSkip } from '../database.js';
import { type Job, OWN_JOBS } from '../jobs.js';
import { awaitsScan, type BlobRecord, type Media, type MediaState, type Quarantine } from '../media.js';
import { JOBS, liveIdsOf, MEDIA } from '../tables.js';
import type { EventType } from './outbox.js';

/** For an upload that made an id: nothing that happened to the id before it was known, and that it is ready, if so. */
export function eventOfCreated(change: Change, media: Media): void {
  dropEventsOf(change, media.record.id);
  if (media.blob.quarantine === null && isComplete(change, media.blob)) addKnown(change, media);
}

/** Takes back what this transaction told of an id that nobody has heard of. */
export function dropEventsOf(change: Change, id: MediaId): void {
  const others = change.events.filter((event) => event.id !== id);
  change.events.splice(0, change.events.length, ...others);
}

/** For a job that has ended: with thumbnails, or with the reason why there are none. */
export function eventsOfRendered(change: Change, job: Job | undefined, blob: BlobRecord): void {
  if (change.eventMaker?.waitsForThumbs !== true || job === undefined || job.owner === OWN_JOBS) return;
  if (blob.quarantine === null) for (const media of liveMediaOf(change, blob)) addKnown(change, media);
}

export function eventOfEnded(change: Change, id: MediaId, state: Exclude<MediaState['kind'], 'live'>): void {
  addEvent(change, `media.${state}`, id, {});
}

/** For a mark that was set, changed or lifted. `blob` is as it was before. */
export function eventsOfMarked(change: Change, blob: BlobRecord, mark: Quarantine | null): void {
  if (change.eventMaker === undefined || mark?.cause === 'held') return;
  const after = { ...blob, quarantine: mark };
  if (mark === null) {
    const isReleased = awaitsScan(blob);
    if (isReleased && !isComplete(change, after)) return;
    for (const media of liveMediaOf(change, after)) {
      if (isReleased) addKnown(change, media);
      else addEvent(change, 'media.restored', media.record.id, change.eventMaker.describe(media));
    }
    return;
  }
  const [type, reason] = awaitsScan(blob)
    ? (['media.refused', 'quarantined'] as const)
    : (['media.quarantined', mark.cause === 'rot' ? 'damaged' : 'quarantined'] as const);
  for (const id of liveIdsOf(change.writer, blob.sha256)) addEvent(change, type, id, { reason });
}

/** Whether no job of an upload will tell more. Jobs that no upload has queued tell nothing. */
function isComplete(change: Change, { sha256, thumbs }: BlobRecord): boolean {
  if (thumbs.kind !== 'pending' || change.eventMaker?.waitsForThumbs !== true) return true;
  return (readOrSkip(change.writer, JOBS, sha256, change.damaged)?.owner ?? OWN_JOBS) === OWN_JOBS;
}

/** A type of which there are never thumbnails is no refusal. */
function addKnown(change: Change, media: Media): void {
  const { thumbs } = media.blob;
  const document = change.eventMaker?.describe(media) ?? {};
  const { id } = media.record;
  if (thumbs.kind !== 'none' || thumbs.reason === 'unsupported_type') addEvent(change, 'media.ready', id, document);
  else addEvent(change, 'media.refused', id, { ...document, reason: thumbs.reason });
}

function liveMediaOf(change: Change, blob: BlobRecord): readonly Media[] {
  const read = (id: MediaId) => readOrSkip(change.writer, MEDIA, id, change.damaged);
  return liveIdsOf(change.writer, blob.sha256).flatMap((id) => {
    const record = read(id)?.record;
    return record === undefined ? [] : [{ record, blob }];
  });
}

function addEvent(change: Change, type: EventType, id: MediaId, data: object): void {
  if (change.eventMaker === undefined) return;
  const name = `msg_${change.newMark().replaceAll('-', '')}`;
  change.events.push({ name, type, at: Math.floor(change.now), id, data: JSON.stringify({ id, ...data }) });
}
