/**
 * The limit of the platform for a hit: node:http with the answers ready in
 * memory and nothing to decide. It runs as a process of its own, and is also the
 * origin of nginx and Varnish in `bench/hit.ts`.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const answers = new Map(
  process.argv.slice(2).map((path, index) => {
    const bytes = readFileSync(path);
    const etag = `"sha256:${createHash('sha256').update(bytes).digest('hex')}"`;
    return [`/${index}`, { bytes, etag }];
  }),
);

const server = createServer((request, response) => {
  const answer = answers.get(request.url ?? '');
  if (answer === undefined) {
    response.writeHead(404).end();
    return;
  }
  const head = {
    'content-type': 'application/pdf',
    'cache-control': 'public, max-age=86400',
    'accept-ranges': 'bytes',
    'content-security-policy':
      "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
    'x-content-type-options': 'nosniff',
    etag: answer.etag,
  };
  if (request.headers['if-none-match'] === answer.etag) {
    response.writeHead(304, head).end();
    return;
  }
  response.writeHead(200, { ...head, 'content-length': answer.bytes.length });
  response.end(request.method === 'HEAD' ? undefined : answer.bytes);
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
process.once('disconnect', () => process.exit());
