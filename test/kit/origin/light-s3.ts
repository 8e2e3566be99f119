/**
 * A bucket in memory behind real HTTP: as much of S3 as the adaptor speaks,
 * strict about sizes and payload hashes, blind to signatures, and ready to fail
 * in the ways that real servers and networks do.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** How one request goes wrong. */
export type Misdeed =
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  /** The same before the body has been read, of which nothing ever is. */
  | { readonly kind: 'early_status'; readonly status: number; readonly code: string }
  /** The connection breaks before anything is done. */
  | { readonly kind: 'reset' }
  /** It is done, but the answer never arrives. */
  | { readonly kind: 'lose_answer' }
  /** Nothing is ever answered. */
  | { readonly kind: 'stall' }
  /** The body of the answer breaks off, or falls silent, after so many bytes. */
  | { readonly kind: 'break_body' | 'stall_body'; readonly afterBytes: number }
  /** Only so many bytes are kept, and success is answered. */
  | { readonly kind: 'keep_less'; readonly keptBytes: number }
  /** A range is answered with the whole. */
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
  /** Uploads in parts that are under way. */
  readonly uploads: Map<string, { readonly key: string; readonly parts: Map<number, Buffer>; readonly begunAt: Date }>;
  readonly seen: SeenRequest[];
  /** Asked before each request. */
  misdeed: (request: SeenRequest) => Misdeed | undefined;
  /** Whether it knows If-None-Match on writes. */
  conditional: boolean;
  /** Connections that are open. */
  connections(): Promise<number>;
  close(): Promise<void>;
}

export async function openLightS3(): Promise<LightS3> {
  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy());
  });
  // Closing idle connections by itself, it would now and then break one that a request is just on its way into.
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
    misdeed: () => undefined,
    conditional: true,
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
    const misdeed = s3.misdeed(seen);
    if (misdeed?.kind === 'reset') return void request.socket.destroy();
    if (misdeed?.kind === 'stall') return void request.resume();
    if (misdeed?.kind === 'early_status') return refuse(response, misdeed.status, misdeed.code);
    const body = await readBody(request);
    if (misdeed?.kind === 'status') return refuse(response, misdeed.status, misdeed.code);
    if (misdeed?.kind === 'lose_answer') response.end = () => response.destroy();
    if (bucket !== s3.bucket) return refuse(response, 404, 'NoSuchBucket');
    if (headers.authorization?.startsWith('AWS4-HMAC-SHA256 Credential=') !== true) {
      return refuse(response, 403, 'AccessDenied');
    }
    const declared = headers['x-amz-content-sha256'];
    if (typeof declared === 'string' && /^[0-9a-f]{64}$/.test(declared) && sha256(body) !== declared) {
      return refuse(response, 400, 'XAmzContentSHA256Mismatch');
    }
    const kept = misdeed?.kind === 'keep_less' ? body.subarray(0, misdeed.keptBytes) : body;
    const operation = operations[operationOf(seen)];
    if (operation === undefined) return refuse(response, 501, 'NotImplemented');
    operation(seen, response, kept, misdeed);
  }

  type Operation = (request: SeenRequest, response: ServerResponse, body: Buffer, misdeed: Misdeed | undefined) => void;

  const operations: Readonly<Record<string, Operation>> = {
    'PUT object': (request, response, body) => {
      if (refusesWrite(request, response)) return;
      s3.objects.set(request.key, { bytes: body, storedAt: new Date() });
      response.writeHead(200, { etag: etag(body) }).end();
    },
    'GET object': (request, response, _, misdeed) => answerObject(request, response, misdeed),
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

  function refusesWrite(request: SeenRequest, response: ServerResponse): boolean {
    if (request.headers['if-none-match'] === undefined) return false;
    if (!s3.conditional) refuse(response, 501, 'NotImplemented');
    else if (s3.objects.has(request.key)) refuse(response, 412, 'PreconditionFailed');
    else return false;
    return true;
  }

  function answerObject(request: SeenRequest, response: ServerResponse, misdeed: Misdeed | undefined): void {
    const bytes = s3.objects.get(request.key)?.bytes;
    if (bytes === undefined) {
      refuse(response, 404, 'NoSuchKey');
      return;
    }
    const range = misdeed?.kind === 'ignore_range' ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
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
    if (misdeed?.kind === 'break_body' || misdeed?.kind === 'stall_body') {
      response.write(slice.subarray(0, misdeed.afterBytes), () => {
        if (misdeed.kind === 'break_body') response.destroy();
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
    } else if (!refusesWrite(request, response)) {
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
