import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import t from 'tap';
import { ownPort } from './ports.js';

void t.test('a port of a test is free, is nobody else’s, and is never one of an outgoing connection', async (t) => {
  const ports = await Promise.all(Array.from({ length: 20 }, ownPort));
  t.equal(new Set(ports).size, ports.length);
  for (const port of ports) {
    t.ok(port < 32_768, String(port));
    const other = createSocket('udp4');
    t.teardown(() => other.close());
    other.bind({ port, address: '127.0.0.1', exclusive: true });
    await t.rejects(once(other, 'listening'), { code: 'EADDRINUSE' }, 'as another process that asks for it');
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
  }
});
