/**
 * Breaks a connection off at once (RST). Node cannot do that while it is shutting its own half down: it reports EINVAL, keeps the
 * connection for ever, and the process with it. Such a connection is closed instead.
 */
import type { Socket } from 'node:net';

export function resetConnection(socket: Socket): void {
  const isShutting = socket.writableEnded && !socket.writableFinished;
  if (isShutting) socket.destroy();
  else socket.resetAndDestroy();
}
