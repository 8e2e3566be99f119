/**
 * The line of the log for each answered request, the same at edge and origin: one
 * set of names, as JSON or in Apache's combined format.
 *
 * Every hit writes one, so a line is joined from prepared pieces and does not pass
 * through pino. Texts that a client chose are searched for secrets and limited
 * here; all others are of closed lists or made by the service itself.
 */
import type { Caller } from '../access/grant.js';
import { subjectMark } from '../access/subject-mark.js';
import type { Clock, EpochMs } from '../clock.js';
import { type LogConfig, type LogFields, loggable } from '../log.js';
import { redactText } from '../redact.js';
import type { Trace } from '../tracing/context.js';
import { type RouteName, routeOf } from './route.js';

/** What the line needs of a request. */
export interface LoggedRequest {
  readonly requestId: string;
  readonly method: string;
  /** As received. */
  readonly target: string;
  /** The target up to `?`. */
  readonly path: string;
  header(name: string): string | undefined;
  sender(): { readonly address: string };
  readonly trace?: Trace | undefined;
  /** Whoever proved to be somebody. */
  readonly caller?: Caller | undefined;
  /** An object that always comes with the same fields, address and connection. */
  readonly carrier?: object | undefined;
  /** Such as `HTTP/1.1`. */
  readonly protocol?: string | undefined;
}

/** How it ended. */
export interface LoggedEnding {
  /** 0: no answer was begun. */
  readonly status: number;
  readonly sentBytes: number;
  /** Until there was an answer to send. */
  readonly firstByteMs: number;
  readonly totalMs: number;
  readonly outcome: string;
  readonly tier?: 'memory' | 'disk' | undefined;
  /** Why it ended so: of a closed list. */
  readonly reason?: string | undefined;
  /** The number of the rule of the cache that matches; 0: none. */
  readonly rule?: number;
  /** Whether the whole answer was handed to the connection. */
  readonly complete: boolean;
  /** What one process alone knows, by the names in the log. */
  readonly more?: LogFields | undefined;
}

/** The fields by their names in the log. One that does not apply is absent. */
export interface RequestFields {
  readonly request_id: string;
  readonly trace_id?: string;
  readonly span_id?: string;
  readonly address: string;
  readonly subject?: string;
  readonly range?: string;
  readonly user_agent?: string;
  readonly method: string;
  readonly route: RouteName;
  readonly target: string;
  readonly status: number;
  readonly bytes: number;
  readonly first_byte_ms: number;
  readonly total_ms: number;
  readonly outcome: string;
  readonly tier?: 'memory' | 'disk';
  readonly reason?: string;
  readonly rule?: number;
  readonly complete: boolean;
}

export interface RequestLog {
  write(request: LoggedRequest, ended: LoggedEnding): void;
}

export interface RequestLogDeps {
  /** The name of the process. */
  readonly name: string;
  /** Read for each line: a reload may change it. */
  readonly config: Pick<LogConfig, 'level' | 'requests' | 'format'>;
  readonly clock: Pick<Clock, 'now'>;
  readonly write: (line: string) => void;
}

export function createRequestLog({ name, config, clock, write }: RequestLogDeps): RequestLog {
  const source = `"name":${JSON.stringify(name)},"pid":${process.pid}`;
  const pieces = createPieces();
  const targetText = createTargetText();
  let at: EpochMs = Number.NaN;
  let start = '';

  /** The same text for all lines of one millisecond. */
  function startAt(now: EpochMs): string {
    if (now !== at) {
      at = now;
      start = `{"level":"info","time":"${new Date(now).toISOString()}",${source},`;
    }
    return start;
  }

  return {
    write(request, ended) {
      if (!isLogged(config, ended.status)) return;
      if (config.format === 'combined') write(combinedLine(request, ended, clock.now()));
      else write(`${startAt(clock.now())}${jsonRest(request, ended, pieces(request), targetText(request))}`);
    },
  };
}

/** The log levels at which lines of level `info` are written. */
const SHOWN_AT: ReadonlySet<string> = new Set<LogConfig['level']>(['trace', 'debug', 'info']);

function isLogged({ level, requests }: Pick<LogConfig, 'level' | 'requests'>, status: number): boolean {
  if (requests === 'none' || !SHOWN_AT.has(level)) return false;
  return requests === 'all' || status >= 500 || status === 0;
}

function jsonRest(request: LoggedRequest, ended: LoggedEnding, who: string, target: string): string {
  const { requestId, trace, method, path } = request;
  const { status, sentBytes, firstByteMs, totalMs, outcome, tier, reason, rule, complete, more } = ended;
  return (
    `"request_id":"${requestId}",${trace === undefined ? '' : traceText(trace)}${who},"method":${quoted(method)},"route":"${routeOf(path)}",` +
    `"target":"${target}","status":${status},"bytes":${sentBytes},` +
    `"first_byte_ms":${msText(firstByteMs)},"total_ms":${msText(totalMs)},"outcome":"${outcome}"` +
    `${tier === undefined ? '' : `,"tier":"${tier}"`}${reason === undefined ? '' : `,"reason":"${reason}"`}` +
    `${rule === undefined || rule === 0 ? '' : `,"rule":${rule}`},"complete":${complete}` +
    `${more === undefined ? '' : moreText(more)},"msg":"request"}\n`
  );
}

