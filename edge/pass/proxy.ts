/**
 * http-proxy-3 behind three guards, so that the rest of the edge need not know
 * what it does when left alone:
 *
 * - it takes a chunked DELETE or OPTIONS for one without a body and sends the
 *   body behind it, where the origin reads it as a request: it is never shown
 *   these methods, and our framing stands;
 * - it forwards fields that belong to one connection: it is shown our fields in
 *   place of the client's, and writes no answer;
 * - it leaves the client waiting when the origin dies or stalls during its
 *   answer: the answer is handed to the caller, who watches it.
 *
 * It also rewrites targets as URLs; the target that was received is put back.
 */
import { type ClientRequest, type IncomingMessage, Agent as PlainAgent, type ServerResponse } from 'node:http';
import { Agent as TlsAgent } from 'node:https';
import type { PassThrough } from 'node:stream';
import { createProxyServer } from 'http-proxy-3';
import { invariant } from '../../src/errors.js';
import type { OriginTls } from '../upstream/tls.js';

export interface ProxyRequest {
  readonly method: string;
  /** As received, byte for byte. */
  readonly target: string;
  /** All fields, framing included. */
  readonly headers: Readonly<Record<string, string>>;
  /** What is written to it is sent. Nothing may be, before `onOpen`. */
  readonly body: PassThrough;
  /** The request is made and nothing of it sent yet. */
  onOpen(sending: ClientRequest): void;
}

export interface PassProxy {
  /**
   * Resolves with the head of the answer, whose body is to be read or destroyed; rejects where none comes. A client
   * that leaves is the caller's to notice.
   */
  send(request: IncomingMessage, response: ServerResponse, proxied: ProxyRequest): Promise<IncomingMessage>;
  close(): void;
}

export interface PassProxyOptions {
  readonly originUrl: string;
  readonly originTls: OriginTls;
  /** How long an unused connection is kept; 0: not at all. */
  readonly keepAliveMs: number;
  readonly unusedMax: number;
}

interface Waiter {
  readonly proxied: ProxyRequest;
  answered(answer: IncomingMessage): void;
}

export function createPassProxy(options: PassProxyOptions): PassProxy {
  invariant(process.env['FORCE_FETCH_PATH'] !== 'true', 'FORCE_FETCH_PATH is not set: it goes around our guards');
  const agent = createAgent(options);
  const proxy = createProxyServer({ target: options.originUrl, agent, selfHandleResponse: true, toProxy: true });
  const waiters = new WeakMap<IncomingMessage, Waiter>();

  proxy.on('proxyReq', (sending, request) => {
    const proxied = waiters.get(request)?.proxied;
    if (proxied === undefined) return;
    sending.path = proxied.target;
    proxied.onOpen(sending);
  });
  proxy.on('proxyRes', (answer, request) => {
    const waiter = waiters.get(request);
    if (waiter === undefined) answer.destroy();
    else waiter.answered(answer);
  });
  // Both come through the callback of each call; without a listener they would be thrown.
  proxy.on('error', () => {});
  proxy.on('econnreset', () => {});

  return {
    send: (request, response, proxied) =>
      new Promise((resolve, reject) => {
        waiters.set(request, { proxied, answered: resolve });
        shown(request, proxied, () => {
          proxy.web(request, response, { method: proxied.method, buffer: proxied.body }, (error) => reject(error));
        });
      }),
    close: () => agent.destroy(),
  };
}

function createAgent({ originUrl, originTls, keepAliveMs, unusedMax }: PassProxyOptions): PlainAgent {
  const kept = { keepAlive: keepAliveMs > 0, timeout: keepAliveMs, maxFreeSockets: unusedMax };
  if (!originUrl.startsWith('https:')) return new PlainAgent(kept);
  return new TlsAgent({ ...kept, ...originTls });
}

/** Shows the library another request than the one that came, for as long as it looks: within this call. */
function shown(request: IncomingMessage, proxied: ProxyRequest, look: () => void): void {
  const { headers, method } = request;
  request.headers = { ...proxied.headers };
  // Any method of which the library knows nothing special; the true one is given apart.
  request.method = 'POST';
  try {
    look();
  } finally {
    request.headers = headers;
    request.method = method;
  }
}
