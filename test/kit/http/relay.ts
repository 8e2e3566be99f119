/**
 * A TCP relay between a client and a server that can be partitioned or cut by the test. During a partition, connections
 * stay open and bytes do not arrive; they arrive when it ends.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { resetConnection } from './reset.js';

type RelayMode =
  | 'pass'
  /** No bytes get through. New connections are accepted and stay silent. */
  | 'partition'
  /** New connections are reset at once. */
  | 'refuse';

export interface Relay {
  readonly port: number;
  readonly url: string;
  /** Connections accepted so far. */
  readonly accepted: number;
  set(mode: RelayMode): void;
  /** Resets every open connection. */
  cut(): void;
  close(): Promise<void>;
}

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
}

/** `target` gives the port of the server. It is called for each connection, as the server may move. */
export async function openRelay(target: () => number): Promise<Relay> {
  const pairs = new Set<Pair>();
  let mode: RelayMode = 'pass';
  let accepted = 0;

  const listener = createServer({ noDelay: true }, (client) => {
    accepted += 1;
    client.on('error', () => {});
    if (mode === 'refuse') {
      resetConnection(client);
      return;
    }
    const server = connect({ port: target(), host: '127.0.0.1', noDelay: true });
    const pair = { client, server };
    pairs.add(pair);
    server.on('error', () => {});
    const end = (): void => {
      pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    client.once('close', end);
    server.once('close', end);
    client.on('data', (chunk: Buffer) => server.write(chunk));
    server.on('data', (chunk: Buffer) => client.write(chunk));
    client.on('end', () => server.end());
    server.on('end', () => client.end());
    if (mode === 'partition') pause(pair);
  });
  await new Promise<void>((resolve) => {
    listener.listen(0, '127.0.0.1', resolve);
  });
  const { port } = listener.address() as AddressInfo;
  const cut = (): void => {
    for (const { client, server } of pairs) {
      resetConnection(client);
      resetConnection(server);
    }
  };
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    get accepted() {
      return accepted;
    },
    set(next) {
      mode = next;
      for (const pair of pairs) {
        if (mode === 'partition') pause(pair);
        else resume(pair);
      }
    },
    cut,
    close: () =>
      new Promise((resolve) => {
        cut();
        listener.close(() => resolve());
      }),
  };
}

function pause({ client, server }: Pair): void {
  client.pause();
  server.pause();
}

function resume({ client, server }: Pair): void {
  client.resume();
  server.resume();
}
