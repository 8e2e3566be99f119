/**
 * node:http with its answers ready in memory and nothing to decide, as a process
 * of its own: the limit of the platform, and the origin of nginx, of Varnish and
 * of the edge in generic mode. Also nginx's auth server, as another process.
 *
 *   /NAME           the file NAME of the folder that is its argument
 *   /new/N/SIZE     a body of its own for each N
 *   /auth           204 for `Bearer TOKEN` (the second argument), else 401
 *   POST            a small document
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

const [folder = '.', token = ''] = process.argv.slice(2);

interface Answer {
  readonly bytes: Buffer;
  readonly etag: string;
}

const answers = new Map<string, Answer>();
const HEAD = {
  'content-type': 'image/webp',
  'cache-control': 'public, max-age=86400',
  'accept-ranges': 'bytes',
  'content-security-policy': "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'cross-origin',
  'referrer-policy': 'no-referrer',
  'access-control-allow-origin': '*',
  'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT',
};

function answer(request: IncomingMessage, response: ServerResponse): void {
  const [, name = '', number, size] = (request.url ?? '').split('/');
  if (request.method === 'POST') {
    request.resume().once('end', () => {
      const text = '{"url":"http://127.0.0.1/somewhere"}';
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length }).end(text);
    });
  } else if (name === 'auth') {
    response.writeHead(request.headers.authorization === `Bearer ${token}` ? 204 : 401).end();
  } else if (number !== undefined) {
    const bytes = Buffer.alloc(Number(size), `${number} `);
    response.writeHead(200, { ...HEAD, etag: `"${number}"`, 'content-length': bytes.length });
    response.end(request.method === 'HEAD' ? undefined : bytes);
  } else {
    answerFile(request, response, answers.get(name) ?? read(name));
  }
}

function answerFile(request: IncomingMessage, response: ServerResponse, { bytes, etag }: Answer): void {
  const head = { ...HEAD, etag };
  if (request.headers['if-none-match'] === etag) {
    response.writeHead(304, head).end();
    return;
  }
  response.writeHead(200, { ...head, 'content-length': bytes.length });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

function read(name: string): Answer {
  const bytes = readFileSync(join(folder, name));
  const made = { bytes, etag: `"sha256:${createHash('sha256').update(bytes).digest('hex')}"` };
  answers.set(name, made);
  return made;
}

const server = createServer(answer);
server.keepAliveTimeout = 600_000;
server.maxRequestsPerSocket = 0;
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
process.once('disconnect', () => process.exit());
