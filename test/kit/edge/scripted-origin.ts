/**
 * An origin that does as a test says: answers by script, counts what it was
 * asked, holds answers back until told, stalls, resets, lies about length and
 * hash, or speaks no HTTP at all.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';

export interface Seen {
  readonly method: string;
  readonly target: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** What a script may do with one request. */
export interface Answering {
  /** Sends the head; `content-length` is sent as given, right or not. */
  head(status: number, headers?: Readonly<Record<string, string | readonly string[]>>): void;
  write(chunk: Buffer | string): Promise<void>;
  end(chunk?: Buffer | string): void;
  /** Cuts the connection: RST. */
  reset(): void;
  /** Ends the connection in good order, whatever was announced. */
  hangUp(): void;
  /** 103 with a Link. */
  hint(link: string): void;
  /** Bytes that are no HTTP. */
  raw(text: string): void;
  /** Resolves when the other side has gone. */
  readonly gone: Promise<void>;
}

export type Script = (seen: Seen, answer: Answering) => void | Promise<void>;

export interface ScriptedOrigin {
  readonly url: string;
  readonly port: number;
  /** Every request in the order of arrival. */
  readonly seen: readonly Seen[];
  /** How often a target was asked for, with a method if given. */
  count(target: string, method?: string): number;
  /** Sets the script of a path; that of `*` answers whatever has none. */
  on(path: string, script: Script): void;
  /** Resolves once so many requests for a target have arrived. */
  arrived(target: string, times?: number): Promise<void>;
  /** Cuts every connection. */
  cutAll(): void;
  close(): Promise<void>;
}

export async function openScriptedOrigin(
  port = 0,
  tls?: { readonly cert: string; readonly key: string },
): Promise<ScriptedOrigin> {
  const scripts = new Map<string, Script>();
  const seen: Seen[] = [];
  const sockets = new Set<Socket>();
  const watchers = new Set<() => void>();
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    void read(request).then(async (each) => {
      seen.push(each);
      for (const watch of watchers) watch();
      const script = scripts.get(each.path) ?? scripts.get('*') ?? notFound;
      await script(each, answering(response));
    });
  };
  const server = tls === undefined ? createServer(onRequest) : createTlsServer(tls, onRequest);
  server.keepAliveTimeout = 60_000;
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => {
    server.listen(port, '127.0.0.1', resolve);
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
      for (const socket of sockets) socket.resetAndDestroy();
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

async function read(request: IncomingMessage): Promise<Seen> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer);
  } catch {
    // The caller left; what came is what was seen.
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

function answering(response: ServerResponse): Answering {
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
    reset: () => void socket?.resetAndDestroy(),
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

/** The head that the origin of this service gives an edge for such media. */
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

/** Answers as the origin of this service answers a proven edge: 304 and 401 where due. */
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

/** Answers one range of media under If-Range as RFC 9110 14.2 has it, all else as `mediaScript` does. */
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
    const part = bytes.subarray(first, last + 1);
    answer.head(206, {
      ...head,
      'content-length': String(part.length),
      'content-range': `bytes ${first}-${last}/${bytes.length}`,
    });
    answer.end(part);
  };
}
