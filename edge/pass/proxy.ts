/**
 * http-proxy-3 behind guards against what it does by itself:
 *
 * - It sends a chunked DELETE or OPTIONS without framing, so that the origin
 *   reads the body as another request. Here it never sees these methods, and
 *   the edge sets the framing.
 * - It forwards fields that belong to one connection (RFC 9110 7.6.1). Here it
 *   sees the edge's fields instead of the client's, and writes no response.
 * - It leaves the client waiting if the origin dies or stalls during its
 *   response. Here the caller gets the response and watches it.
 * - It rewrites targets as URLs. Here the target that was received is restored.
 *
 * Each origin has a proxy of its own.
 */
import { type ClientRequest, type IncomingMessage, Agent as PlainAgent, type ServerResponse } from 'node:http';
import { Agent as TlsAgent } from 'node:https';
import type { PassThrough } from 'node:stream';
import { createProxyServer } from 'http-proxy-3';
import { invariant } from '../../src/errors.js';
import type { OriginTls } from '../upstream/tls.js';

export interface ProxyRequest {
  readonly method: string;
  /** Sent byte for byte. */
  readonly target: string;
  /** All fields, those for framing included. */
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes written to it are sent. Must stay empty until `onOpen`. */
  readonly body: PassThrough;
  /** Called when the request to the origin exists and nothing of it is sent yet. */
  onOpen(sending: ClientRequest): void;
}

export interface PassProxy {
  /**
   * Resolves with the head of the origin's response, whose body must be read or
   * destroyed. Rejects if there is none. The caller must watch for a client
   * that leaves.
   */
  send(request: IncomingMessage, response: ServerResponse, proxied: ProxyRequest): Promise<IncomingMessage>;
  close(): void;
}

export interface PassProxyOptions {
  readonly originUrl: string;
  readonly originTls: OriginTls;
  /** How long an unused connection stays open; 0: each connection closes after one request. */
  readonly keepAliveMs: number;
  /** Most unused connections. */
  readonly unusedMax: number;
}

interface Waiter {
  readonly proxied: ProxyRequest;
  onResponse(response: IncomingMessage): void;
}

export function createPassProxy(options: PassProxyOptions): PassProxy {
  invariant(
    process.env['FORCE_FETCH_PATH'] !== 'true',
    'FORCE_FETCH_PATH must not be set: it bypasses the guards of this file',
  );
  const agent = createAgent(options);
  const proxy = createProxyServer({ target: options.originUrl, agent, selfHandleResponse: true, toProxy: true });
  const waiters = new WeakMap<IncomingMessage, Waiter>();

  proxy.on('proxyReq', (sending, request) => {
    const proxied = waiters.get(request)?.proxied;
    if (proxied === undefined) return;
    sending.path = proxied.target;
    proxied.onOpen(sending);
  });
  proxy.on('proxyRes', (response, request) => {
    const waiter = waiters.get(request);
    if (waiter === undefined) response.destroy();
    else waiter.onResponse(response);
  });
  // The callback of each call receives both errors. Without these listeners they would also be thrown.
  proxy.on('error', () => {});
  proxy.on('econnreset', () => {});

  return {
    send: (request, response, proxied) =>
      new Promise((resolve, reject) => {
        waiters.set(request, { proxied, onResponse: resolve });
        showInstead(request, proxied, () => {
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

/** Shows the library the edge's fields instead of the client's. It reads them only during this call. */
function showInstead(request: IncomingMessage, proxied: ProxyRequest, call: () => void): void {
  const { headers, method } = request;
  request.headers = { ...proxied.headers };
  // A method that the library does not treat specially. The real method is given separately.
  request.method = 'POST';
  try {
    call();
  } finally {
    request.headers = headers;
    request.method = method;
  }
}
