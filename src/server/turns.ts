/**
 * Responses that wait on a connection until the requests before them are
 * answered. When the connection closes, node closes only the response whose turn
 * it is. This closes the others, or their handlers would wait for ever.
 */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** The function returned must be called for each new response. */
export function createTurns(): (socket: Socket, response: ServerResponse) => void {
  const waiting = new WeakMap<Socket, Set<ServerResponse>>();
  return (socket, response) => {
    let all = waiting.get(socket);
    if (all === undefined) {
      const known = new Set<ServerResponse>();
      all = known;
      waiting.set(socket, known);
      socket.once('close', () => setImmediate(() => closeAll(known)));
    }
    all.add(response);
    response.once('close', () => all.delete(response));
    if (socket.closed) setImmediate(() => closeAll(all));
  };
}

/** By now node has closed the response whose turn it was. */
function closeAll(responses: Iterable<ServerResponse>): void {
  for (const response of responses) {
    response.destroy();
    response.emit('close');
  }
}
