/**
 * Ports for listeners whose port must be known before they listen, or after they have ended. No other test of this machine
 * is given the same one while this process lives: a UDP socket of that number says that it is taken. Nor does the system
 * give it to an outgoing connection: it lies below the range of those (32768 up on Linux, 49152 up elsewhere), from which
 * `listen(0)` takes its ports too.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

const HOST = '127.0.0.1';
const FIRST = 10_240;
const END = 32_768;

export async function ownPort(): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * (END - FIRST));
    if ((await isClaimed(port)) && (await isFree(port))) return port;
  }
}

/** Whether this process has it now, for as long as it lives. */
async function isClaimed(port: number): Promise<boolean> {
  const claim = createSocket('udp4').unref();
  try {
    claim.bind({ port, address: HOST, exclusive: true });
    await once(claim, 'listening');
    return true;
  } catch {
    claim.close();
    return false;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, HOST);
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
