/**
 * Opens a listening socket with bounds on everything a client may make it wait
 * for, guarded against requests that nobody honest sends, and closes it in
 * order: no new connections, idle ones ended, those in use finished within a
 * deadline, the rest broken off.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock } from '../clock.js';
import { duration, integer, section, size, type ValueOf } from '../config/field.js';
import type { Log } from '../log.js';
import { type GuardReason, guardServer } from './guard.js';

/** The keys of a listener; host and port are the owner's, for their defaults differ. */
export const limitsSection = section('Bounds on what one client may hold or make the server wait for.', {
  connectionsMax: integer({ default: 10_000, min: 1, max: 1_000_000, help: 'Connections at once.' }),
  headersMaxBytes: size({
    default: '16KiB',
    min: 1_024,
    max: 262_144,
    help: 'Request line and header fields together.',
  }),
  headersMaxCount: integer({ default: 100, min: 10, max: 2_000, help: 'Header fields in a request.' }),
  targetMaxBytes: size({ default: '8KiB', min: 256, max: 262_144, help: 'The target of a request, query included.' }),
  connectionsPerClientMax: integer({
    default: 2_000,
    min: 0,
    max: 1_000_000,
    help: 'Connections of one IPv4 address or IPv6 /64 network at once; 0: any number, as behind a balancer.',
  }),
  stalledMs: duration({
    default: '2m',
    min: 100,
    help: 'Time for which a connection in use may move nothing, either way, before it is broken off.',
  }),
  headersWithinMs: duration({ default: '10s', min: 100, help: 'Time for a request head to arrive.' }),
  requestWithinMs: duration({ default: '1h', min: 1_000, help: 'Time for a whole request, body included, to arrive.' }),
  idleMs: duration({ default: '65s', min: 100, help: 'Time a kept-alive connection may wait for its next request.' }),
  closeWithinMs: duration({ default: '10s', min: 0, help: 'Time that requests in hand get at shutdown.' }),
});

export type ListenLimits = ValueOf<typeof limitsSection>;

export interface ListenOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly limits: ListenLimits;
  readonly clock: Clock;
  readonly log: Log;
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  /** A request that expects 100-continue; without it the request is handled like any other, and 100 sent first. */
  onExpectation?(request: IncomingMessage, response: ServerResponse): void;
  /** Hears why requests were refused before they came here. */
  onRefused?(reason: GuardReason): void;
}

export interface Listener {
  readonly host: string;
  readonly port: number;
  readonly url: string;
  /** May be called twice. */
  close(): Promise<void>;
}

export async function listen(options: ListenOptions): Promise<Listener> {
  const { limits } = options;
  const server = createServer({
    maxHeaderSize: limits.headersMaxBytes,
    headersTimeout: Math.min(limits.headersWithinMs, limits.requestWithinMs),
    requestTimeout: limits.requestWithinMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(1_000, limits.headersWithinMs / 2),
    noDelay: true,
    keepAlive: true,
    // Answered by the guard, with a problem of our own.
    requireHostHeader: false,
  });
  server.maxConnections = limits.connectionsMax;
  // One more than is let in: what goes beyond is cut off without a word.
  server.maxHeadersCount = limits.headersMaxCount + 1;
  server.timeout = limits.stalledMs;
  const guard = guardServer(server, {
    limits,
    clock: options.clock,
    onRefused(reason) {
      options.log.debug({ reason }, 'a request was refused at the door');
      options.onRefused?.(reason);
    },
  });
  const inHand = new Set<ServerResponse>();
  server.on('request', (request, response) => {
    track(response);
    if (guard.admit(request, response)) options.onRequest(request, response);
  });
  if (options.onExpectation !== undefined) {
    server.on('checkContinue', (request, response) => {
      track(response);
      if (guard.admit(request, response)) options.onExpectation?.(request, response);
    });
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  server.on('error', (error) => options.log.error({ error: error.message }, 'listener failed'));
  const address = server.address() as AddressInfo;
  const shownHost = address.address.includes(':') ? `[${address.address}]` : address.address;
  let closing: Promise<void> | undefined;

  function track(response: ServerResponse): void {
    // What still arrives on a connection in use is answered, and the connection then ends.
    if (closing !== undefined) response.shouldKeepAlive = false;
    inHand.add(response);
    response.once('close', () => {
      inHand.delete(response);
      // Its head may have promised to keep the connection before the end was known.
      if (closing !== undefined) setImmediate(() => server.closeIdleConnections());
    });
  }

  return {
    host: address.address,
    port: address.port,
    url: `http://${shownHost}:${address.port}`,
    close() {
      closing ??= new Promise((resolve) => {
        const deadline = options.clock.after(limits.closeWithinMs, () => server.closeAllConnections());
        server.close(() => {
          deadline.cancel();
          resolve();
        });
        server.closeIdleConnections();
        for (const response of inHand) response.shouldKeepAlive = false;
      });
      return closing;
    },
  };
}
