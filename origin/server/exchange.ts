/**
 * One request and its response: makes an OriginRequest of what node:http
 * received, sends the reply with the fields that every response has, and writes
 * the request's line in the log. Only this folder and the routes for edges see
 * node's own objects.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { onAbort } from '../../src/abort.js';
import type { Caller } from '../../src/access/grant.js';
import type { Clock } from '../../src/clock.js';
import { FAULTS, Fault } from '../../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS } from '../../src/http/browser.js';
import { header, originForm, requestId, splitTarget } from '../../src/http/head.js';
import { type HeaderList, headerOf, type Reply } from '../../src/http/reply.js';
import { bugFields, errorFields, type Log, type LogFields, loggable } from '../../src/log.js';
import type { LoggedRequest, RequestLog } from '../../src/logs/request-line.js';
import type { DrainLimits } from '../../src/server/drain.js';
import { send } from '../../src/server/send.js';
import type { Trace } from '../../src/tracing/context.js';
import { EDGE_PROOF, MEDIA_CALLER, MEDIA_POSITION, REQUEST_ID } from '../../src/wire.js';
import { drainedReply } from './drain.js';
import type { RateLimits } from './rate-limits.js';
import type { OriginRequest, Sender } from './request.js';

export interface ExchangeDeps {
  addressOf(request: IncomingMessage): string;
  /** The trace of a request, if it has one. `proved`: an edge that has proved itself sends it. */
  traceOf(request: IncomingMessage, proved: boolean): Trace | undefined;
  readonly limits: RateLimits;
  /** Whether a value of `edge-authorization` proves an edge. */
  isEdge(proof: string | undefined): boolean;
  /** Whether scripts of any site may read the answers. */
  readonly cors: 'any' | 'none';
  readonly drain: DrainLimits;
  /** How far the journal is known here, for answers to edges. */
  position?(): string;
  /** Writes the line of each request. */
  readonly requestLog: RequestLog;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Exchange {
  readonly request: OriginRequest;
  readonly signal: AbortSignal;
  /** Rejects if the client has left, or if the body fails on its way. */
  send(reply: Reply): Promise<void>;
  elapsedMs(): number;
  /** Writes the request's line. `broken`: the answer was not sent to its end; why, if the client is not the reason. */
  log(status: number, fault: Fault | undefined, broken: Broken | undefined): void;
  close(): void;
}

export interface Broken {
  readonly why?: string;
}

/** `expectsContinue`: the client waits for 100 Continue before it sends its body (RFC 9110 10.1.1). */
export function openExchange(
  deps: ExchangeDeps,
  raw: IncomingMessage,
  response: ServerResponse,
  expectsContinue: boolean,
  closing: AbortSignal,
): Exchange {
  const { clock } = deps;
  const startedMs = clock.monotonicMs();
  const sentBefore = raw.socket.bytesWritten;
  const gone = new AbortController();
  const stopListening = onAbort(closing, () => gone.abort(closing.reason));
  response.once('close', () => {
    // Every response is closed in the end. The client has left only if the response was not complete.
    if (response.writableFinished) return;
    gone.abort(new Fault('malformed', 'The client left before it was answered.'));
  });
  // Whoever reads the body sees its errors. Without this listener they would end the process.
  raw.on('error', () => undefined);

  const notes: Notes = { fields: {}, caller: undefined };
  const body = bodyOf(raw, response, expectsContinue);
  const request = readRequest(deps, raw, body, notes, gone.signal);
  let firstByteMs: number | undefined;
  // Taken before anything is looked up.
  const position = request.sender === 'client' ? undefined : deps.position?.();
  return {
    request,
    signal: gone.signal,
    elapsedMs: () => clock.monotonicMs() - startedMs,
    async send(reply) {
      firstByteMs = clock.monotonicMs() - startedMs;
      // A response that is closed already never emits its end.
      gone.signal.throwIfAborted();
      if (reply.body.kind === 'stream' && request.method !== 'HEAD') {
        request.meter.downloaded(reply.body.sizeBytes ?? 0);
      }
      const complete = withCommonHeaders(reply, request, position, deps.cors);
      const last = body.invited ? drainedReply(complete, raw, deps.drain, clock) : closeAfter(complete, raw);
      await send(last, raw, response, gone.signal);
    },
    log(status, fault, broken) {
      const totalMs = clock.monotonicMs() - startedMs;
      logFailure(deps.log, request, fault);
      const { outcome = outcomeOf(fault, broken), ...noted } = notes.fields;
      const { sender } = request;
      deps.requestLog.write(loggedRequest(request, raw, notes.caller), {
        status,
        sentBytes: raw.socket.bytesWritten - sentBefore,
        firstByteMs: firstByteMs ?? totalMs,
        totalMs,
        outcome: String(outcome),
        reason: fault?.code,
        complete: broken === undefined,
        more: { sender, ...noted, ...(broken?.why !== undefined && { why: loggable(broken.why) }) },
      });
    },
    close: stopListening,
  };
}

