/**
 * The client library of the media service, for browsers and Node 20 or later:
 * uploads, signed links, thumbnails, placeholders. Without dependencies;
 * tus-js-client is loaded when the first large upload begins.
 *
 *     const media = createMediaClient({ baseUrl: 'https://media.example', token: () => session.token() });
 *     const upload = media.upload(file);
 *     upload.on('progress', ({ sentBytes, totalBytes }) => bar(sentBytes / totalBytes));
 *     const { id } = await upload.done;
 *     const link = await media.links.get(id);
 *     image.srcset = await media.srcset(link, 320);
 */
import { type ClientClock, machineClock } from './clock.js';
import { LinkBook, mediaPath } from './links.js';
import type { TusModule } from './resumable.js';
import { RETRY_RULES, type RetryRules } from './retry.js';
import { Service, type ServiceRequest, type TokenSource } from './service.js';
import { thumbnailSrcset, thumbnailUrl } from './thumbnail.js';
import { Upload, type UploadDeps, type UploadOptions } from './upload.js';
import type { About, Media } from './wire.js';

export type { ClientClock } from './clock.js';
export type { ErrorCode, ServiceCode } from './codes.js';
export { MediaError } from './errors.js';
export type { TusModule } from './resumable.js';
export type { RetryRules } from './retry.js';
export type { ServiceRequest, TokenSource } from './service.js';
export { type Pixels, thumbhashPixels, thumbhashUrl } from './thumbhash.js';
export { type ThumbnailSize, thumbnailSrcset, thumbnailUrl } from './thumbnail.js';
export type { Upload, UploadEvents, UploadOptions, UploadProgress, UploadState } from './upload.js';
export type { About, Media, MediaLink, Uploaded, UploadLink, Variant } from './wire.js';

export interface MediaClientOptions {
  /** The address of the service: that of an edge. */
  readonly baseUrl: string;
  /** The token, or a function that gives it. The function is asked again, with `refresh`, when a token is refused. */
  readonly token?: string | TokenSource;
  /** Files of more bytes go over tus, in pieces. Default 8 MiB. */
  readonly resumableAboveBytes?: number;
  /** The size of these pieces. Default 4 MiB. */
  readonly pieceBytes?: number;
  /** Up to this size a whole file is hashed before it is sent, for which it has to be in memory. Default 64 MiB. */
  readonly digestMaxBytes?: number;
  /** Uploads that are sent at once; others wait. Default 3. */
  readonly uploadsMax?: number;
  /** An attempt in which nothing moves for so long is given up and repeated. Default 60,000. */
  readonly stallMs?: number;
  readonly retry?: Partial<RetryRules>;
  /** Seconds that links should last. The service has a default. */
  readonly linkLifetime?: number;
  /** How long before its end a link is renewed. Default 60,000. */
  readonly renewBeforeMs?: number;
  /** How tus-js-client is loaded. Default: by its name. */
  readonly loadTus?: () => Promise<TusModule>;
  /** For tests, and for environments with an own fetch. Uploads in browsers go by XMLHttpRequest. */
  readonly fetch?: typeof fetch;
  readonly clock?: ClientClock;
  /** A number from 0 to 1, for the length of waits. */
  readonly random?: () => number;
}

export interface MediaClient {
  /** Begins an upload. In Node, `openAsBlob` of `node:fs` gives the Blob of a file. */
  upload(body: Blob | ArrayBuffer | Uint8Array<ArrayBuffer>, options?: UploadOptions): Upload;
  /** Signed links, kept and renewed. */
  readonly links: Pick<LinkBook, 'get' | 'many' | 'watch'>;
  /** What the service knows of media now. What is null in the answer to an upload may be here a moment later. */
  info(id: string, signal?: AbortSignal): Promise<Media>;
  /** The address of a thumbnail, or null if the media have none. Takes a link, or public media. */
  thumbnail(of: WithThumbnail, width: number, pixelRatio?: number): Promise<string | null>;
  /** The same for the attribute `srcset`: for screens with 1, 2 and 3 device pixels for each of the page. */
  srcset(of: WithThumbnail, width: number): Promise<string | null>;
  /** Deletes media, as an admin, or as the owner where the service allows it. */
  remove(id: string, options?: { readonly waitForEdges?: boolean; readonly signal?: AbortSignal }): Promise<Removal>;
  /** `/.well-known`: sizes, types and thumbnails. Fetched once. */
  about(): Promise<About>;
  /** A request with the token, to a path of the service or an address that it gave. Rejects with a MediaError unless it succeeds. */
  fetch(path: string, request?: ServiceRequest): Promise<Response>;
  /** Cancels every upload, and ends every renewal. */
  close(): void;
}

