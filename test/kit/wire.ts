/**
 * A connection on which a test writes what it likes, byte by byte, and reads
 * what comes back: for bodies that stop, lie or never come.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface Wire {
  readonly socket: Socket;
  write(bytes: string | Uint8Array): void;
  /** All that has come so far, as latin1. */
  received(): string;
  /** Resolves with all that has come once it matches; rejects where the connection closes before. */
  until(pattern: RegExp): Promise<string>;
  /** Resolves with all that came once the other side has closed. */
  closed(): Promise<string>;
  destroy(): void;
}

export async function openWire(url: string): Promise<Wire> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  let received = '';
  const watchers = new Set<() => void>();
  const changed = (): void => {
    for (const watch of watchers) watch();
  };
  let ended = false;
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1');
    changed();
  });
  const end = (): void => {
    ended = true;
    changed();
  };
  socket.on('end', end);
  socket.on('close', end);
  socket.on('error', end);
  await once(socket, 'connect');

  function watchFor(done: () => string | undefined): Promise<string> {
    return new Promise((resolve, reject) => {
      const watch = (): void => {
        const result = done();
        if (result !== undefined) resolve(result);
        else if (ended) reject(new Error(`the connection closed after: ${received}`));
        else return;
        watchers.delete(watch);
      };
      watchers.add(watch);
      watch();
    });
  }

  return {
    socket,
    write: (bytes) => void socket.write(bytes),
    received: () => received,
    until: (pattern) => watchFor(() => (pattern.test(received) ? received : undefined)),
    closed: () => watchFor(() => (ended ? received : undefined)),
    destroy: () => void socket.destroy(),
  };
}

/** A request head with a body to follow. */
export function head(method: string, path: string, headers: Readonly<Record<string, string | number>>): string {
  const lines = Object.entries({ host: 'test', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}
