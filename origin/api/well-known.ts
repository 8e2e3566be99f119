/**
 * `/.well-known`: what clients and edges should know about the service before
 * their first request. Rendered once with and once without signed links, because
 * these may be switched on and off while the service runs, and again after a reload.
 */
import type { AccessConfig } from '../../src/access/config.js';
import { formatDuration } from '../../src/bytes.js';
import { duration, section, type ValueOf } from '../../src/config/field.js';
import type { BlobStore } from '../blobs/blob-store.js';
import type { UploadConfig } from '../ingest/config.js';
import { CHECKSUM_ALGORITHMS } from '../ingest/resumable/checksum.js';
import type { ResumableConfig } from '../ingest/resumable/resumable-uploads.js';
import { TUS_EXTENSIONS, TUS_VERSION, UPLOADS_PATH } from '../ingest/resumable/tus.js';
import { STRIPPED_TYPES } from '../ingest/strip/metadata.js';
import type { QuotaConfig } from '../quota.js';
import type { RetentionConfig } from '../retention-rules.js';
import type { RateLimitsConfig } from '../server/rate-limits.js';
import type { ThumbCapabilities } from '../thumbs/engine.js';
import { createDocument, type DocumentReply } from './document.js';

export const wellKnownSection = section('The documents at /.well-known and /openapi.json.', {
  maxAgeMs: duration({ default: '5m', max: 86_400_000, help: 'How long clients and caches may keep them.' }),
});

export type WellKnownConfig = ValueOf<typeof wellKnownSection>;

export interface WellKnownDeps {
  readonly baseUri: string;
  readonly links: Pick<
    AccessConfig['links'],
    'lifetimeMs' | 'lifetimeMaxMs' | 'windowMs' | 'idsMax' | 'uploadLifetimeMs' | 'uploadLifetimeMaxMs'
  >;
  readonly ownersMayDelete: boolean;
  /** How long an upload waits for facts that are not in its header. */
  readonly facts: { readonly uploadWaitMs: number };
  /** Whether there is a key that signs links now. */
  signsLinks(): boolean;
  readonly blobs: Pick<BlobStore, 'kind' | 'region'>;
  readonly thumbs: ThumbCapabilities;
  readonly config: {
    readonly upload: UploadConfig;
    readonly resumable: ResumableConfig;
    readonly quota: QuotaConfig;
    readonly rateLimits: RateLimitsConfig;
    readonly retention: RetentionConfig;
    readonly wellKnown: WellKnownConfig;
  };
}

export interface WellKnown {
  readonly reply: DocumentReply;
  /** The configuration has changed: the document is rendered again. */
  renew(): void;
}

export function createWellKnown(deps: WellKnownDeps): WellKnown {
  const { maxAgeMs } = deps.config.wellKnown;
  const render = () => ({
    signing: createDocument(() => wellKnownDocument(deps, true), maxAgeMs),
    notSigning: createDocument(() => wellKnownDocument(deps, false), maxAgeMs),
  });
  let documents = render();
  return {
    reply: (request) => (deps.signsLinks() ? documents.signing : documents.notSigning)(request),
    renew() {
      documents = render();
    },
  };
}

function wellKnownDocument({ config, thumbs, links, facts, ...deps }: WellKnownDeps, signsLinks: boolean): unknown {
  return {
    base_uri: deps.baseUri,
    auth_required: true,
    max_upload_size: config.upload.sizeMaxBytes,
    storage_mode: deps.blobs.kind,
    ...(deps.blobs.region !== null && { region: deps.blobs.region }),
    capabilities: {
      accepted_types: config.upload.types,
      stripped_types: strippedTypes(config.upload),
      thumbnails: {
        variants: thumbs.variants,
        formats: thumbs.formats,
        default: thumbs.default,
        animated: thumbs.animated,
        types: thumbs.types,
        video: thumbs.video.available,
      },
      resumable: {
        endpoint: deps.baseUri + UPLOADS_PATH,
        version: TUS_VERSION,
        extensions: TUS_EXTENSIONS,
        checksum_algorithms: CHECKSUM_ALGORITHMS,
        expires_seconds: seconds(config.resumable.expiresAfterMs),
      },
      digest_algorithms: ['sha-256'],
      signed_links: signsLinks
        ? {
            lifetime_seconds: seconds(links.lifetimeMs),
            lifetime_max_seconds: seconds(links.lifetimeMaxMs),
            window_seconds: seconds(links.windowMs),
            ids_max: links.idsMax,
          }
        : null,
      upload_links: signsLinks
        ? {
            lifetime_seconds: seconds(links.uploadLifetimeMs),
            lifetime_max_seconds: seconds(links.uploadLifetimeMaxMs),
          }
        : null,
      info: true,
      /** In every URL of media. */
      download_parameter: 'download',
      thumbhash_wait_seconds: facts.uploadWaitMs / 1_000,
      owners_may_delete: deps.ownersMayDelete,
      retention: retentionDocument(config.retention),
      quota: quotaDocument(config.quota),
      rate_limits: rateLimitsDocument(config.rateLimits),
    },
  };
}

/** The accepted types that are stored without their metadata; null if all are stored as they are sent. */
function strippedTypes({ types, stripOriginals }: UploadConfig): readonly string[] | null {
  return stripOriginals.enabled ? types.filter((type) => STRIPPED_TYPES.includes(type)) : null;
}

function retentionDocument(config: RetentionConfig): unknown {
  const { rules, unusedForMs } = config;
  return {
    text: retentionText(config),
    rules: rules.map(({ types, visibility, minSizeBytes, keepMs }) => ({
      types,
      visibility,
      min_size: minSizeBytes,
      seconds: seconds(keepMs),
    })),
    unused_seconds: unusedForMs === null ? null : seconds(unusedForMs),
  };
}

/** The retention rules as text. */
export function retentionText({ rules, unusedForMs }: Pick<RetentionConfig, 'rules' | 'unusedForMs'>): string {
  const words = [
    ...rules.map(
      ({ types, visibility, minSizeBytes, keepMs }) =>
        `${visibility === 'any' ? '' : `${visibility} `}${types.join(', ')}` +
        `${minSizeBytes > 0 ? ` of ${minSizeBytes} bytes and more` : ''} for ${formatDuration(keepMs)}`,
    ),
    `everything ${rules.length === 0 ? '' : 'else '}until it is deleted or its own expiry`,
  ];
  const unused = unusedForMs === null ? '' : ` What nobody fetches for ${formatDuration(unusedForMs)} expires.`;
  return `Kept: ${words.join('; ')}.${unused}`;
}

function quotaDocument({ periodMs, totalBytes, filesMax }: QuotaConfig): unknown {
  if (totalBytes === 0 && filesMax === 0) return null;
  return {
    period_seconds: seconds(periodMs),
    bytes: totalBytes === 0 ? null : totalBytes,
    files: filesMax === 0 ? null : filesMax,
  };
}

function rateLimitsDocument({ windowMs, subject, address }: RateLimitsConfig): unknown {
  const orNull = (value: number): number | null => (value === 0 ? null : value);
  const rates = ({ requestsMax, uploadedMaxBytes, downloadedMaxBytes }: RateLimitsConfig['subject']): unknown => ({
    requests: orNull(requestsMax),
    upload_bytes: orNull(uploadedMaxBytes),
    download_bytes: orNull(downloadedMaxBytes),
  });
  return { window_seconds: seconds(windowMs), subject: rates(subject), address: rates(address) };
}

function seconds(ms: number): number {
  return Math.floor(ms / 1_000);
}
