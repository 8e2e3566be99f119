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
  /** The latest request of a connection and its response, which may be complete. */
  last(socket: Duplex): Exchange | undefined;
  /** Calls `then` when every request that was received whole is answered, which may be at once. Once for a connection. */
  afterWhole(socket: Duplex, then: () => void): void;
}

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

interface Connection {
  /** The responses that are not complete, in their order. */
  readonly waiting: Set<ServerResponse>;
  last: Exchange | undefined;
  /** Called after this response. */
  after: { readonly response: ServerResponse; readonly run: () => void } | undefined;
}

export function createTurns(): Turns {
  const connections = new WeakMap<Duplex, Connection>();

  function begin({ socket }: IncomingMessage): Connection {
    const connection: Connection = { waiting: new Set(), last: undefined, after: undefined };
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
      response.once('close', () => {
        waiting.delete(response);
        if (connection.after?.response === response) connection.after.run();
      });
      if (request.socket.closed) setImmediate(() => closeAll(waiting));
    },
    last: (socket) => connections.get(socket)?.last,
    afterWhole(socket, then) {
      const connection = connections.get(socket);
      const response = connection === undefined ? undefined : latestWhole(connection);
      if (connection === undefined || response === undefined) then();
      else connection.after = { response, run: then };
    },
  };
}

function latestWhole({ waiting, last }: Connection): ServerResponse | undefined {
  return [...waiting].findLast((response) => last?.request.complete === true || response !== last?.response);
}

/** By now node has closed the response whose turn it was. */
function closeAll(responses: Iterable<ServerResponse>): void {
  for (const response of responses) {
    response.destroy();
    response.emit('close');
  }
}
