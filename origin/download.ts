/**
 * GET and HEAD of an original: authorize > find > conditional > range > stream.
 */
import type { Gate } from '../src/access/grant.js';
import type { EpochMs } from '../src/clock.js';
import { duration, integer, list, section, text, type ValueOf } from '../src/config/field.js';
import type { HeaderList, Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { contentDisposition, type Disposition } from '../src/media/disposition.js';
import { extensionOf, INLINE_TYPES, servedType } from '../src/media/types.js';
import { admitViewer, type Viewer, viewerOf } from './authorize.js';
import { type BlobStore, mediaKey } from './blobs/blob-store.js';
import type { UseReports } from './edges/use-reports.js';
import { type Lifetime, mediaReply } from './media-reply.js';
import type { BlobRecord, Media, MediaRecord, PictureFacts } from './meta/media.js';
import type { MetaStore } from './meta/store.js';
import type { OriginRequest } from './server/request.js';
import type { ThumbsConfig } from './thumbs/config.js';

export const downloadSection = section('How media is served, and how long copies of it may be used.', {
  inlineTypes: list({
    default: INLINE_TYPES,
    of: text({
      default: '',
      pattern: /^(?:image|audio|video)\/(?!svg)[a-z0-9.+-]+$/,
      accepts: 'a raster image, audio or video type',
      help: 'A media type.',
    }),
    help: 'Types that a browser may show in place; all others are offered as a file to save.',
  }),
  rangesMax: integer({
    default: 16,
    min: 1,
    max: 1_000,
    help: 'Ranges in one request; a request for more gets the whole.',
  }),
  clientMaxAgeMs: duration({
    default: '60s',
    max: 31_536_000_000,
    help: 'How long clients may use their copy without asking again: a takedown reaches them so late at most.',
  }),
  edgeMaxAgeMs: duration({
    default: '24h',
    max: 31_536_000_000,
    help: 'The same for edges, which hear of takedowns at once.',
  }),
  edgeMaxAgePendingMs: duration({
    default: '5s',
    max: 31_536_000_000,
    help: 'The same while the thumbnail engine has yet to say what it learns of the media: until then edges ask for the head again so often. The bytes are not sent again.',
  }),
  edgeStaleWhileRevalidateMs: duration({
    default: '1h',
    max: 31_536_000_000,
    help: 'How long after that an edge may still answer while it asks again.',
  }),
  edgeStaleIfErrorMs: duration({
    default: '24h',
    max: 31_536_000_000,
    help: 'How long after that an edge may still answer when the origin fails.',
  }),
});

export type DownloadConfig = ValueOf<typeof downloadSection>;

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
      key: mediaKey(blob.sha256),
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

/** Whether more will be said of these bytes than is known now. Where nobody looks at them, nothing will. */
function awaitsFacts(blob: BlobRecord, thumbs: Pick<ThumbsConfig, 'enabled'>): boolean {
  return thumbs.enabled && blob.thumbs.kind === 'pending';
}

/**
 * Which lifetimes this viewer's copy gets; a copy fetched by a link ends with
 * the link. `provisional`: its head may change soon, so edges keep it briefly.
 */
export function lifetimeFor(
  viewer: Viewer,
  record: MediaRecord,
  config: DownloadConfig,
  now: EpochMs,
  provisional: boolean,
): Lifetime {
  const forEdge = viewer.kind === 'edge' || viewer.edge;
  const linkLeftMs =
    viewer.kind === 'client' && viewer.grant.kind === 'link' ? viewer.grant.expiresAt - now : Number.POSITIVE_INFINITY;
  return {
    public: record.public,
    endsAt: record.expiresAt,
    clientMaxAgeMs: Math.max(0, Math.min(config.clientMaxAgeMs, linkLeftMs)),
    edge: forEdge
      ? {
          maxAgeMs: provisional ? Math.min(config.edgeMaxAgePendingMs, config.edgeMaxAgeMs) : config.edgeMaxAgeMs,
          provisional,
          staleWhileRevalidateMs: config.edgeStaleWhileRevalidateMs,
          staleIfErrorMs: config.edgeStaleIfErrorMs,
        }
      : null,
  };
}
