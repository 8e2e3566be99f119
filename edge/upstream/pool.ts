/**
 * Pooled connections to the origin, on undici: one request at a time on each,
 * and a limit on every wait.
 *
 * Promises an outcome for each request, never a rejection. A body that is
 * shorter than announced, or that breaks, is an error on its stream.
 */
import { type Dispatcher, Pool } from 'undici';
import { onAbort } from '../../src/abort.js';
import { Budget } from '../../src/budget.js';
import type { Clock, Timer } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import { dropsContent, fieldsToForward, hasUnknownCoding } from '../../src/http/fields.js';
import { contentLength, rawFields } from '../../src/http/head.js';
import type { HeaderList } from '../../src/http/reply.js';
import { ArrivingBody, GIVEN_UP } from './arriving-body.js';
import type { UpstreamConfig } from './config.js';
import type { UpstreamFailure, UpstreamOutcome, UpstreamRequest } from './request.js';
import { type Claim, ConnectionSlots, type SlotLimits } from './slots.js';
import { type OriginTls, tlsTroubleOf } from './tls.js';

export interface OriginPool {
  /**
   * `signal` ends the request, its body included. `watch` is called when the request begins, and what it returns once
   * the wait for the head is over; until then it may give the request up.
   */
  send(request: UpstreamRequest, signal: AbortSignal, watch?: Watch): Promise<UpstreamOutcome>;
  /** Requests that have begun and not ended, those that wait for a connection included. */
  readonly inFlight: number;
  close(): Promise<void>;
}

export type Watch = (giveUp: () => void) => () => void;

export interface PoolLimits extends SlotLimits {
  /** Longest time between two pieces of a body; 0: no limit. */
  readonly idleMs: number;
  /** How much is received ahead of slow clients. */
  readonly ahead: { readonly budget: Budget; readonly bodyMaxBytes: number };
  /** A response was ended because its client was slow. Without it, none is. */
  readonly onDropped?: () => void;
  /** Something has arrived from the origin. */
  readonly onHeard?: () => void;
  /** Bytes of a body have arrived. */
  readonly onReceived?: (bytes: number) => void;
}

/** The limits that the configuration sets, with a budget of their own for what is received ahead. */
export function poolLimits({ connectionsMax, slowMax, idleMs, ahead }: UpstreamConfig): PoolLimits {
  const budget = new Budget(ahead.totalBytes);
  return { connectionsMax, slowMax, idleMs, ahead: { budget, bodyMaxBytes: ahead.bodyMaxBytes } };
}

/** `way.socketPath`: connects there, whatever host the URL names. */
export function openPool(
  config: UpstreamConfig,
  way: OriginTls & { readonly socketPath?: string },
  limits: PoolLimits,
  clock: Clock,
): OriginPool {
  const pool = new Pool(config.url, {
    connections: limits.connectionsMax + limits.slowMax,
    bodyTimeout: limits.idleMs,
    pipelining: 1,
    headersTimeout: config.headWithinMs,
    keepAliveTimeout: config.keepAliveMs,
    keepAliveMaxTimeout: config.keepAliveMs,
    maxHeaderSize: config.headMaxBytes,
    strictContentLength: true,
    connect: { timeout: config.connectWithinMs, ...way },
  });
  const host = new URL(config.url).host;
  // Requests beyond the limit wait in the slots and not in undici, whose queue nobody can leave.
  const slots = new ConnectionSlots(limits, clock, limits.onDropped);
  const { ahead, onHeard = () => undefined, onReceived = () => undefined } = limits;
  const deps: DispatchDeps = { pool, slots, host, clock, waitMs: config.headWithinMs, ahead, onHeard, onReceived };
  let inFlight = 0;
  return {
    send(request, signal, watch) {
      inFlight += 1;
      return dispatch(deps, request, signal, watch, () => {
        inFlight -= 1;
      });
    },
    get inFlight() {
      return inFlight - slots.uncounted;
    },
    close: () => pool.destroy(),
  };
}

interface DispatchDeps {
  readonly pool: Pool;
  readonly slots: ConnectionSlots;
  readonly host: string;
  readonly clock: Clock;
  /** Longest wait for a connection. */
  readonly waitMs: number;
  readonly ahead: PoolLimits['ahead'];
  readonly onHeard: () => void;
  readonly onReceived: (bytes: number) => void;
}