/** What handlers have said of a request. */
interface Notes {
  readonly fields: Record<string, unknown>;
  caller: Caller | undefined;
}

interface OpenBody {
  readonly sizeBytes: number | null;
  /** False while the client still waits for 100 Continue. */
  readonly invited: boolean;
  open(): IncomingMessage;
}

function bodyOf(raw: IncomingMessage, response: ServerResponse, expectsContinue: boolean): OpenBody {
  let invited = !expectsContinue;
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
  notes: Notes,
  signal: AbortSignal,
): OriginRequest {
  const { path, query } = splitTarget(originForm(raw.url ?? '/').target);
  const sender = senderOf(raw, deps);
  const address = deps.addressOf(raw);
  return {
    id: requestId(header(raw.headers, REQUEST_ID)) ?? randomUUID(),
    trace: deps.traceOf(raw, sender !== 'client'),
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
    identify(caller) {
      notes.caller = caller;
    },
    note: (fields) => void Object.assign(notes.fields, fields),
  };
}

/** The fields that every response has. */
function withCommonHeaders(
  reply: Reply,
  request: OriginRequest,
  position: string | undefined,
  cors: ExchangeDeps['cors'],
): Reply {
  // A page of ours, which brings all of them in its own form.
  const ownGuards = headerOf(reply.headers, 'content-security-policy') !== undefined;
  const ownCors = cors === 'none' || headerOf(reply.headers, 'access-control-allow-origin') !== undefined;
  return {
    ...reply,
    headers: [
      ...reply.headers,
      [REQUEST_ID, request.id],
      ...(position === undefined ? [] : [[MEDIA_POSITION, position] as const]),
      ...request.meter.headers(),
      ...(ownCors ? [] : CORS_HEADERS),
      ...(ownGuards ? [] : GUARD_HEADERS),
    ],
  };
}

function loggedRequest(request: OriginRequest, raw: IncomingMessage, caller: Caller | undefined): LoggedRequest {
  const { id, trace, method, path, address } = request;
  return {
    requestId: id,
    trace,
    method,
    target: raw.url ?? '',
    path,
    header: (name) => request.header(name),
    sender: () => ({ address }),
    caller,
    protocol: `HTTP/${raw.httpVersion}`,
  };
}

/** How a request ended, for those that have no better word. */
function outcomeOf(fault: Fault | undefined, broken: Broken | undefined): 'answered' | 'refused' | 'failed' | 'left' {
  if (broken !== undefined) return broken.why === undefined ? 'left' : 'failed';
  if (fault === undefined) return 'answered';
  return FAULTS[fault.code].side === 'client' ? 'refused' : 'failed';
}

/** What an operator has to know, beside the line of the request. */
function logFailure(log: Log, request: OriginRequest, fault: Fault | undefined): void {
  if (fault === undefined || FAULTS[fault.code].side === 'client') return;
  const { id, trace } = request;
  const fields: LogFields = {
    request_id: id,
    ...(trace !== undefined && { trace_id: trace.traceId }),
    code: fault.code,
  };
  // An `internal` fault may be a bug, so it is logged with its stack.
  if (fault.code === 'internal') log.error({ ...fields, ...bugFields(fault.cause ?? fault) }, 'a request failed');
  else log.warn({ ...fields, ...errorFields(fault.cause ?? fault) }, 'a request failed');
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

/** RFC 9110 10.1.1: the client may or may not send its body now, so the connection cannot be used again. */
function closeAfter(reply: Reply, raw: IncomingMessage): Reply {
  return raw.complete ? reply : { ...reply, headers: [...reply.headers, ['connection', 'close']] satisfies HeaderList };
}
