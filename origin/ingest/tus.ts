/**
 * The tus protocol, version 1.0.0, around partial uploads. @tus/server knows its
 * fields and states; this file stands between it and the origin, and is the only
 * one that imports it. A request goes in as a value, an answer comes out as one,
 * and whatever the library refuses comes out as a Fault of ours.
 *
 * Not left to the library: bytes (unfinished-uploads.ts syncs them, paces their sender and
 * verifies checksums), expiry (by the Clock), and who holds an upload.
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

/** One request to one upload, and what its story wants to hear of it. */
export interface TusRequest {
  readonly method: TusMethod;
  /** Of the upload; for POST the one that it is to have. */
  readonly id: string;
  readonly request: OriginRequest;
  /** Ends the reading of a part: the client has gone, or the upload is wanted by a newer request. */
  readonly signal: AbortSignal;
  /** For POST: makes the record of the new upload. Throws a Fault to refuse it. */
  readonly begin?: (upload: Pick<UnfinishedUpload, 'sizeBytes' | 'metadata'>) => UnfinishedUpload;
  /** For POST and PATCH: called once the last byte is stored. The reply gets the headers, and the body in place of tus' 204. */
  readonly finish?: () => Promise<TusFinish>;
}

export interface TusFinish {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
}

export interface Tus {
  /** Rejects with a Fault for a refusal. */
  handle(exchange: TusRequest): Promise<Reply>;
}

export interface TusDeps {
  readonly uploads: UnfinishedUploads;
  readonly config: UploadConfig;
  readonly clock: Clock;
}

/** What tus reads; nothing else of a request is shown to it. */
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

interface Current extends TusRequest {
  thrown?: unknown;
}

export function createTus(deps: TusDeps): Tus {
  /** By the request that the library hands back to each hook, and by the upload that its store is asked for. */
  const byRequest = new WeakMap<object, Current>();
  const byUpload = new Map<string, Current>();
  const current = (request: object): Current => required(byRequest.get(request));
  const server = new Server({
    path: UPLOADS_PATH,
    relativeLocation: true,
    maxSize: deps.config.sizeMaxBytes,
    datastore: new TusStore(deps, (id) => required(byUpload.get(id))),
    namingFunction: (request) => current(request).id,
    async onUploadFinish(request) {
      const { headers, body } = await required(current(request).finish)();
      return body === undefined
        ? { headers: { ...headers } }
        : {
            // tus 1.0.0, PATCH: 204. Whoever asks for the document gets 200 with it.
            ...(current(request).method === 'PATCH' && { status_code: 200 }),
            headers: { ...headers, 'content-type': 'application/json; charset=utf-8' },
            body,
          };
    },
    onResponseError(request, error) {
      current(request).thrown = error;
      return undefined;
    },
  });

  return {
    async handle(exchange) {
      const asked = requestFor(exchange);
      const entry: Current = { ...exchange };
      byRequest.set(asked, entry);
      byUpload.set(exchange.id, entry);
      try {
        const response = await server.handleWeb(asked);
        if (entry.thrown !== undefined) throw faultOfTus(entry.thrown, deps.config);
        if (response.status >= 400) throw refusal(response.status, await response.text(), deps.config);
        return await replyOf(response, exchange.method);
      } finally {
        byUpload.delete(exchange.id);
      }
    },
  };
}

/** What the library asks for in a hook belongs to the request that it handles. */
function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('tus asked for what the request does not have');
  return value;
}

function requestFor({ method, id, request }: TusRequest): Request {
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
      // A text type that the library's Response brings along for an empty body says nothing.
      ...(bytes.length > 0 || !typed ? headers : headers.filter(([name]) => name !== 'content-type')),
      ...(response.headers.has('cache-control') ? [] : ([['cache-control', 'no-store']] as const)),
    ],
    body: bodiless ? NO_BODY : { kind: 'bytes', bytes },
  };
}

/** The library throws `{status_code, body}`; what is ours goes through it untouched. */
function faultOfTus(thrown: unknown, config: UploadConfig): unknown {
  if (thrown instanceof Error || typeof thrown !== 'object' || thrown === null) return thrown;
  const { status_code: status, body } = thrown as { readonly status_code?: unknown; readonly body?: unknown };
  if (typeof status !== 'number') return thrown;
  return refusal(status, typeof body === 'string' ? body : '', config);
}

/** Its words are fixed and public; its statuses are told as our codes. */
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
      // The limit of the service is the other reason for this status.
      return /upload's size/i.test(detail) ? new Fault('too_large', BEYOND_THE_END) : tooLarge(config.sizeMaxBytes);
    case 400:
      // Its validation of fields answers 400 for a version that it does not speak, too.
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

/** What the library knows as a store: uploads as it sees them, over the partial ones. */
class TusStore extends DataStore {
  readonly #deps: TusDeps;
  readonly #exchange: (id: string) => Current;

  constructor(deps: TusDeps, exchange: (id: string) => Current) {
    super();
    this.#deps = deps;
    this.#exchange = exchange;
    this.extensions = [...TUS_EXTENSIONS];
  }

  override async create(upload: Upload): Promise<Upload> {
    const begin = required(this.#exchange(upload.id).begin);
    await this.#deps.uploads.create(begin({ sizeBytes: upload.size ?? null, metadata: upload.metadata ?? {} }));
    return upload;
  }

  override async getUpload(id: string): Promise<Upload> {
    const held = this.#held(id);
    return new Upload({
      id,
      ...(held.sizeBytes !== null && { size: held.sizeBytes }),
      offset: await this.#deps.uploads.offset(held),
      ...(Object.keys(held.metadata).length > 0 && { metadata: { ...held.metadata } }),
    });
  }

  override async declareUploadLength(id: string, sizeBytes: number): Promise<void> {
    await this.#deps.uploads.change({ ...this.#held(id), sizeBytes });
  }

  /** The library's stream is empty: the body is read here, at the pace that is asked of its sender. */
  override async write(stream: NodeJS.ReadableStream, id: string, offset: number): Promise<number> {
    stream.resume();
    const { uploads, config, clock } = this.#deps;
    const { request, signal } = this.#exchange(id);
    return await uploads.append(id, {
      source: pacedChunks(request, config, clock, signal),
      offset,
      sizeMaxBytes: (this.#held(id).sizeBytes ?? config.sizeMaxBytes) - offset,
      checksum: readChecksum(request.header('upload-checksum')),
    });
  }

  override async remove(id: string): Promise<void> {
    await this.#deps.uploads.drop(id);
  }

  #held(id: string): UnfinishedUpload {
    const held = this.#deps.uploads.find(id);
    if (held === undefined) throw noSuchUpload();
    return held;
  }
}

/** For OPTIONS and /.well-known. */
export function tusCapabilities(sizeMaxBytes: number): HeaderList {
  return [
    ['tus-resumable', TUS_VERSION],
    ['tus-version', TUS_VERSION],
    ['tus-extension', TUS_EXTENSIONS.join(',')],
    ['tus-max-size', String(sizeMaxBytes)],
    ['tus-checksum-algorithm', CHECKSUM_ALGORITHMS.join(',')],
  ];
}
