/**
 * GET and HEAD of a thumbnail: authorize > find > choose > wait > serve. The
 * choice of variant and format is shared with the edge (thumb-choice.ts), so
 * that both mean the same one.
 */
import type { Gate } from '../src/access/grant.js';
import { Fault } from '../src/errors.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import {
  type ChosenFormat,
  chooseFormat,
  chooseVariant,
  readWish,
  type ThumbMenu,
} from '../src/media/thumb-choice.js';
import { admitViewer, viewerOf } from './authorize.js';
import { type BlobStore, thumbKey } from './blobs/blob-store.js';
import { type DownloadConfig, lifetimeFor } from './download.js';
import { mediaReply } from './media-reply.js';
import type { ThumbFormat, ThumbMade, ThumbRefusal } from './meta/media.js';
import type { MetaStore } from './meta/store.js';
import type { OriginRequest } from './request.js';
import type { ThumbsConfig } from './thumbs/config.js';
import type { Thumbs } from './thumbs/engine.js';

export interface ThumbParts {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find'>;
  readonly blobs: Pick<BlobStore, 'read'>;
  readonly thumbs: Pick<Thumbs, 'hurry' | 'wait'>;
  readonly menu: ThumbMenu;
  readonly config: { readonly download: DownloadConfig; readonly thumbs: ThumbsConfig };
}

export async function thumb(parts: ThumbParts, request: OriginRequest, id: MediaId): Promise<Reply> {
  const now = request.receivedAt;
  const viewer = await viewerOf(parts.gate, request);
  const { record, blob } = admitViewer(viewer, await parts.meta.find(id, now));

  let state = blob.thumbs;
  if (state.kind === 'pending') {
    await parts.thumbs.hurry(blob.sha256);
    state = await parts.thumbs.wait(blob.sha256, parts.config.thumbs.waitMs, request.signal);
  }
  switch (state.kind) {
    case 'pending':
      return pendingReply();
    case 'none':
      throw unavailable(state.reason);
    case 'ready': {
      const made = chooseMade(state.made, parts.menu, request);
      if (made === undefined) throw unavailable('failed');
      return mediaReply(
        parts.blobs,
        request,
        {
          mediaId: record.id,
          key: thumbKey(blob.sha256, made.sha256),
          sha256: made.sha256,
          sizeBytes: made.sizeBytes,
          contentType: `image/${made.format}`,
          lastModifiedAt: record.createdAt,
          headers: [
            ['content-disposition', 'inline'],
            ['media-width', String(made.width)],
            ['media-height', String(made.height)],
            ['vary', 'Accept'],
          ],
          lifetime: lifetimeFor(viewer, record, parts.config.download, now),
        },
        now,
        parts.config.download,
      );
    }
  }
}

/** A hint for the client's next try; the engine is usually done sooner. */
const RETRY_AFTER_SECONDS = 2;

function pendingReply(): Reply {
  return jsonReply(202, { status: 202, code: 'thumbnail_pending', title: 'The thumbnail is being made' }, [
    ['retry-after', String(RETRY_AFTER_SECONDS)],
    ['vary', 'Accept'],
  ]);
}

const REFUSALS: Readonly<Record<ThumbRefusal, string>> = {
  unsupported_type: 'No thumbnails are made of media of this type.',
  broken_image: 'The image is broken.',
  too_many_pixels: 'The image has too many pixels.',
  too_expensive: 'The image takes too much to decode.',
  failed: 'The thumbnail could not be made.',
};

function unavailable(reason: ThumbRefusal): Fault {
  return new Fault('thumbnail_unavailable', REFUSALS[reason], { members: { reason } });
}

/** The stored thumbnail that stands for the wished variant and format. */
function chooseMade(
  made: readonly ThumbMade[],
  menu: ThumbMenu,
  request: OriginRequest,
): ThumbMade | undefined {
  const wished = chooseVariant(menu, readWish(request.query));
  const variants = [...menu.variants].sort((one, other) => one.width * one.height - other.width * other.height);
  const from = variants.findIndex(({ name }) => name === wished.name);
  // Variants beyond the source's size are not made: the largest below stands in, and after a change of
  // configuration whatever there is.
  const order = [...variants.slice(0, from + 1).reverse(), ...variants.slice(from + 1)].map(({ name }) => name);
  const formats = formatsFor(chooseFormat(request.header('accept'), menu.formats));
  const names = [...order, ...made.map(({ variant }) => variant).filter((name) => !order.includes(name))];
  for (const name of names) {
    for (const format of formats) {
      const found = made.find((each) => each.variant === name && each.format === format);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/** `jpeg` is the still that everyone reads; where there is transparency that is a PNG. */
function formatsFor(chosen: ChosenFormat): readonly ThumbFormat[] {
  switch (chosen) {
    case 'avif':
      return ['avif', 'webp', 'jpeg', 'png'];
    case 'webp':
      return ['webp', 'jpeg', 'png'];
    case 'jpeg':
      return ['jpeg', 'png'];
  }
}
