/**
 * The tus protocol, version 1.0.0, on top of unfinished uploads. @tus/server
 * handles its fields and states; only this file imports it. A request and its
 * reply are plain values, and a refusal by the library becomes a Fault.
 *
 * The library does not handle the bytes (unfinished-uploads.ts paces their sender,
 * verifies checksums and syncs), nor expiry, nor locks.
 */
import { DataStore, Server, Upload } from '@tus/server';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import { type HeaderList, NO_BODY, type Reply } from '../../src/http/reply.js';
import type { OriginRequest } from '../server/request.js';
import { tooLarge } from './admit.js';
import { CHECKSUM_ALGORITHMS, readChecksum } from './checksum.js';
import type { UploadConfig } from './config.js';
import { pacedChunks } from './paced-body.js';
import { BEYOND_THE_END, noSuchUpload, type UnfinishedUpload, type UnfinishedUploads } from './unfinished-uploads.js';

export const UPLOADS_PATH = '/v1/uploads';
export const TUS_VERSION = '1.0.0';
export const TUS_EXTENSIONS = [
  'creation',
  'creation-with-upload',
  'creation-defer-length',
  'termination',
  'expiration',
  'checksum',
] as const;

export type TusMethod = 'POST' | 'HEAD' | 'PATCH' | 'DELETE' | 'OPTIONS';

/** A request for one upload, with what to call while it is handled. */
export interface TusRequest {
  readonly method: TusMethod;
  /** The id of the upload; for POST the id that it will have. */
  readonly id: string;
  readonly request: OriginRequest;
  /** Ends the reading of the body: the client is gone, or a newer request interrupts this one. */
  readonly signal: AbortSignal;
  /** For POST: makes the record of the new upload. Throws a Fault to refuse it. */
  readonly begin?: (upload: Pick<UnfinishedUpload, 'sizeBytes' | 'metadata'>) => UnfinishedUpload;
  /** For POST and PATCH: called when the last byte is stored. The headers are added to the reply; a body replaces the 204. */
  readonly finish?: () => Promise<TusFinish>;
}

export interface TusFinish {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
}

export interface Tus {
  /** Rejects with a Fault if the request is refused. */
  handle(request: TusRequest): Promise<Reply>;
}

export interface TusDeps {
  readonly uploads: UnfinishedUploads;
  readonly config: UploadConfig;
  readonly clock: Clock;
}

/** The only fields of a request that the library gets. */
const READ_BY_TUS = [
  'tus-resumable',
  'upload-length',
  'upload-offset',
  'upload-defer-length',
  'upload-metadata',
  'upload-concat',
  'content-type',
  'content-length',
];

/** A request while the library handles it. */
interface Running extends TusRequest {
  /** What the library caught, or made itself, instead of a reply. */
  thrown?: unknown;
}

export function createTus(deps: TusDeps): Tus {
  // The library calls its hooks with the web request, and its store with the id of the upload.
  const byRequest = new WeakMap<object, Running>();
  const byUpload = new Map<string, Running>();
  const running = (request: object): Running => required(byRequest.get(request));
  const server = new Server({
    path: UPLOADS_PATH,
    relativeLocation: true,
    maxSize: deps.config.sizeMaxBytes,
    datastore: new TusStore(deps, (id) => required(byUpload.get(id))),
    namingFunction: (request) => running(request).id,
    async onUploadFinish(request) {
      const { headers, body } = await required(running(request).finish)();
      return body === undefined
        ? { headers: { ...headers } }
        : {
            // tus 1.0.0 answers PATCH with 204. With a body it must be 200.
            ...(running(request).method === 'PATCH' && { status_code: 200 }),
            headers: { ...headers, 'content-type': 'application/json; charset=utf-8' },
            body,
          };
    },
    onResponseError(request, error) {
      running(request).thrown = error;
      return undefined;
    },
  });

  return {
    async handle(request) {
      const webRequest = webRequestOf(request);
      const entry: Running = { ...request };
      byRequest.set(webRequest, entry);
      byUpload.set(request.id, entry);
      try {
        const response = await server.handleWeb(webRequest);
        if (entry.thrown !== undefined) throw faultOfTus(entry.thrown, deps.config);
        if (response.status >= 400) throw refusal(response.status, await response.text(), deps.config);
        return await replyOf(response, request.method);
      } finally {
        byUpload.delete(request.id);
      }
    },
  };
}

/** The library calls hooks only for requests that run, and only those that their method needs. */
function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the tus library called a hook that does not belong to the request');
  return value;
}

function webRequestOf({ method, id, request }: TusRequest): Request {
  const path = method === 'POST' || method === 'OPTIONS' ? UPLOADS_PATH : `${UPLOADS_PATH}/${id}`;
  const headers = READ_BY_TUS.flatMap((name): [string, string][] => {
    const value = request.header(name);
    return value === undefined ? [] : [[name, value]];
  });
  return new Request(`http://origin${path}`, { method, headers });
}

