/**
 * GET and HEAD of the info of media: authorize > find > describe > conditions > range > send. The document of the
 * upload's answer, as it is known now. It never names the owner, so whoever may read the media may read it.
 */
import { hash } from 'node:crypto';
import type { Gate } from '../src/access/grant.js';
import type { Reply } from '../src/http/reply.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { admitViewer, viewerOf } from './authorize.js';
import { mediaKey } from './blobs/blob-store.js';
import type { UseReports } from './edges/use-reports.js';
import type { MetaStore } from './meta/store.js';
import type { DownloadConfig } from './respond/config.js';
import { infoLifetimeFor } from './respond/lifetime.js';
import { describeMedia } from './respond/media-json.js';
import { awaitsFacts, inMemory, mediaReply } from './respond/media-reply.js';
import type { OriginRequest } from './server/request.js';
import type { ThumbsConfig } from './thumbs/config.js';

export interface InfoDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find'>;
  readonly useReports: Pick<UseReports, 'note'>;
  readonly baseUri: string;
  readonly config: { readonly download: DownloadConfig; readonly thumbs: Pick<ThumbsConfig, 'enabled'> };
}

export async function info(deps: InfoDeps, request: OriginRequest, id: MediaId): Promise<Reply> {
  const now = request.receivedAt;
  const { download, thumbs } = deps.config;
  const viewer = await viewerOf(deps.gate, request);
  request.meter.admitDownload();
  const { record, blob } = admitViewer(viewer, await deps.meta.find(id, now));
  deps.useReports.note(record, now);
  const bytes = Buffer.from(JSON.stringify(describeMedia({ record, blob }, deps.baseUri)));
  return mediaReply(
    inMemory(bytes),
    request,
    {
      mediaId: record.id,
      key: mediaKey(blob),
      // Edges verify the bytes against it, as those of the original.
      sha256: hash('sha256', bytes) as Sha256,
      sizeBytes: bytes.length,
      contentType: 'application/json',
      // It changes later than the media were made, and nobody notes when.
      lastModifiedAt: null,
      headers: [['content-disposition', 'inline']],
      lifetime: infoLifetimeFor(viewer, record, download, now, awaitsFacts(blob, thumbs)),
    },
    now,
    download,
  );
}
