import { once } from 'node:events';
import t from 'tap';
import { connectRaw, listenRaw } from './raw.js';
import { resetConnection } from './reset.js';

void t.test('a connection is broken off, and closed where it is being shut down already', async (t) => {
  const server = await listenRaw(() => undefined);
  t.teardown(() => server.close());
  for (const isShutting of [false, true]) {
    const { socket } = await connectRaw(server.port);
    const failures: Error[] = [];
    socket.on('error', (error) => failures.push(error));
    const closed = once(socket, 'close');
    if (isShutting) socket.end('the last bytes');
    await new Promise<void>((resolve) => process.nextTick(resolve));
    resetConnection(socket);
    await closed;
    t.same(failures, [], 'node has no complaint, and lets go of it');
  }
});
