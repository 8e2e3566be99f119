/**
 * One request and its answer: an OriginRequest made of what node:http received,
 * what every answer carries added, the line in the log. Nobody beyond this file
 * and the journal stream sees the server's own objects.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../src/clock.js';
import { FAULTS, Fault } from '../../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS } from '../../src/http/browser.js';
import { header, originForm, requestId, splitTarget } from '../../src/http/head.js';
import { type HeaderList, headerOf, type Reply } from '../../src/http/reply.js';
import { bugFields, errorFields, type Log, type LogConfig, type LogFields, loggable } from '../../src/log.js';
import type { DrainLimits } from '../../src/server/drain.js';
import { send } from '../../src/server/send.js';
import { EDGE_PROOF, MEDIA_CALLER, REQUEST_ID } from '../../src/wire.js';
import { drainedReply } from './drain.js';
import type { Limits } from './rate-limits.js';
import type { OriginRequest, Sender } from './request.js';

export interface ExchangeDeps {
  addressOf(request: IncomingMessage): string;
  readonly limits: Limits;
  /** Whether the value of `edge-authorization` proves an edge. */
  isEdge(proof: string | undefined): boolean;
  readonly drain: DrainLimits;
  /** Which requests get a line in the log. */
  readonly requests: () => LogConfig['requests'];
  readonly clock: Clock;
  readonly log: Log;
}

export interface Exchange {
  readonly request: OriginRequest;
  readonly signal: AbortSignal;
  /** Rejects where the client has left, or the body failed on its way. */
  answer(reply: Reply): Promise<void>;
  elapsedMs(): number;
  /** Writes the line of the request. */
  log(status: number, fault: Fault | undefined): void;
  close(): void;
}

/** `expects`: the client sends its body once it is told to (RFC 9110 10.1.1). */
export function openExchange(
  deps: ExchangeDeps,
  raw: IncomingMessage,
  response: ServerResponse,
  expects: boolean,
  closing: AbortSignal,
): Exchange {
  const { clock } = deps;
  const startedMs = clock.monotonicMs();
  const sentBefore = raw.socket.bytesWritten;
  const leaving = new AbortController();
  const onClosing = (): void => leaving.abort(closing.reason);
  if (closing.aborted) onClosing();
  closing.addEventListener('abort', onClosing, { once: true });
  response.once('close', () => {
    // Every response is closed in the end; only one that was not sent whole has lost its client.
    if (response.writableFinished) return;
    leaving.abort(new Fault('malformed', 'The client left before it was answered.'));
  });
  // Its errors are told by the streams that read it; without a listener they would end the process.
  raw.on('error', () => undefined);

  const notes: Record<string, unknown> = {};
  const body = bodyOf(raw, response, expects);
  const request = readRequest(deps, raw, body, notes, leaving.signal);
  return {
    request,
    signal: leaving.signal,
    elapsedMs: () => clock.monotonicMs() - startedMs,
    async answer(reply) {
      // A response that was closed before tells nobody when it ends.
      leaving.signal.throwIfAborted();
      if (reply.body.kind === 'stream' && request.method !== 'HEAD') {
        request.meter.downloaded(reply.body.sizeBytes ?? 0);
      }
      const dressed = dress(reply, request);
      const pending = body.invited ? drainedReply(dressed, raw, deps.drain, clock) : closeAfter(dressed, raw);
      await send(pending, raw, response, leaving.signal);
    },
    log(status, fault) {
      const ms = Math.round((clock.monotonicMs() - startedMs) * 10) / 10;
      const bytes = raw.socket.bytesWritten - sentBefore;
      logRequest(deps, request, { target: loggable(raw.url ?? ''), status, bytes, ms, ...notes }, fault);
    },
    close() {
      closing.removeEventListener('abort', onClosing);
    },
  };
}

interface OpenBody {
  readonly sizeBytes: number | null;
  /** False while the client still waits to be told to send. */
  readonly invited: boolean;
  open(): IncomingMessage;
}

function bodyOf(raw: IncomingMessage, response: ServerResponse, expects: boolean): OpenBody {
  let invited = !expects;
  return {
    sizeBytes: bodySize(raw),
    get invited() {
      return invited;
    },
    open() {
      if (!invited) response.writeContinue();
      invited = true;
      return raw;
    },
  };
}

function readRequest(
  deps: ExchangeDeps,
  raw: IncomingMessage,
  body: OpenBody,
  notes: Record<string, unknown>,
  signal: AbortSignal,
): OriginRequest {
  const { path, query } = splitTarget(originForm(raw.url ?? '/').target);
  const sender = senderOf(raw, deps);
  const address = deps.addressOf(raw);
  return {
    id: requestId(header(raw.headers, REQUEST_ID)) ?? randomUUID(),
    method: raw.method ?? 'GET',
    path,
    query,
    sender,
    address,
    receivedAt: deps.clock.now(),
    signal,
    header: (name) => header(raw.headers, name),
    body,
    meter: sender === 'client' ? deps.limits.meter(address) : deps.limits.unlimited,
    note: (fields) => void Object.assign(notes, fields),
  };
}

/** What every answer carries. */
function dress(reply: Reply, request: OriginRequest): Reply {
  const own = headerOf(reply.headers, 'access-control-allow-origin') !== undefined;
  return {
    ...reply,
    headers: [
      ...reply.headers,
      [REQUEST_ID, request.id],
      ...request.meter.headers(),
      ...(own ? [] : CORS_HEADERS),
      ...GUARD_HEADERS,
    ],
  };
}

function logRequest(
  { log, requests: logged }: ExchangeDeps,
  request: OriginRequest,
  answer: LogFields & { readonly status: number },
  fault: Fault | undefined,
): void {
  const fields = {
    request: request.id,
    method: request.method,
    sender: request.sender,
    address: request.address,
    ...(fault !== undefined && { code: fault.code }),
    ...answer,
  };
  if (fault !== undefined && FAULTS[fault.code].side !== 'client') {
    // What was foreseen is told in a line; what has no place in the table may be a bug, and is told with its stack.
    if (fault.code === 'internal') log.error({ ...fields, ...bugFields(fault.cause ?? fault) }, 'a request failed');
    else log.warn({ ...fields, ...errorFields(fault.cause ?? fault) }, 'a request failed');
    return;
  }
  const requests = logged();
  if (requests === 'all' || (requests === 'failed' && answer.status >= 500)) log.info(fields, 'request');
}

function senderOf(raw: IncomingMessage, { isEdge }: Pick<ExchangeDeps, 'isEdge'>): Sender {
  if (!isEdge(header(raw.headers, EDGE_PROOF))) return 'client';
  return header(raw.headers, MEDIA_CALLER) === 'anonymous' ? 'edge_for_anonymous' : 'edge';
}

function bodySize(raw: IncomingMessage): number | null {
  if (raw.headers['transfer-encoding'] !== undefined) return null;
  const length = raw.headers['content-length'];
  return length === undefined ? 0 : Number(length);
}

/** RFC 9110 10.1.1: nobody knows whether the body still comes, so nothing can follow on this connection. */
function closeAfter(reply: Reply, raw: IncomingMessage): Reply {
  return raw.complete ? reply : { ...reply, headers: [...reply.headers, ['connection', 'close']] satisfies HeaderList };
}
