/**
 * A bucket in memory behind real HTTP: the part of S3 that the adaptor uses. It
 * checks sizes and payload hashes, does not check signatures, and can fail in
 * the ways that real servers and networks do.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** How one request fails. */
export type Failure =
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  /** The same, without reading anything of the body. */
  | { readonly kind: 'early_status'; readonly status: number; readonly code: string }
  /** The connection is reset before anything is done. */
  | { readonly kind: 'reset' }
  /** The request is carried out, but its response never arrives. */
  | { readonly kind: 'lose_response' }
  /** The request is carried out, and its response waits. */
  | { readonly kind: 'hold_response'; readonly until: Promise<void> }
  /** No response is ever sent. */
  | { readonly kind: 'stall' }
  /** The body of the response breaks off, or stalls, after so many bytes. */
  | { readonly kind: 'break_body' | 'stall_body'; readonly afterBytes: number }
  /** Only so many bytes are stored, and the response reports success. */
  | { readonly kind: 'store_less'; readonly storedBytes: number }
  /** The response to a range is the whole object. */
  | { readonly kind: 'ignore_range' };

export interface SeenRequest {
  readonly method: string;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
}

export interface LightS3 {
  readonly url: string;
  readonly bucket: string;
  readonly objects: Map<string, { readonly bytes: Buffer; readonly storedAt: Date }>;
  /** Unfinished uploads in parts. */
  readonly uploads: Map<string, { readonly key: string; readonly parts: Map<number, Buffer>; readonly begunAt: Date }>;
  readonly seen: SeenRequest[];
  /** Called before each request. */
  failure: (request: SeenRequest) => Failure | undefined;
  /** The number of open connections. */
  connections(): Promise<number>;
  close(): Promise<void>;
}

