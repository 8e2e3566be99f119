/**
 * W3C Trace Context: the fields `traceparent` and `tracestate`, read and written,
 * and who may choose a trace. Pure but for the random ids.
 *
 * A field is taken as a whole, by its grammar, or not at all. Each process has a
 * span of its own in the trace, and what it asks of others names that span.
 */
import { randomBytes } from 'node:crypto';
import type { HeaderList } from '../http/reply.js';

export interface Trace {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits: the work of this process on the request. */
  readonly spanId: string;
  /** The span that caused it; undefined: the trace begins here. */
  readonly parentId: string | undefined;
  /** Whether the trace is recorded by those who record some. */
  readonly sampled: boolean;
  /** What other systems say about the trace. */
  readonly state: string | undefined;
}

export const TRACEPARENT = 'traceparent';
export const TRACESTATE = 'tracestate';
export const TRACE_FIELDS: ReadonlySet<string> = new Set([TRACEPARENT, TRACESTATE]);

/** Whose trace is continued. */
export const TRACE_SENDERS = ['nobody', 'trusted', 'anyone'] as const;
export type TraceSenders = (typeof TRACE_SENDERS)[number];

const SPAN_BYTES = 8;
const TRACE_BYTES = 16;
const SAMPLED = 1;

export function newSpanId(): string {
  return randomBytes(SPAN_BYTES).toString('hex');
}

export function newTrace(sampled: boolean): Trace {
  const traceId = randomBytes(TRACE_BYTES).toString('hex');
  return { traceId, spanId: newSpanId(), parentId: undefined, sampled, state: undefined };
}

/**
 * The trace of a request, with a new span. Undefined: it has none, and without `begin` it gets none. A trace that is
 * malformed, or whose sender may not choose one, is replaced by a new one.
 */
export function traceOf(
  header: (name: string) => string | undefined,
  accepted: TraceSenders,
  isTrusted: () => boolean,
  begin?: () => Trace,
): Trace | undefined {
  const text = header(TRACEPARENT);
  if (text === undefined || accepted === 'nobody') return begin?.();
  const parent = accepted === 'anyone' || isTrusted() ? readTraceparent(text) : undefined;
  if (parent === undefined) return begin?.() ?? newTrace(false);
  return { ...parent, spanId: newSpanId(), state: readTracestate(header(TRACESTATE)) };
}

/** The fields of a request that the span causes. */
export function traceFields(trace: Trace | undefined): HeaderList {
  if (trace === undefined) return [];
  const { traceId, spanId, sampled, state } = trace;
  const parent = [TRACEPARENT, `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`] as const;
  return state === undefined ? [parent] : [parent, [TRACESTATE, state]];
}

const VERSIONED = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const CHARS_MAX = 512;

/** Trace Context 3.2: a later version may have more after the flags; 255 is none, and ids are not all zeros. */
export function readTraceparent(text: string): Pick<Trace, 'traceId' | 'parentId' | 'sampled'> | undefined {
  if (text.length > CHARS_MAX) return undefined;
  const [, version = '', traceId = '', parentId = '', flags = '', more] = VERSIONED.exec(text) ?? [];
  if (traceId === '' || version === 'ff' || (version === '00' && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(parentId)) return undefined;
  return { traceId, parentId, sampled: (Number.parseInt(flags, 16) & SAMPLED) === SAMPLED };
}

const MEMBERS_MAX = 32;
const MEMBER =
  /^(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;

/** Trace Context 3.3: a list of members with different keys, some of which may be empty. Undefined if one is malformed. */
export function readTracestate(text: string | undefined): string | undefined {
  if (text === undefined || text.length > CHARS_MAX) return undefined;
  const members = text
    .split(',')
    .map((each) => each.replace(/^[ \t]+|[ \t]+$/g, ''))
    .filter((each) => each !== '');
  const keys = new Set(members.map((each) => each.slice(0, each.indexOf('='))));
  if (members.length === 0 || members.length > MEMBERS_MAX || keys.size < members.length) return undefined;
  return members.every((each) => MEMBER.test(each)) ? members.join(',') : undefined;
}
