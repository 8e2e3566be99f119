/**
 * The page for people: a small chat in development, made with the client library.
 * Serves its files, gives tokens of the development Authentication Service to it,
 * and keeps what was said in memory. The edge passes its paths here
 * (edge/page.ts). Listens on loopback only and answers nothing to other sites.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import type { Clock } from '../clock.js';
import type { Running } from '../process.js';
import { readPageFile } from '../server/live/pages.js';
import { ChatRoom } from './chat-room.js';
import { referencePage } from './reference.js';

export interface PageOptions {
  /** The edge, once it listens. */
  edge(): string;
  issueToken(subject: string, admin: boolean): Promise<string>;
  readonly clock: Pick<Clock, 'now'>;
}

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly body: string | Buffer;
  /** A Content-Security-Policy of its own. */
  readonly policy?: string;
}

const BODY_MAX_BYTES = 64 * 1024;
const HTML = 'text/html; charset=utf-8';
const JSON_TYPE = 'application/json';
const SCRIPT = 'text/javascript; charset=utf-8';
const SCRIPT_PATH = /^\/page\/((?:client|dev\/chat|live)\/[a-z-]+\.js)$/;

export async function openPage(options: PageOptions): Promise<Running> {
  const room = new ChatRoom(options.clock);
  const server = createServer((request, response) => {
    void answer(request, room, options)
      .catch((): Reply => ({ status: 500, type: 'text/plain', body: 'The page failed.' }))
      .then((reply) => send(response, reply, options.edge()));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return { urls: { page: `http://127.0.0.1:${port}` }, close: () => closeServer(server) };
}

async function answer(request: IncomingMessage, room: ChatRoom, options: PageOptions): Promise<Reply> {
  if (!isFromHere(request)) return refusal(403, 'This page is for this machine.');
  const { pathname: path, searchParams } = new URL(request.url ?? '/', 'http://page');
  if (request.method === 'POST') return await post(path, request, room, options);
  if (request.method !== 'GET' && request.method !== 'HEAD') return refusal(405, 'GET or POST');
  if (path === '/docs') return await reference(options.edge());
  if (path === '/page/messages') return json(room.since(Number(searchParams.get('after') ?? 0)));
  const tus = path === '/page/tus.js' ? tusPath() : undefined;
  if (tus !== undefined) return { status: 200, type: SCRIPT, body: await readFile(tus) };
  const name = fileOf(path);
  const file = name === undefined ? undefined : await readPageFile(name);
  return file === undefined
    ? refusal(404, 'There is nothing here.')
    : { status: 200, type: file.type, body: file.bytes };
}

/** How long the service may take to describe itself. */
const DESCRIBED_WITHIN_MS = 10_000;

async function reference(edge: string): Promise<Reply> {
  const answer = await fetch(`${edge}/openapi.json`, { signal: AbortSignal.timeout(DESCRIBED_WITHIN_MS) });
  const { html, policy } = referencePage(await answer.json());
  return { status: 200, type: HTML, body: html, policy };
}

async function post(path: string, request: IncomingMessage, room: ChatRoom, options: PageOptions): Promise<Reply> {
  const body = await readJson(request);
  if (body === undefined) return refusal(400, 'A JSON object is needed.');
  if (path === '/page/token') {
    const { subject, admin } = body;
    if (typeof subject !== 'string' || !/^[a-z]{1,32}$/.test(subject)) return refusal(400, 'subject: a short name');
    return json({ token: await options.issueToken(subject, admin === true) });
  }
  if (path === '/page/messages') {
    const message = room.add(body);
    return message === undefined ? refusal(400, 'Not a message.') : json(message);
  }
  return refusal(404, 'There is nothing here.');
}

/**
 * Whoever can send requests here gets tokens. So pages of other sites cannot: not by a name of theirs that leads
 * here, which is in Host, and not by a request of another origin.
 */
function isFromHere({ headers }: IncomingMessage): boolean {
  const { host = '', origin } = headers;
  const name = URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : '';
  if (!['127.0.0.1', 'localhost', '[::1]'].includes(name)) return false;
  return origin === undefined || origin === `http://${host}` || origin === `https://${host}`;
}

async function readJson(request: IncomingMessage): Promise<Readonly<Record<string, unknown>> | undefined> {
  if (request.headers['content-type'] !== JSON_TYPE) return undefined;
  let text = '';
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > BODY_MAX_BYTES) return undefined;
  }
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Where it is in the project. */
function fileOf(path: string): string | undefined {
  if (path === '/') return 'src/dev/chat/index.html';
  if (path === '/page/chat.css') return 'src/dev/chat/chat.css';
  const name = SCRIPT_PATH.exec(path)?.[1];
  return name === undefined ? undefined : `src/${name}`;
}

/** Undefined where tus-js-client is not installed: large files are then sent whole. */
function tusPath(): string | undefined {
  try {
    return createRequire(import.meta.url).resolve('tus-js-client/dist/tus.min.js');
  } catch {
    return undefined;
  }
}

function json(value: unknown): Reply {
  return { status: 200, type: JSON_TYPE, body: JSON.stringify(value) };
}

function refusal(status: number, detail: string): Reply {
  return { status, type: JSON_TYPE, body: JSON.stringify({ detail }) };
}

function send(response: ServerResponse, { status, type, body, policy }: Reply, edge: string): void {
  // The addresses that the service signs name 127.0.0.1, also where the page was opened as localhost.
  const media = `${edge} ${edge.replace('127.0.0.1', 'localhost')}`;
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'content-security-policy':
      policy ??
      [
        `default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ${media}`,
        `img-src 'self' blob: data: ${media}; media-src 'self' blob: ${media}`,
        `base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
      ].join('; '),
  });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
