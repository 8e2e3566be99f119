/**
 * Responses that wait for their turn on a connection, behind requests that came
 * before. Node tells the one whose turn it is that the connection has closed;
 * those behind it would wait for ever, and whoever answers with them.
 */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** To be told of each response as it is made. */
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

/** Node has closed the one whose turn it was by now. */
function closeAll(responses: Iterable<ServerResponse>): void {
  for (const response of responses) {
    response.destroy();
    response.emit('close');
  }
}
