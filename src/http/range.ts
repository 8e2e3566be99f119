/**
 * Range requests (RFC 9110 14): which bytes answer a request.
 *
 * A server may ignore a range. So a field that is malformed, of another unit,
 * has too many ranges or overlapping ones is answered with the whole. A HEAD is
 * answered with the whole too, because RFC 9110 14.2 defines ranges for GET only.
 *
 * range-parser reads the ranges. What it reads otherwise than RFC 9110 never
 * reaches it: see `guardedField`.
 */
import rangeParser from 'range-parser';
import { ifRangeHolds, type RequestHead, type Validators } from './conditional.js';
import { trimSpace } from './fields.js';

/** First and last byte, both included. */
export interface ByteSpan {
  readonly first: number;
  readonly last: number;
}

export type RangePlan =
  | { readonly kind: 'whole' }
  | { readonly kind: 'single'; readonly span: ByteSpan }
  /** Two or more, ascending, apart from each other. */
  | { readonly kind: 'several'; readonly spans: readonly ByteSpan[] }
  | { readonly kind: 'unsatisfiable' };

const WHOLE: RangePlan = { kind: 'whole' };
const UNSATISFIABLE: RangePlan = { kind: 'unsatisfiable' };

export function planRange(
  request: RequestHead,
  stored: Validators,
  sizeBytes: number,
  limits: { readonly rangesMax: number },
): RangePlan {
  // 14.2: only GET has ranges.
  if (request.method !== 'GET') return WHOLE;
  const value = request.header('range');
  if (value === undefined || !ifRangeHolds(request, stored)) return WHOLE;
  const field = guardedField(value, sizeBytes, limits.rangesMax);
  if (field === undefined) return WHOLE;
  const spans = spansOf(field, sizeBytes, true);
  const [only] = spans;
  if (only === undefined) return UNSATISFIABLE;
  // 14.2: ranges that overlap may be an attack, and are ignored.
  if (bytesIn(spans) < bytesIn(spansOf(field, sizeBytes, false))) return WHOLE;
  return spans.length === 1 ? { kind: 'single', span: only } : { kind: 'several', spans };
}

/** 14.4: the Content-Range of a 206 or of one of its parts. */
export function contentRange(span: ByteSpan, sizeBytes: number): string {
  return `bytes ${span.first}-${span.last}/${sizeBytes}`;
}

/** 14.4: the Content-Range of a 416. */
export function unsatisfiedRange(sizeBytes: number): string {
  return `bytes */${sizeBytes}`;
}

/** 14.4: the span of a 206 with one part and the size of the whole, null if it is not given. Undefined for anything else. */
export function parseContentRange(
  value: string | undefined,
): { readonly span: ByteSpan; readonly sizeBytes: number | null } | undefined {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(value ?? '');
  if (match === null) return undefined;
  const span = { first: Number(match[1]), last: Number(match[2]) };
  const sizeBytes = match[3] === '*' ? null : Number(match[3]);
  // 14.4: a last byte before the first or beyond the whole is invalid.
  if (span.last < span.first || (sizeBytes !== null && span.last >= sizeBytes)) return undefined;
  return { span, sizeBytes };
}

export function spanLength(span: ByteSpan): number {
  return span.last - span.first + 1;
}

/**
 * 14.1.2: the field as range-parser may see it, or undefined where the answer is
 * the whole. The package takes any unit for bytes, leaves out backward ranges,
 * has no limit, refuses empty members and a suffix longer than the file.
 */
function guardedField(value: string, sizeBytes: number, rangesMax: number): string | undefined {
  const equals = value.indexOf('=');
  // 14.1: range units are case-insensitive.
  if (equals === -1 || value.slice(0, equals).toLowerCase() !== 'bytes') return undefined;
  const members: string[] = [];
  for (const text of value.slice(equals + 1).split(',')) {
    const member = trimSpace(text);
    // 5.6.1.2: empty members of a list are ignored.
    if (member === '') continue;
    const guarded = guardedMember(member, sizeBytes);
    if (guarded === undefined || members.length === rangesMax) return undefined;
    members.push(guarded);
  }
  return members.length === 0 ? undefined : `bytes=${members.join(',')}`;
}

function guardedMember(member: string, sizeBytes: number): string | undefined {
  const [, first = '', last = ''] = /^(\d*)-(\d*)$/.exec(member) ?? [];
  if (first !== '') return last !== '' && Number(last) < Number(first) ? undefined : member;
  if (last === '') return undefined;
  const suffixBytes = Number(last);
  // 14.1.2: a suffix of an empty representation is satisfiable, but a 206 cannot name no bytes.
  if (sizeBytes === 0 && suffixBytes > 0) return undefined;
  // 14.1.2: a suffix longer than the representation means all of it.
  return `-${Math.min(suffixBytes, sizeBytes)}`;
}

/** The spans inside the bytes, ascending; `joined`: those that touch or overlap are one (15.3.7.2). */
function spansOf(field: string, sizeBytes: number, joined: boolean): readonly ByteSpan[] {
  const ranges = rangeParser(sizeBytes, field, { combine: joined });
  if (typeof ranges === 'number') return [];
  return ranges.map(({ start, end }) => ({ first: start, last: end })).sort((one, other) => one.first - other.first);
}

function bytesIn(spans: readonly ByteSpan[]): number {
  return spans.reduce((sum, span) => sum + spanLength(span), 0);
}
