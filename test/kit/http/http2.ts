/** HTTP/2 clients for tests: one of node's, and one frame by frame for frames that no library would send. */
import { once } from 'node:events';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { until } from '../until.js';

/** A connected session. The caller destroys it. */
export async function connectHttp2(url: string, ca: string): Promise<ClientHttp2Session> {
  const client = connect(url, { ca });
  client.on('error', () => {});
  await once(client, 'connect');
  return client;
}

export interface Http2Answer {
  readonly headers: IncomingHttpHeaders;
  readonly status: number;
  readonly bytes: Buffer;
  readonly rstCode: number;
}

/** `fields` name the path. */
export function fetchHttp2(
  client: ClientHttp2Session,
  fields: OutgoingHttpHeaders,
  body?: Uint8Array,
): Promise<Http2Answer> {
  return new Promise((resolve) => {
    const stream = client.request(fields, { endStream: body === undefined });
    let headers: IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    stream.on('response', (came) => (headers = came));
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', () => {});
    stream.on('close', () =>
      resolve({
        headers,
        status: Number(headers[':status'] ?? 0),
        bytes: Buffer.concat(chunks),
        rstCode: stream.rstCode ?? 0,
      }),
    );
    if (body !== undefined) stream.end(body);
  });
}

/** HTTP/2 frame by frame (RFC 9113 4.1), for frames that no library would send. */
export interface RawSession {
  send(...frames: readonly Buffer[]): void;
  /** The frames received so far. */
  readonly frames: readonly ReceivedFrame[];
  /** The error code of the GOAWAY received; null if the connection ended without one. */
  readonly over: Promise<number | null>;
  /** Resolves when so many frames of a type have been received. */
  came(type: number, count?: number): Promise<void>;
  text(): string;
  destroy(): void;
}

export interface ReceivedFrame {
  readonly type: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
} as const;

export function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** RFC 7541 6.2.2: each field as a literal with a new name. */
export function fieldBlock(given: Readonly<Record<string, string>>): Buffer {
  const text = (value: string): Buffer => {
    const bytes = Buffer.from(value, 'latin1');
    if (bytes.length < 127) return Buffer.concat([Buffer.of(bytes.length), bytes]);
    const more: number[] = [];
    let left = bytes.length - 127;
    for (; left >= 128; left = Math.floor(left / 128)) more.push((left % 128) + 128);
    return Buffer.concat([Buffer.of(127, ...more, left), bytes]);
  };
  return Buffer.concat(Object.entries(given).flatMap(([name, value]) => [Buffer.of(0), text(name), text(value)]));
}

export const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** Opens a connection, sends the preface and empty settings. The caller destroys it. */
export async function connectFrames(port: number, ca: string): Promise<RawSession> {
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    ca,
    ALPNProtocols: ['h2'],
  });
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  const frames: ReceivedFrame[] = [];
  let pending = Buffer.alloc(0);
  let text = '';
  let code: number | null = null;
  socket.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    text += chunk.toString('latin1');
    for (let length = pending.length < 9 ? Infinity : pending.readUIntBE(0, 3); pending.length >= 9 + length; ) {
      const type = pending.readUInt8(3);
      frames.push({ type, stream: pending.readUInt32BE(5), payload: pending.subarray(9, 9 + length) });
      if (type === FRAME.goaway) code = pending.readUInt32BE(9 + 4);
      pending = pending.subarray(9 + length);
      length = pending.length < 9 ? Infinity : pending.readUIntBE(0, 3);
    }
  });
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(FRAME.settings, 0, 0));
  return {
    send: (...frames) => void (socket.writable && socket.write(Buffer.concat(frames))),
    frames,
    over: once(socket, 'close').then(() => code),
    came: (type, count = 1) =>
      until(`${count} frames of type ${type}`, () => frames.filter((each) => each.type === type).length >= count),
    text: () => text,
    destroy: () => socket.destroy(),
  };
}
