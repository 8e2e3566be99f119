/**
 * The least that a server on this platform can do with an upload: receive it
 * with node:http, hash it, write it, sync it, answer. It runs as a process of its
 * own, like the service. `bench/upload.ts` measures both with the same client.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

const [folder = '.'] = process.argv.slice(2);
let count = 0;

const server = createServer((request, response) => {
  count += 1;
  const path = join(folder, String(count));
  void (async () => {
    const hash = createHash('sha256');
    const file = await open(path, 'w');
    const end = await writeOut(file, request as AsyncIterable<Buffer>, (chunk) => hash.update(chunk));
    await file.sync();
    await file.close();
    response.writeHead(201, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ sha256: hash.digest('hex'), size: end }));
  })();
});
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
process.once('disconnect', () => process.exit());

/** Writes one chunk while the next one is received. */
async function writeOut(
  file: FileHandle,
  chunks: AsyncIterable<Buffer>,
  see: (chunk: Buffer) => void,
): Promise<number> {
  let position = 0;
  let writing: Promise<unknown> = Promise.resolve();
  for await (const chunk of chunks) {
    see(chunk);
    await writing;
    writing = file.write(chunk, 0, chunk.length, position);
    position += chunk.length;
  }
  await writing;
  return position;
}