/** Calls `onEnd` once, when the origin has sent the last byte or will send no more. */
function dispatch(
  { pool, slots, host, clock, waitMs, ahead, onHeard, onReceived }: DispatchDeps,
  request: UpstreamRequest,
  signal: AbortSignal,
  watch: Watch | undefined,
  onEnd: () => void,
): Promise<UpstreamOutcome> {
  return new Promise((resolve) => {
    const requestedAt = clock.now();
    let noteReceived = (): void => undefined;
    const received = new Promise<void>((note) => {
      noteReceived = note;
    });
    let controller: Dispatcher.DispatchController | undefined;
    let body: ArrivingBody | undefined;
    let dropped = false;
    let givenUp = false;
    let dispatched = false;
    let stopListening = (): void => undefined;
    let stopWatching = (): void => undefined;
    /** Resolves at once. A request without a slot ends now, one that undici has when undici begins to send it. */
    const giveUp = (failure: UpstreamFailure): void => {
      givenUp = true;
      stopWatching();
      // Before the abort, which ends the request with a reason of its own.
      resolve({ kind: 'failed', failure });
      controller?.abort(GIVEN_UP);
      body?.destroy(GIVEN_UP);
      if (!dispatched) end();
    };
    let waiting: Timer | undefined;
    const claim: Claim = {
      start() {
        dispatched = true;
        pool.dispatch({ method: request.method, path: request.target, headers, body: request.body ?? null }, handler);
      },
      client: () => request.client?.() ?? '',
      waitingBytes: () => body?.readableLength ?? 0,
      drop: () => body?.destroy(new Error('the client reads too slowly, and others wait for the connection')),
    };
    const end = (): void => {
      waiting?.cancel();
      stopWatching();
      // What has arrived may still wait for its client, and must not outlive a takedown.
      if (body === undefined || body.closed) stopListening();
      else body.once('close', stopListening);
      slots.leave(claim);
      onEnd();
      noteReceived();
    };
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart(given) {
        controller = given;
        waiting?.cancel();
        if (givenUp) given.abort(GIVEN_UP);
      },
      onResponseStart(given, status) {
        onHeard();
        const fields = rawFields(Array.isArray(given.rawHeaders) ? given.rawHeaders : []);
        const headers = fieldsToForward(status, fields);
        // RFC 9110 15.2: an interim response is not the final one.
        if (status < 200) {
          request.onInterim?.(status, headers);
          return;
        }
        if (hasUnknownCoding(fields)) {
          giveUp('garbage');
          return;
        }
        stopWatching();
        dropped = dropsContent(status);
        const arriving = new ArrivingBody({
          budget: ahead.budget,
          aheadMaxBytes: ahead.bodyMaxBytes,
          resume() {
            slots.moved(claim);
            given.resume();
          },
          abort: (error) => given.abort(error),
        });
        body = arriving;
        const takeWhole = (): Buffer | undefined => arriving.takeWhole();
        const sizeBytes = announcedSize(request.method, status, headers);
        const receivedAt = clock.now();
        resolve({ kind: 'answered', status, headers, body, takeWhole, sizeBytes, received, requestedAt, receivedAt });
      },
      onResponseData(given, chunk) {
        onHeard();
        onReceived(chunk.length);
        if (dropped || body === undefined || body.receive(chunk)) return;
        given.pause();
        slots.stalled(claim);
      },
      onResponseEnd() {
        if (body === undefined || body.complete() || body.closed) {
          end();
          return;
        }
        // The connection is free, but the memory is not: it counts as one that waits for its client.
        body.once('close', end);
        slots.stalled(claim);
      },
      onResponseError(_given, error) {
        body?.destroy(error);
        end();
        resolve({ kind: 'failed', failure: failureOf(error), cause: error });
      },
    };
    const headers = ['host', host, ...request.headers.flat()];
    slots.enter(claim);
    // Mostly there is a free connection, and the request is under way by now: undici measures the rest.
    if (controller === undefined) waiting = clock.after(waitMs, () => giveUp('head_timeout'));
    stopListening = onAbort(signal, () => giveUp('left'));
    if (watch !== undefined && !givenUp) stopWatching = watch(() => giveUp('silent'));
  });
}

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