/** A link, public media, or whatever else has the address of a thumbnail. */
export interface WithThumbnail {
  readonly thumb_url: string | null;
}

/** How many edges had confirmed when a removal was answered; null unless `waitForEdges` was set. */
export interface Removal {
  readonly confirmed: number | null;
  readonly edges: number | null;
}

const MIB = 1024 * 1024;

const DEFAULTS = {
  resumableAboveBytes: 8 * MIB,
  pieceBytes: 4 * MIB,
  digestMaxBytes: 64 * MIB,
  uploadsMax: 3,
  stallMs: 60_000,
  renewBeforeMs: 60_000,
  clock: machineClock,
  random: Math.random,
};

export function createMediaClient(options: MediaClientOptions): MediaClient {
  const fetchIt = options.fetch ?? globalThis.fetch.bind(globalThis);
  const given = { ...DEFAULTS, ...options, fetch: fetchIt };
  const { token } = given;
  const service = new Service({ ...given, token: typeof token === 'function' ? token : () => token });
  const links = new LinkBook({ ...given, service });
  const uploads = new Set<Upload>();
  const info = (id: string, signal?: AbortSignal): Promise<Media> =>
    service.json<Media>(`${mediaPath(id)}/info`, { signal, cache: 'no-cache' });
  const retry = { ...RETRY_RULES, ...options.retry };
  const deps: UploadDeps = { ...given, service, retry, info, slot: slots(given.uploadsMax) };
  let about: Promise<About> | undefined;
  const aboutService = (): Promise<About> => {
    about ??= service.json<About>('/.well-known/media-service').catch((thrown: unknown) => {
      about = undefined;
      throw thrown;
    });
    return about;
  };
  const variants = async () => (await aboutService()).capabilities.thumbnails.variants;

  return {
    links,
    info,
    about: aboutService,
    fetch: (path, request) => service.fetch(path, request),
    upload(body, uploadOptions = {}) {
      const upload = new Upload(body instanceof Blob ? body : new Blob([body]), uploadOptions, deps);
      uploads.add(upload);
      const ended = (): void => void uploads.delete(upload);
      upload.done.then(ended, ended);
      return upload;
    },
    async thumbnail({ thumb_url }, width, pixelRatio = 1) {
      if (thumb_url === null) return null;
      return thumbnailUrl(thumb_url, { width, pixelRatio }, await variants());
    },
    async srcset({ thumb_url }, width) {
      if (thumb_url === null) return null;
      return thumbnailSrcset(thumb_url, width, await variants());
    },
    async remove(id, { waitForEdges = false, signal } = {}) {
      const answer = await service.fetch(mediaPath(id), {
        method: 'DELETE',
        query: { wait: waitForEdges ? 'edges' : undefined },
        signal,
      });
      const [confirmed = null, edges = null] = answer.headers.get('takedown-confirmed')?.split('/').map(Number) ?? [];
      return { confirmed, edges };
    },
    close() {
      for (const upload of uploads) upload.cancel();
      links.close();
    },
  };
}

/** Waits in order until one of `max` slots is free. */
function slots(max: number): UploadDeps['slot'] {
  let taken = 0;
  const waiting = new Set<() => void>();
  return async (signal) => {
    signal.throwIfAborted();
    // Whoever frees a slot gives it to the first that still waits.
    if (taken < max) taken += 1;
    else {
      await new Promise<void>((resolve, reject) => {
        waiting.add(resolve);
        signal.addEventListener('abort', () => {
          if (waiting.delete(resolve)) reject(signal.reason as Error);
        });
      });
    }
    return () => {
      const [next] = waiting;
      if (next === undefined) taken -= 1;
      else waiting.delete(next);
      next?.();
    };
  };
}
