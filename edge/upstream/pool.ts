/**
 * Pooled connections to the origin, on undici: one request at a time on each,
 * and a limit on every wait.
 *
 * Promises an outcome for each request, never a rejection. A body that is
 * shorter than announced, or that breaks, is an error on its stream.
 */
import { Readable } from 'node:stream';
import { type Dispatcher, Pool } from 'undici';
import { onAbort } from '../../src/abort.js';
import type { Clock } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import { dropsContent, fieldsToForward, hasUnknownCoding } from '../../src/http/fields.js';
import { contentLength, rawFields } from '../../src/http/head.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { UpstreamConfig } from './config.js';
import type { UpstreamFailure, UpstreamOutcome, UpstreamRequest } from './request.js';
import { type OriginTls, tlsTroubleOf } from './tls.js';

export interface OriginPool {
  /** `signal` ends the request, its body included. */
  send(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome>;
  /** Requests that have begun and not ended, those that wait for a connection included. */
  readonly inFlight: number;
  close(): Promise<void>;
}

export interface PoolLimits {
  readonly connectionsMax: number;
  /** Longest time between two pieces of a body; 0: no limit. */
  readonly idleMs: number;
}

export function openPool(config: UpstreamConfig, tls: OriginTls, limits: PoolLimits, clock: Clock): OriginPool {
  const pool = new Pool(config.url, {
    connections: limits.connectionsMax,
    bodyTimeout: limits.idleMs,
    pipelining: 1,
    headersTimeout: config.headWithinMs,
    keepAliveTimeout: config.keepAliveMs,
    keepAliveMaxTimeout: config.keepAliveMs,
    maxHeaderSize: config.headMaxBytes,
    strictContentLength: true,
    connect: { timeout: config.connectWithinMs, ...tls },
  });
  const host = new URL(config.url).host;
  const slots = createSlots(limits.connectionsMax);
  let inFlight = 0;
  return {
    send(request, signal) {
      inFlight += 1;
      return dispatch({ pool, slots, host, clock, waitMs: config.headWithinMs }, request, signal, () => {
        inFlight -= 1;
      });
    },
    get inFlight() {
      return inFlight;
    },
    close: () => pool.destroy(),
  };
}

interface DispatchDeps {
  readonly pool: Pool;
  readonly slots: Slots;
  readonly host: string;
  readonly clock: Clock;
  /** Longest wait for a connection. */
  readonly waitMs: number;
}

/** Calls `onEnd` once, when the request has ended and its body too. */
function dispatch(
  { pool, slots, host, clock, waitMs }: DispatchDeps,
  request: UpstreamRequest,
  signal: AbortSignal,
  onEnd: () => void,
): Promise<UpstreamOutcome> {
  return new Promise((resolve) => {
    const requestedAt = clock.now();
    let controller: Dispatcher.DispatchController | undefined;
    let body: Readable | undefined;
    let dropped = false;
    let givenUp = false;
    let dispatched = false;
    let stopListening = (): void => undefined;
    /** Resolves at once. A request without a slot ends now, one that undici has when undici begins to send it. */
    const giveUp = (failure: UpstreamFailure): void => {
      givenUp = true;
      // Before the abort, which ends the request with a reason of its own.
      resolve({ kind: 'failed', failure });
      controller?.abort(GIVEN_UP);
      body?.destroy(GIVEN_UP);
      if (!dispatched) end();
    };
    const waiting = clock.after(waitMs, () => giveUp('head_timeout'));
    const end = (): void => {
      waiting.cancel();
      stopListening();
      slots.leave(start);
      onEnd();
    };
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart(given) {
        controller = given;
        waiting.cancel();
        if (givenUp) given.abort(GIVEN_UP);
      },
      onResponseStart(given, status) {
        const received = rawFields(Array.isArray(given.rawHeaders) ? given.rawHeaders : []);
        const headers = fieldsToForward(status, received);
        // RFC 9110 15.2: an interim response is not the final one.
        if (status < 200) {
          request.onInterim?.(status, headers);
          return;
        }
        if (hasUnknownCoding(received)) {
          giveUp('garbage');
          return;
        }
        dropped = dropsContent(status);
        body = bodyOf(given);
        const sizeBytes = announcedSize(request.method, status, headers);
        resolve({ kind: 'answered', status, headers, body, sizeBytes, requestedAt, receivedAt: clock.now() });
      },
      onResponseData(given, chunk) {
        if (!dropped && body?.push(chunk) === false) given.pause();
      },
      onResponseEnd() {
        body?.push(null);
        end();
      },
      onResponseError(_given, error) {
        body?.destroy(error);
        end();
        resolve({ kind: 'failed', failure: failureOf(error), cause: error });
      },
    };
    const headers = ['host', host, ...request.headers.flat()];
    const start = (): void => {
      dispatched = true;
      pool.dispatch({ method: request.method, path: request.target, headers, body: request.body ?? null }, handler);
    };
    slots.enter(start);
    stopListening = onAbort(signal, () => giveUp('left'));
  });
}

interface Slots {
  /** Calls `start` when there is a slot. */
  enter(start: () => void): void;
  /** Gives up the slot, or the wait for it. Must be called once. */
  leave(start: () => void): void;
}

/** Requests beyond `max` wait here and not in undici, whose queue nobody can leave. */
function createSlots(max: number): Slots {
  const waiting = new Set<() => void>();
  let taken = 0;
  return {
    enter(start) {
      if (taken >= max) {
        waiting.add(start);
        return;
      }
      taken += 1;
      start();
    },
    leave(start) {
      if (waiting.delete(start)) return;
      const [next] = waiting;
      if (next === undefined) {
        taken -= 1;
        return;
      }
      waiting.delete(next);
      next();
    },
  };
}

const GIVEN_UP = new Error('nobody waits for this request any more');

function bodyOf(controller: Dispatcher.DispatchController): Readable {
  const body = new Readable({
    highWaterMark: BUFFERED_MAX_BYTES,
    read: () => controller.resume(),
    destroy(error, done) {
      // Does nothing once the response is complete.
      controller.abort(error ?? GIVEN_UP);
      done(error);
    },
  });
  // Readers receive the error too. Without a listener, the error of a body that nobody reads would be thrown.
  return body.on('error', () => undefined);
}

/** Bytes of a body that may wait for its reader. */
const BUFFERED_MAX_BYTES = 65_536;

function failureOf(error: Error): UpstreamFailure {
  if (error === GIVEN_UP) return 'left';
  const code = errorCode(error);
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return 'connect_timeout';
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return 'head_timeout';
  if (code === 'UND_ERR_HEADERS_OVERFLOW' || error.name === 'HTTPParserError') return 'garbage';
  if (code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE') return 'reset';
  return tlsTroubleOf(error) === undefined ? 'connect' : 'tls';
}

function announcedSize(method: string, status: number, headers: HeaderList): number | null {
  if (status === 204 || status === 304 || dropsContent(status)) return method === 'HEAD' ? null : 0;
  return contentLength(headers);
}
