/** TCP and TLS connections byte by byte, for what an HTTP library does not send or does not show. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { resetConnection } from './reset.js';

export interface RawConnection {
  /** Everything received so far, as latin-1. */
  readonly text: string;
  write(bytes: string | Buffer): void;
  /** Closes our half of the connection (FIN). */
  end(): void;
  reset(): void;
  /** Resolves with the text once it matches. Rejects if the other side closes before. */
  until(pattern: RegExp): Promise<string>;
  /** How the other side closed it. */
  readonly closed: Promise<'ended' | 'reset'>;
  /** Resolves with everything received, once the other side has closed. */
  whole(): Promise<string>;
  readonly socket: Socket;
}

/** A request head with a body to follow. */
export function requestHead(
  method: string,
  target: string,
  headers: Readonly<Record<string, string | number>>,
): string {
  const lines = Object.entries({ host: 'test', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

export interface RawTls {
  /** The certificate that is trusted. */
  readonly ca: string;
  /** `http/1.1` or `h2`. */
  readonly protocol: string;
}

export async function connectRaw(port: number, tls?: RawTls): Promise<RawConnection> {
  const where = { port, host: '127.0.0.1', noDelay: true };
  const socket =
    tls === undefined ? connect(where) : connectTls({ ...where, ca: tls.ca, ALPNProtocols: [tls.protocol] });
  const raw = rawOf(socket);
  await new Promise<void>((resolve, reject) => {
    socket.once(tls === undefined ? 'connect' : 'secureConnect', resolve).once('error', reject);
  });
  return raw;
}

/** Sends a text and resolves with everything received, once the other side has closed. */
export async function exchangeRaw(port: number, text: string | Buffer): Promise<string> {
  const raw = await connectRaw(port);
  raw.write(text);
  await raw.closed;
  raw.socket.destroy();
  return raw.text;
}

export interface RawServer {
  readonly port: number;
  readonly url: string;
  /** Every connection so far. */
  readonly connections: readonly RawConnection[];
  close(): Promise<void>;
}

export async function listenRaw(
  onConnection: (raw: RawConnection, index: number) => void | Promise<void>,
): Promise<RawServer> {
  const connections: RawConnection[] = [];
  const server = createServer({ noDelay: true }, (socket) => {
    const raw = rawOf(socket);
    connections.push(raw);
    void onConnection(raw, connections.length - 1);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    connections,
    close: () =>
      new Promise((resolve) => {
        for (const { socket } of connections) socket.destroy();
        server.close(() => resolve());
      }),
  };
}

function rawOf(socket: Socket): RawConnection {
  let text = '';
  let over = false;
  const watchers = new Set<() => void>();
  const wake = (): void => {
    for (const watch of watchers) watch();
  };
  const closed = new Promise<'ended' | 'reset'>((resolve) => {
    socket.once('end', () => resolve('ended'));
    socket.once('error', () => resolve('reset'));
    socket.once('close', () => resolve('reset'));
  });
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    wake();
  });
  socket.once('close', () => {
    over = true;
    wake();
  });
  socket.once('end', () => {
    over = true;
    wake();
  });
  socket.on('error', () => {});
  return {
    get text() {
      return text;
    },
    write: (bytes) => void socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes),
    end: () => void socket.end(),
    reset: () => resetConnection(socket),
    until: (pattern) =>
      new Promise((resolve, reject) => {
        const watch = (): void => {
          const matched = pattern.test(text);
          if (!matched && !over) return;
          watchers.delete(watch);
          if (matched) resolve(text);
          else reject(new Error(`closed before ${pattern.source}: ${JSON.stringify(text.slice(-500))}`));
        };
        watchers.add(watch);
        watch();
      }),
    closed,
    async whole() {
      await closed;
      return text;
    },
    socket,
  };
}