function traceText({ traceId, spanId }: Pick<Trace, 'traceId' | 'spanId'>): string {
  return `"trace_id":"${traceId}","span_id":"${spanId}",`;
}

function moreText(more: LogFields): string {
  const text = JSON.stringify(more);
  return text === '{}' ? '' : `,${text.slice(1, -1)}`;
}

/** The same fields as a value. */
export function requestFields(request: LoggedRequest, ended: LoggedEnding): RequestFields {
  const { status, sentBytes, firstByteMs, totalMs, outcome, tier, reason, rule, complete } = ended;
  return {
    request_id: request.requestId,
    ...(request.trace !== undefined && { trace_id: request.trace.traceId, span_id: request.trace.spanId }),
    ...callerFields(request),
    method: request.method,
    route: routeOf(request.path),
    target: loggable(request.target),
    status,
    bytes: sentBytes,
    first_byte_ms: tenths(firstByteMs),
    total_ms: tenths(totalMs),
    outcome,
    ...(tier !== undefined && { tier }),
    ...(reason !== undefined && { reason }),
    ...(rule !== undefined && rule !== 0 && { rule }),
    complete,
  };
}

type CallerFields = Pick<RequestFields, 'address' | 'subject' | 'range' | 'user_agent'>;

function callerFields(request: LoggedRequest): CallerFields {
  const { caller } = request;
  const range = request.header('range');
  const agent = request.header('user-agent');
  return {
    address: request.sender().address,
    ...(caller !== undefined && { subject: subjectMark(caller) }),
    ...(range !== undefined && { range: given(range) }),
    ...(agent !== undefined && { user_agent: given(agent) }),
  };
}

const GIVEN_CHARS_MAX = 256;

/** A field of the request as the log shows it. */
function given(value: string): string {
  return redactText(value).slice(0, GIVEN_CHARS_MAX);
}

/** What is the same for all requests of one client on one connection is written once. */
function createPieces(): (request: LoggedRequest) => string {
  const known = new WeakMap<object, { readonly caller: Caller | undefined; readonly text: string }>();
  return (request) => {
    const { carrier, caller } = request;
    if (carrier === undefined) return pieceOf(request);
    const found = known.get(carrier);
    if (found !== undefined && found.caller === caller) return found.text;
    const text = pieceOf(request);
    known.set(carrier, { caller, text });
    return text;
  };
}

function pieceOf(request: LoggedRequest): string {
  return JSON.stringify(callerFields(request)).slice(1, -1);
}

/** Characters that JSON escapes (RFC 8259 7), and all that are not ASCII. Methods mostly have none. */
const ESCAPED = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;

function quoted(text: string): string {
  return ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`;
}

/** A path with nothing to remove (redact.ts) and nothing to escape has only these. */
const NOT_PLAIN = /[^A-Za-z0-9/._~-]|eyJ/;
const PLAIN_CHARS_MAX = 512;
/** Queries that come again and again choose a thumbnail. */
const QUERY_CHARS_MAX = 32;
const QUERIES_MAX = 512;

/** The target as JSON, without its quotation marks. */
function createTargetText(): (request: LoggedRequest) => string {
  const known = new Map<string, string>();
  return ({ target, path }) => {
    if (path.length > PLAIN_CHARS_MAX || NOT_PLAIN.test(path)) return inner(target);
    if (path.length === target.length) return path;
    const query = target.slice(path.length);
    if (query.length > QUERY_CHARS_MAX) return inner(target);
    let text = known.get(query);
    if (text === undefined) {
      text = inner(query);
      if (known.size >= QUERIES_MAX) known.clear();
      known.set(query, text);
    }
    return path + text;
  };
}

function inner(text: string): string {
  return JSON.stringify(loggable(text)).slice(1, -1);
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

/** Most requests take less, and a fraction takes long to write. */
const SHORT_TENTHS = 1_000;
const SHORT: readonly string[] = Array.from({ length: SHORT_TENTHS }, (_, count) => String(count / 10));

function msText(ms: number): string {
  return SHORT[Math.round(ms * 10)] ?? String(tenths(ms));
}

/** Apache's `%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"`, with the mark of the caller as `%u`. */
function combinedLine(request: LoggedRequest, { status, sentBytes }: LoggedEnding, now: EpochMs): string {
  const { address, subject = '-', user_agent: agent = '-' } = callerFields(request);
  const { method, target, protocol = 'HTTP/1.1' } = request;
  const line = escaped(`${method} ${loggable(target)} ${protocol}`);
  const referer = escaped(given(request.header('referer') ?? '-'));
  return `${address} - ${subject} [${combinedTime(now)}] "${line}" ${status} ${sentBytes} "${referer}" "${escaped(agent)}"\n`;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** Such as `28/Nov/2026:12:05:00 +0000`. */
function combinedTime(now: EpochMs): string {
  const text = new Date(now).toISOString();
  const month = MONTHS[Number(text.slice(5, 7)) - 1] ?? '';
  return `${text.slice(8, 10)}/${month}/${text.slice(0, 4)}:${text.slice(11, 19)} +0000`;
}

/** As Apache does: nothing in a field ends it, or the line. */
function escaped(text: string): string {
  return text.replace(/["\\]|[^\x20-\x7e]/g, (char) =>
    char === '"' || char === '\\' ? `\\${char}` : [...Buffer.from(char)].map(hexEscape).join(''),
  );
}

function hexEscape(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}
