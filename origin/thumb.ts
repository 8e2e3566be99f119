/**
 * GET and HEAD of a thumbnail: authorize > find > wait > choose > serve. Origin
 * and edge choose variant and format by the same code (thumb-choice.ts), so they
 * agree.
 */
import type { Gate } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import { Fault } from '../src/errors.js';
import { type HeaderList, jsonReply, type Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import {
  acceptsPicturesAlone,
  chooseFormat,
  chooseVariant,
  isForPicture,
  readThumbSize,
  type ThumbOptions,
} from '../src/media/thumb-choice.js';
import { admitViewer, viewerOf } from './authorize.js';
import { type BlobStore, thumbKey } from './blobs/blob-store.js';
import type { UseReports } from './edges/use-reports.js';
import type { ThumbMade, ThumbRefusal } from './meta/media.js';
import type { MetaStore } from './meta/store.js';
import type { DownloadConfig } from './respond/config.js';
import { lifetimeFor } from './respond/lifetime.js';
import { inMemory, mediaReply } from './respond/media-reply.js';
import type { OriginRequest } from './server/request.js';
import type { ThumbsConfig } from './thumbs/config.js';
import type { Thumbs } from './thumbs/engine.js';
import { placeholderPng } from './thumbs/placeholder.js';
import { inFormat, pickThumb, type Size, sizeOfVariant } from './thumbs/plan.js';
import type { EarlyThumb } from './thumbs/store-thumb.js';

export interface ThumbDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find'>;
  readonly blobs: Pick<BlobStore, 'read'>;
  readonly useReports: Pick<UseReports, 'note'>;
  readonly thumbs: Pick<Thumbs, 'prioritize' | 'wait' | 'waitForEarly' | 'early'>;
  readonly clock: Pick<Clock, 'now'>;
  readonly thumbOptions: ThumbOptions;
  readonly config: { readonly download: DownloadConfig; readonly thumbs: ThumbsConfig };
}

export async function thumb(deps: ThumbDeps, request: OriginRequest, id: MediaId): Promise<Reply> {
  const { config, meta, thumbs } = deps;
  const accept = request.header('accept');
  const picture = isForPicture(request.header('sec-fetch-dest'), acceptsPicturesAlone(accept));
  const viewer = await viewerOf(deps.gate, request);
  request.meter.admitDownload();
  let now = request.receivedAt;
  let media = admitViewer(viewer, await meta.find(id, now));
  const variant = chooseVariant(deps.thumbOptions, readThumbSize(request.query)).name;
  if (media.blob.thumbs.kind === 'pending') {
    const { sha256 } = media.blob;
    await thumbs.prioritize(sha256);
    const { pictureWaitMs, waitMs } = config.thumbs;
    if (picture && isEarlyEnough(config.thumbs, variant)) {
      await thumbs.waitForEarly(sha256, pictureWaitMs, request.signal);
    } else await thumbs.wait(sha256, picture ? pictureWaitMs : waitMs, request.signal);
    // Decided again: the media may have been taken down during the wait.
    now = deps.clock.now();
    media = admitViewer(viewer, await meta.find(id, now));
  }
  const { record, blob } = media;
  deps.useReports.note(record, now);
  const format = chooseFormat(accept, deps.thumbOptions.formats);
  const reply = (made: ThumbMade, blobs: Pick<BlobStore, 'read'>): Reply => {
    const representation = {
      mediaId: record.id,
      key: thumbKey(blob.sha256, made),
      sha256: made.sha256,
      sizeBytes: made.sizeBytes,
      contentType: `image/${made.format}`,
      lastModifiedAt: record.createdAt,
      headers: thumbHeaders(made),
      lifetime: lifetimeFor(viewer, record, config.download, now, false),
    };
    return mediaReply(blobs, request, representation, now, config.download);
  };
  switch (blob.thumbs.kind) {
    case 'pending': {
      if (!picture) return pendingReply();
      const early = inFormat(thumbs.early(blob.sha256), format);
      if (early === undefined) return placeholderReply(sizeOfVariant(blob.picture, config.thumbs.variants, variant));
      const isWanted = variant === config.thumbs.defaultVariant && format !== 'avif';
      return isWanted ? reply(early, inMemory(early.bytes)) : otherReply(early);
    }
    case 'none':
      throw unavailable(blob.thumbs.reason);
    case 'ready': {
      const { made } = blob.thumbs;
      const picked = pickThumb(made, blob.picture, config.thumbs.variants, { variant, format });
      if (picked === undefined) throw unavailable('failed');
      return reply(picked, deps.blobs);
    }
  }
}

function thumbHeaders(made: Size): HeaderList {
  return [
    ['content-disposition', 'inline'],
    ['media-width', String(made.width)],
    ['media-height', String(made.height)],
    ['vary', 'Accept'],
  ];
}

/** When the client should try again. The engine is usually done sooner. */
const RETRY_AFTER_SECONDS = 2;

function pendingReply(): Reply {
  return jsonReply(202, { status: 202, code: 'thumbnail_pending', title: 'The thumbnail is being made' }, [
    ['retry-after', String(RETRY_AFTER_SECONDS)],
    ['vary', 'Accept'],
  ]);
}

/** Whether the default variant, which is made first, is large enough in the place of another one. */
function isEarlyEnough({ variants, defaultVariant }: ThumbsConfig, wanted: string): boolean {
  const widthOf = (name: string): number => variants.find((variant) => variant.name === name)?.width ?? 0;
  return widthOf(wanted) <= widthOf(defaultVariant);
}

/** Another thumbnail than the one that a picture element wants, which is not made yet. Nobody stores this answer. */
function otherReply(early: EarlyThumb): Reply {
  return {
    status: 200,
    headers: [['content-type', `image/${early.format}`], ...thumbHeaders(early), ['cache-control', 'no-store']],
    body: { kind: 'bytes', bytes: early.bytes },
  };
}

/** A picture element shows only pictures. Nobody stores this one, so the next request asks again. */
function placeholderReply({ width, height }: Size): Reply {
  return {
    status: 200,
    headers: [
      ['content-type', 'image/png'],
      ['content-disposition', 'inline'],
      ['cache-control', 'no-store'],
      ['media-placeholder', '?1'],
      ['vary', 'Accept'],
    ],
    body: { kind: 'bytes', bytes: placeholderPng(width, height) },
  };
}

const REFUSALS: Readonly<Record<ThumbRefusal, string>> = {
  unsupported_type: 'There are no thumbnails of media of this type.',
  broken_image: 'The image is broken.',
  too_many_pixels: 'The image has too many pixels.',
  too_expensive: 'The image takes too much memory or time to decode.',
  failed: 'The thumbnail could not be made.',
};

function unavailable(reason: ThumbRefusal): Fault {
  return new Fault('thumbnail_unavailable', REFUSALS[reason], { members: { reason } });
}
