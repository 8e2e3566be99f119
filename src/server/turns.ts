/**
 * The requests of each HTTP/1.1 connection and the turns of their responses,
 * which go out in the order of the requests (RFC 9112 9.3.2).
 *
 * When a connection closes, node closes only the response whose turn it is. This
 * closes the others, or their handlers would wait for ever.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

export interface Turns {
  /** Must be called for each new request. */
  add(request: IncomingMessage, response: ServerResponse): void;
  of(socket: Duplex): TurnsOfConnection;
}

export interface TurnsOfConnection {
  /** The latest request and its response, which may be complete. */
  readonly last: { readonly request: IncomingMessage; readonly response: ServerResponse } | undefined;
  /** The responses that are not complete, in their order. */
  readonly waiting: readonly ServerResponse[];
}

interface Connection {
  readonly waiting: Set<ServerResponse>;
  last: TurnsOfConnection['last'];
}

export function createTurns(): Turns {
  const connections = new WeakMap<Duplex, Connection>();

  function begin({ socket }: IncomingMessage): Connection {
    const connection: Connection = { waiting: new Set(), last: undefined };
    connections.set(socket, connection);
    socket.once('close', () => setImmediate(() => closeAll(connection.waiting)));
    return connection;
  }

  return {
    add(request, response) {
      const connection = connections.get(request.socket) ?? begin(request);
      const { waiting } = connection;
      connection.last = { request, response };
      waiting.add(response);
      response.once('close', () => waiting.delete(response));
      if (request.socket.closed) setImmediate(() => closeAll(waiting));
    },
    of(socket) {
      const connection = connections.get(socket);
      return { last: connection?.last, waiting: [...(connection?.waiting ?? [])] };
    },
  };
}

/** By now node has closed the response whose turn it was. */
function closeAll(responses: Iterable<ServerResponse>): void {
  for (const response of responses) {
    response.destroy();
    response.emit('close');
  }
}
