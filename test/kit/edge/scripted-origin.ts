/**
 * An origin whose responses are scripted by the test. A script may delay a response, stall, reset the connection, send a
 * wrong length or hash, or send bytes that are not HTTP. Every request is kept.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { resetConnection } from '../http/reset.js';

export interface SeenRequest {
  readonly method: string;
  readonly target: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** What a script may do with one request. */
export interface ScriptedResponse {
  /** Sends the head. `content-length` is sent as given, also where it is wrong. */
  head(status: number, headers?: Readonly<Record<string, string | readonly string[]>>): void;
  write(chunk: Buffer | string): Promise<void>;
  end(chunk?: Buffer | string): void;
  /** Resets the connection (RST). */
  reset(): void;
  /** Closes the connection (FIN), also before the announced end of the body. */
  hangUp(): void;
  /** Sends 103 with a Link. */
  hint(link: string): void;
  /** Sends these bytes in place of HTTP, and closes the connection. */
  raw(text: string): void;
  /** Resolves when the connection of the request is closed. */
  readonly gone: Promise<void>;
}

export type Script = (seen: SeenRequest, answer: ScriptedResponse) => void | Promise<void>;

export interface ScriptedOrigin {
  readonly url: string;
  readonly port: number;
  /** Every request in the order of arrival. */
  readonly seen: readonly SeenRequest[];
  /** How often a target was requested; with a method, only those. */
  count(target: string, method?: string): number;
  /** Sets the script of a path. The script of `*` is for paths without one. */
  on(path: string, script: Script): void;
  /** Resolves once so many requests for a target have arrived. */
  arrived(target: string, times?: number): Promise<void>;
  /** Resets every connection. */
  cutAll(): void;
  close(): Promise<void>;
}

export async function openScriptedOrigin(tls?: {
  readonly cert: string;
  readonly key: string;
}): Promise<ScriptedOrigin> {
  const scripts = new Map<string, Script>();
  const seen: SeenRequest[] = [];
  const sockets = new Set<Socket>();
  const watchers = new Set<() => void>();
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    void read(request).then(async (each) => {
      seen.push(each);
      for (const watch of watchers) watch();
      const script = scripts.get(each.path) ?? scripts.get('*') ?? notFound;
      await script(each, responseOf(response));
    });
  };
  const server = tls === undefined ? createServer(onRequest) : createTlsServer(tls, onRequest);
  server.keepAliveTimeout = 60_000;
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address() as AddressInfo;
  const count = (target: string, method?: string): number =>
    seen.filter((each) => each.target === target && (method === undefined || each.method === method)).length;
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${address.port}`,
    port: address.port,
    seen,
    count,
    on: (path, script) => void scripts.set(path, script),
    arrived(target, times = 1) {
      if (count(target) >= times) return Promise.resolve();
      return new Promise((resolve) => {
        const watch = (): void => {
          if (count(target) < times) return;
          watchers.delete(watch);
          resolve();
        };
        watchers.add(watch);
      });
    },
    cutAll() {
      for (const socket of sockets) resetConnection(socket);
    },
    close() {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const socket of sockets) socket.destroy();
      return closed;
    },
  };
}

async function read(request: IncomingMessage): Promise<SeenRequest> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer);
  } catch {
    // The client left. What has arrived is kept.
  }
  const target = request.url ?? '';
  return {
    method: request.method ?? '',
    target,
    path: target.split('?', 1)[0] ?? '',
    headers: request.headers,
    body: Buffer.concat(chunks),
  };
}

function responseOf(response: ServerResponse): ScriptedResponse {
  const { socket } = response;
  return {
    head(status, headers = {}) {
      response.writeHead(
        status,
        Object.fromEntries(
          Object.entries(headers).map(([name, value]) => [name, typeof value === 'string' ? value : [...value]]),
        ),
      );
      response.flushHeaders();
    },
    write: (chunk) =>
      new Promise((resolve) => {
        response.write(chunk, () => resolve());
      }),
    end: (chunk) => void response.end(chunk),
    reset() {
      if (socket) resetConnection(socket);
    },
    hangUp: () => void socket?.end(),
    hint: (link) => response.writeEarlyHints({ link }),
    raw: (text) => void socket?.end(text),
    gone: new Promise((resolve) => {
      response.once('close', resolve);
    }),
  };
}

const notFound: Script = (_seen, answer) => {
  answer.head(404, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
  answer.end('{"code":"not_found"}');
};

export interface ScriptedMedia {
  readonly bytes: Buffer;
  readonly contentType?: string;
  readonly public?: boolean;
  readonly maxAgeSeconds?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export function sha256Of(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The head with which a real origin serves such media to an edge. */
export function mediaHead(media: ScriptedMedia): Record<string, string> {
  const sha256 = sha256Of(media.bytes);
  return {
    'content-type': media.contentType ?? 'image/png',
    'content-length': String(media.bytes.length),
    etag: `"sha256:${sha256}"`,
    'repr-digest': `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`,
    'last-modified': 'Wed, 01 Jan 2025 00:00:00 GMT',
    'accept-ranges': 'bytes',
    'cache-control': `${media.public === true ? 'public' : 'private'}, max-age=60`,
    'cdn-cache-control': `${media.public === true ? 'public, ' : ''}max-age=${media.maxAgeSeconds ?? 3_600}, stale-while-revalidate=60, stale-if-error=600`,
    ...media.headers,
  };
}

/** Responds as a real origin responds to an edge, also with 304 and 401. */
export function mediaScript(media: ScriptedMedia): Script {
  return (seen, answer) => {
    const head = mediaHead(media);
    if (seen.headers['media-caller'] === 'anonymous' && media.public !== true) {
      answer.head(401, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
      answer.end('{"code":"unauthorized"}');
      return;
    }
    if (seen.headers['if-none-match'] === head['etag']) {
      const { 'content-length': _length, ...rest } = head;
      answer.head(304, rest);
      answer.end();
      return;
    }
    answer.head(200, head);
    answer.end(seen.method === 'HEAD' ? undefined : media.bytes);
  };
}

/** Serves a single range, under If-Range (RFC 9110 13.1.5), and everything else as `mediaScript` does. */
export function rangedScript(media: ScriptedMedia): Script {
  const { bytes } = media;
  return (seen, answer) => {
    const head = mediaHead(media);
    const match = /^bytes=(\d*)-(\d*)$/.exec(String(seen.headers['range'] ?? ''));
    const condition = seen.headers['if-range'];
    if (match === null || (condition !== undefined && condition !== head['etag']))
      return mediaScript(media)(seen, answer);
    const [, from = '', to = ''] = match;
    const first = from === '' ? bytes.length - Number(to) : Number(from);
    const last = from === '' || to === '' ? bytes.length - 1 : Math.min(Number(to), bytes.length - 1);
    const range = bytes.subarray(first, last + 1);
    answer.head(206, {
      ...head,
      'content-length': String(range.length),
      'content-range': `bytes ${first}-${last}/${bytes.length}`,
    });
    answer.end(range);
  };
}
