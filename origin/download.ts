/** GET and HEAD of an original: authorize > find > conditions > range > stream. */
import type { Gate } from '../src/access/grant.js';
import type { HeaderList, Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { contentDisposition, type Disposition } from '../src/media/disposition.js';
import { extensionOf, servedType } from '../src/media/types.js';
import { admitViewer, viewerOf } from './authorize.js';
import { type BlobStore, mediaKey } from './blobs/blob-store.js';
import type { UseReports } from './edges/use-reports.js';
import type { Media, PictureFacts } from './meta/media.js';
import type { MetaStore } from './meta/store.js';
import type { DownloadConfig } from './respond/config.js';
import { lifetimeFor } from './respond/lifetime.js';
import { awaitsFacts, mediaReply } from './respond/media-reply.js';
import type { OriginRequest } from './server/request.js';
import type { ThumbsConfig } from './thumbs/config.js';

export interface DownloadDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find'>;
  readonly blobs: Pick<BlobStore, 'read'>;
  readonly useReports: Pick<UseReports, 'note'>;
  readonly config: { readonly download: DownloadConfig; readonly thumbs: Pick<ThumbsConfig, 'enabled'> };
}

export async function download(deps: DownloadDeps, request: OriginRequest, id: MediaId): Promise<Reply> {
  const now = request.receivedAt;
  const viewer = await viewerOf(deps.gate, request);
  request.meter.admitDownload();
  const { record, blob } = admitViewer(viewer, await deps.meta.find(id, now));
  deps.useReports.note(record, now);
  return mediaReply(
    deps.blobs,
    request,
    {
      mediaId: record.id,
      key: mediaKey(blob),
      sha256: blob.sha256,
      sizeBytes: blob.sizeBytes,
      contentType: servedType(blob.mime),
      lastModifiedAt: record.createdAt,
      headers: [
        ['content-disposition', dispositionOf({ record, blob }, deps.config.download.inlineTypes)],
        ...pictureHeaders(blob.picture),
      ],
      lifetime: lifetimeFor(viewer, record, deps.config.download, now, awaitsFacts(blob, deps.config.thumbs)),
    },
    now,
    deps.config.download,
  );
}

function dispositionOf({ record, blob }: Media, inlineTypes: readonly string[]): string {
  const disposition: Disposition = inlineTypes.includes(blob.mime) ? 'inline' : 'attachment';
  return contentDisposition(disposition, record.filename ?? `${record.id}.${extensionOf(blob.mime)}`);
}

function pictureHeaders(facts: PictureFacts): HeaderList {
  return [
    ...optional('media-width', facts.width, String),
    ...optional('media-height', facts.height, String),
    ...optional('media-duration', facts.durationMs, (ms) => (ms / 1_000).toFixed(3)),
    ...optional('media-thumbhash', facts.thumbhash, String),
  ];
}

function optional<T>(name: string, value: T | null, format: (value: T) => string): HeaderList {
  return value === null ? [] : [[name, format(value)]];
}