async function replyOf(response: Response, method: TusMethod): Promise<Reply> {
  const headers: HeaderList = [...response.headers].filter(
    ([name]) => !name.startsWith('access-control-') && name !== 'content-length' && name !== 'connection',
  );
  const bytes = method === 'HEAD' ? Buffer.alloc(0) : Buffer.from(await response.arrayBuffer());
  const bodiless = response.status === 204 || method === 'HEAD';
  const typed = headers.some(([name]) => name === 'content-type');
  return {
    status: response.status,
    headers: [
      // The library's Response has a Content-Type even for an empty body.
      ...(bytes.length > 0 || !typed ? headers : headers.filter(([name]) => name !== 'content-type')),
      ...(response.headers.has('cache-control') ? [] : ([['cache-control', 'no-store']] as const)),
    ],
    body: bodiless ? NO_BODY : { kind: 'bytes', bytes },
  };
}

/** The fault for what the library threw: `{status_code, body}` if it refused, else an error of ours, unchanged. */
function faultOfTus(thrown: unknown, config: UploadConfig): unknown {
  if (thrown instanceof Error || typeof thrown !== 'object' || thrown === null) return thrown;
  const { status_code: status, body } = thrown as { readonly status_code?: unknown; readonly body?: unknown };
  if (typeof status !== 'number') return thrown;
  return refusal(status, typeof body === 'string' ? body : '', config);
}

/** The Fault for a refusal by the library. Its texts are fixed and may be shown to clients. */
function refusal(status: number, words: string, config: UploadConfig): Fault {
  const detail = words.trim().split('\n', 1)[0] ?? '';
  switch (status) {
    case 404:
      return noSuchUpload();
    case 409:
      return new Fault('conflict', 'The upload is at another offset.');
    case 410:
      return new Fault('expired', 'The upload has expired.');
    case 412:
      return new Fault('precondition_failed', `Send Tus-Resumable: ${TUS_VERSION}.`, {
        headers: { 'tus-version': TUS_VERSION },
      });
    case 413:
      // The library answers 413 beyond the length of the upload, and beyond the largest size.
      return /upload's size/i.test(detail) ? new Fault('too_large', BEYOND_THE_END) : tooLarge(config.sizeMaxBytes);
    case 400:
      // The library answers 400 for an unknown version too, where tus 1.0.0 says 412.
      return detail.includes('tus-resumable')
        ? refusal(412, detail, config)
        : new Fault('malformed', `tus: ${detail}.`);
    case 403:
    case 501:
      return new Fault('malformed', `tus: ${detail}`);
    default:
      return new Fault('internal', 'The request could not be completed.', { cause: new Error(`tus: ${detail}`) });
  }
}

/** The store that the library asks for, on top of unfinished uploads. */
class TusStore extends DataStore {
  readonly #deps: TusDeps;
  readonly #requestFor: (id: string) => Running;

  constructor(deps: TusDeps, requestFor: (id: string) => Running) {
    super();
    this.#deps = deps;
    this.#requestFor = requestFor;
    this.extensions = [...TUS_EXTENSIONS];
  }

  override async create(upload: Upload): Promise<Upload> {
    const begin = required(this.#requestFor(upload.id).begin);
    await this.#deps.uploads.create(begin({ sizeBytes: upload.size ?? null, metadata: upload.metadata ?? {} }));
    return upload;
  }

  override async getUpload(id: string): Promise<Upload> {
    const upload = this.#find(id);
    return new Upload({
      id,
      ...(upload.sizeBytes !== null && { size: upload.sizeBytes }),
      offset: await this.#deps.uploads.offset(upload),
      ...(Object.keys(upload.metadata).length > 0 && { metadata: { ...upload.metadata } }),
    });
  }

  override async declareUploadLength(id: string, sizeBytes: number): Promise<void> {
    await this.#deps.uploads.change({ ...this.#find(id), sizeBytes });
  }

  /** Ignores the library's stream, which is empty, and reads the body of the request at its pace. */
  override async write(stream: NodeJS.ReadableStream, id: string, offset: number): Promise<number> {
    stream.resume();
    const { uploads, config, clock } = this.#deps;
    const { request, signal } = this.#requestFor(id);
    return await uploads.append(id, {
      source: pacedChunks(request, config, clock, signal),
      offset,
      sizeMaxBytes: (this.#find(id).sizeBytes ?? config.sizeMaxBytes) - offset,
      checksum: readChecksum(request.header('upload-checksum')),
    });
  }

  override async remove(id: string): Promise<void> {
    await this.#deps.uploads.drop(id);
  }

  #find(id: string): UnfinishedUpload {
    const upload = this.#deps.uploads.find(id);
    if (upload === undefined) throw noSuchUpload();
    return upload;
  }
}

/** Fields of the reply to OPTIONS. */
export function tusCapabilities(sizeMaxBytes: number): HeaderList {
  return [
    ['tus-resumable', TUS_VERSION],
    ['tus-version', TUS_VERSION],
    ['tus-extension', TUS_EXTENSIONS.join(',')],
    ['tus-max-size', String(sizeMaxBytes)],
    ['tus-checksum-algorithm', CHECKSUM_ALGORITHMS.join(',')],
  ];
}