export async function openLightS3(): Promise<LightS3> {
  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy());
  });
  // A server that closes idle connections would sometimes reset one on which a request is just arriving.
  server.keepAliveTimeout = 0;
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const s3: LightS3 = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bucket: 'media-test',
    objects: new Map(),
    uploads: new Map(),
    seen: [],
    failure: () => undefined,
    connections: () => new Promise((resolve) => server.getConnections((_, count) => resolve(count))),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', s3.url);
    const [, bucket, ...rest] = decodeURIComponent(url.pathname).split('/');
    const { method = 'GET', headers } = request;
    const seen = { method, key: rest.join('/'), query: url.searchParams, headers };
    s3.seen.push(seen);
    const failure = s3.failure(seen);
    if (failure?.kind === 'reset') return void request.socket.destroy();
    if (failure?.kind === 'stall') return void request.resume();
    if (failure?.kind === 'early_status') return refuse(response, failure.status, failure.code);
    const body = await readBody(request);
    if (failure?.kind === 'status') return refuse(response, failure.status, failure.code);
    if (failure?.kind === 'lose_response') response.end = () => response.destroy();
    if (failure?.kind === 'hold_response') {
      const end = response.end.bind(response);
      response.end = () => {
        void failure.until.then(() => end());
        return response;
      };
    }
    if (bucket !== s3.bucket) return refuse(response, 404, 'NoSuchBucket');
    if (headers.authorization?.startsWith('AWS4-HMAC-SHA256 Credential=') !== true) {
      return refuse(response, 403, 'AccessDenied');
    }
    const declared = headers['x-amz-content-sha256'];
    if (typeof declared === 'string' && /^[0-9a-f]{64}$/.test(declared) && sha256(body) !== declared) {
      return refuse(response, 400, 'XAmzContentSHA256Mismatch');
    }
    const kept = failure?.kind === 'store_less' ? body.subarray(0, failure.storedBytes) : body;
    const operation = operations[operationOf(seen)];
    if (operation === undefined) return refuse(response, 501, 'NotImplemented');
    operation(seen, response, kept, failure);
  }

  type Operation = (request: SeenRequest, response: ServerResponse, body: Buffer, failure: Failure | undefined) => void;

  const operations: Readonly<Record<string, Operation>> = {
    'PUT object': (request, response, body) => {
      s3.objects.set(request.key, { bytes: body, storedAt: new Date() });
      response.writeHead(200, { etag: etag(body) }).end();
    },
    'GET object': (request, response, _, failure) => answerObject(request, response, failure),
    'HEAD object': (request, response) => {
      const object = s3.objects.get(request.key);
      if (object === undefined) response.writeHead(404).end();
      else response.writeHead(200, { 'content-length': object.bytes.length, etag: etag(object.bytes) }).end();
    },
    'DELETE object': (request, response) => {
      s3.objects.delete(request.key);
      response.writeHead(204).end();
    },
    'GET list': (request, response) => answerListing(request, response),
    'GET uploads': (request, response) => {
      const prefix = request.query.get('prefix') ?? '';
      const uploads = [...s3.uploads].filter(([, { key }]) => key.startsWith(prefix));
      const lines = uploads.map(
        ([id, { key, begunAt }]) =>
          `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${begunAt.toISOString()}</Initiated></Upload>`,
      );
      xml(response, 'ListMultipartUploadsResult', `<IsTruncated>false</IsTruncated>${lines.join('')}`);
    },
    'POST uploads': (request, response) => {
      const id = randomUUID();
      s3.uploads.set(id, { key: request.key, parts: new Map(), begunAt: new Date() });
      xml(response, 'InitiateMultipartUploadResult', `<UploadId>${id}</UploadId>`);
    },
    'PUT part': (request, response, body) => {
      const upload = s3.uploads.get(request.query.get('uploadId') ?? '');
      if (upload === undefined) return refuse(response, 404, 'NoSuchUpload');
      upload.parts.set(Number(request.query.get('partNumber')), body);
      response.writeHead(200, { etag: etag(body) }).end();
    },
    'POST part': (request, response, body) => completeUpload(request, response, body),
    'DELETE part': (request, response) => {
      const known = s3.uploads.delete(request.query.get('uploadId') ?? '');
      if (known) response.writeHead(204).end();
      else refuse(response, 404, 'NoSuchUpload');
    },
  };

  function answerObject(request: SeenRequest, response: ServerResponse, failure: Failure | undefined): void {
    const bytes = s3.objects.get(request.key)?.bytes;
    if (bytes === undefined) {
      refuse(response, 404, 'NoSuchKey');
      return;
    }
    const range = failure?.kind === 'ignore_range' ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const first = Number(range?.[1] ?? 0);
    if (range !== null && first >= bytes.length) {
      refuse(response, 416, 'InvalidRange');
      return;
    }
    const slice = bytes.subarray(first, range === null ? undefined : Number(range[2]) + 1);
    response.writeHead(range === null ? 200 : 206, {
      'content-length': slice.length,
      ...(range !== null && { 'content-range': `bytes ${first}-${first + slice.length - 1}/${bytes.length}` }),
    });
    if (failure?.kind === 'break_body' || failure?.kind === 'stall_body') {
      response.write(slice.subarray(0, failure.afterBytes), () => {
        if (failure.kind === 'break_body') response.destroy();
      });
    } else {
      response.end(slice);
    }
  }

  function answerListing(request: SeenRequest, response: ServerResponse): void {
    const after = request.query.get('continuation-token') ?? '';
    const prefix = request.query.get('prefix') ?? '';
    const keys = [...s3.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = keys.slice(0, PAGE_KEYS);
    const more = keys.length > page.length;
    const contents = page.map((key) => {
      const object = s3.objects.get(key);
      return `<Contents><Key>${key}</Key><LastModified>${object?.storedAt.toISOString()}</LastModified><Size>${object?.bytes.length}</Size></Contents>`;
    });
    const token = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : '';
    xml(response, 'ListBucketResult', `<IsTruncated>${more}</IsTruncated>${token}${contents.join('')}`);
  }

  function completeUpload(request: SeenRequest, response: ServerResponse, body: Buffer): void {
    const id = request.query.get('uploadId') ?? '';
    const upload = s3.uploads.get(id);
    const numbers = [...body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber>/g)].map((match) => Number(match[1]));
    const parts = numbers.map((number) => upload?.parts.get(number));
    if (upload === undefined) {
      refuse(response, 404, 'NoSuchUpload');
    } else if (!parts.every((part) => part !== undefined)) {
      refuse(response, 400, 'InvalidPart');
    } else if (parts.slice(0, -1).some((part) => part.length < PART_MIN_BYTES)) {
      refuse(response, 400, 'EntityTooSmall');
    } else {
      s3.objects.set(request.key, { bytes: Buffer.concat(parts), storedAt: new Date() });
      s3.uploads.delete(id);
      xml(response, 'CompleteMultipartUploadResult', `<Key>${request.key}</Key><ETag>"parts"</ETag>`);
    }
  }

  return s3;
}

/** Small, so that a listing of a few keys has several pages. */
const PAGE_KEYS = 3;
const PART_MIN_BYTES = 5 * 2 ** 20;

function operationOf({ method, key, query }: SeenRequest): string {
  if (query.has('uploadId')) return `${method} part`;
  if (query.has('uploads')) return `${method} uploads`;
  return key === '' ? `${method} list` : `${method} object`;
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function xml(response: ServerResponse, name: string, inner: string): void {
  response.writeHead(200, { 'content-type': 'application/xml' });
  response.end(`<?xml version="1.0" encoding="UTF-8"?><${name}>${inner}</${name}>`);
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/xml' });
  response.end(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`);
}

function etag(bytes: Buffer): string {
  return `"${createHash('md5').update(bytes).digest('hex')}"`;
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
