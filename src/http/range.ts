/**
 * Range requests (RFC 9110 14): which bytes a request is to be answered with,
 * and the frame of a multipart/byteranges answer, sized to the byte before
 * anything is read.
 *
 * A range is a wish that a server may disregard, so whatever is malformed, of
 * another unit, too many or overlapping is answered with the whole. HEAD too:
 * RFC 9110 14.2 defines ranges for GET alone and has every other method ignore
 * the field.
 */
import { invariant } from '../errors.js';
import { ifRangeHolds, type RequestHead, type Validators } from './conditional.js';

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

/** What a Range field asks for, before the size is known. */
type RangeSpec =
  | { readonly kind: 'from'; readonly first: number; readonly last: number }
  | { readonly kind: 'suffix'; readonly length: number };

export function planRange(
  request: RequestHead,
  held: Validators,
  sizeBytes: number,
  limits: { readonly rangesMax: number },
): RangePlan {
  // 14.2: only GET has a range handling.
  if (request.method !== 'GET') return WHOLE;
  const value = request.header('range');
  if (value === undefined || !ifRangeHolds(request, held)) return WHOLE;
  const specs = parseRange(value, limits.rangesMax);
  return specs === undefined ? WHOLE : planSpecs(specs, sizeBytes);
}

/** 14.4: the Content-Range of a 206, or of one of its parts. */
export function contentRange(span: ByteSpan, sizeBytes: number): string {
  return `bytes ${span.first}-${span.last}/${sizeBytes}`;
}

/** 14.4: the Content-Range of a 416. */
export function unsatisfiedRange(sizeBytes: number): string {
  return `bytes */${sizeBytes}`;
}

/** 14.4: the span of a 206 in one part and the size of the whole, null where it is not told. Undefined for anything else. */
export function parseContentRange(
  value: string | undefined,
): { readonly span: ByteSpan; readonly sizeBytes: number | null } | undefined {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(value ?? '');
  if (match === null) return undefined;
  const span = { first: Number(match[1]), last: Number(match[2]) };
  const sizeBytes = match[3] === '*' ? null : Number(match[3]);
  // 14.4: a last byte before the first, or beyond the whole, makes it invalid.
  if (span.last < span.first || (sizeBytes !== null && span.last >= sizeBytes)) return undefined;
  return { span, sizeBytes };
}

export function spanLength(span: ByteSpan): number {
  return span.last - span.first + 1;
}

/** 14.1.2: undefined for another unit, a malformed or backward range, or more of them than may be. */
function parseRange(value: string, rangesMax: number): readonly RangeSpec[] | undefined {
  const equals = value.indexOf('=');
  // 14.1: range units are case-insensitive.
  if (equals === -1 || value.slice(0, equals).toLowerCase() !== 'bytes') return undefined;
  const specs: RangeSpec[] = [];
  for (let at = equals + 1; at <= value.length; ) {
    const comma = value.indexOf(',', at);
    const end = comma === -1 ? value.length : comma;
    const member = trimSpaces(value.slice(at, end));
    at = end + 1;
    // 5.6.1.2: empty members of a list are passed over.
    if (member === '') continue;
    const spec = parseSpec(member);
    if (spec === undefined || specs.length === rangesMax) return undefined;
    specs.push(spec);
  }
  return specs.length === 0 ? undefined : specs;
}

function parseSpec(member: string): RangeSpec | undefined {
  const match = /^(\d*)-(\d*)$/.exec(member);
  const [, first = '', last = ''] = match ?? [];
  if (first === '') return last === '' ? undefined : { kind: 'suffix', length: Number(last) };
  const spec = {
    kind: 'from',
    first: Number(first),
    last: last === '' ? Number.POSITIVE_INFINITY : Number(last),
  } as const;
  return spec.last < spec.first ? undefined : spec;
}

function planSpecs(specs: readonly RangeSpec[], sizeBytes: number): RangePlan {
  const spans: ByteSpan[] = [];
  for (const spec of specs) {
    // 14.1.2: a suffix longer than nothing is satisfiable, but 206 cannot say that of no bytes.
    if (sizeBytes === 0 && spec.kind === 'suffix' && spec.length > 0) return WHOLE;
    const span = spanOf(spec, sizeBytes);
    if (span !== undefined) spans.push(span);
  }
  spans.sort((one, other) => one.first - other.first);
  const joined = joinTouching(spans);
  const [only] = joined ?? [];
  if (joined === undefined) return WHOLE;
  if (only === undefined) return UNSATISFIABLE;
  return joined.length === 1 ? { kind: 'single', span: only } : { kind: 'several', spans: joined };
}

/** Undefined where the range lies outside of the bytes. */
function spanOf(spec: RangeSpec, sizeBytes: number): ByteSpan | undefined {
  if (spec.kind === 'suffix') {
    // 14.1.2: a suffix longer than all there is means all there is.
    return spec.length === 0 || sizeBytes === 0
      ? undefined
      : { first: Math.max(0, sizeBytes - spec.length), last: sizeBytes - 1 };
  }
  return spec.first >= sizeBytes ? undefined : { first: spec.first, last: Math.min(spec.last, sizeBytes - 1) };
}

/** Ascending spans with those that touch made one (15.3.7.2); undefined where two overlap. */
function joinTouching(spans: readonly ByteSpan[]): readonly ByteSpan[] | undefined {
  const joined: ByteSpan[] = [];
  for (const span of spans) {
    const before = joined.at(-1);
    if (before === undefined || span.first > before.last + 1) joined.push(span);
    else if (span.first <= before.last) return undefined;
    else joined[joined.length - 1] = { first: before.first, last: span.last };
  }
  return joined;
}

export interface MultipartPlan {
  /** The Content-Type of the answer. */
  readonly contentType: string;
  /** The Content-Length of the answer: every head, every span, the tail. */
  readonly sizeBytes: number;
  readonly parts: readonly { readonly head: Buffer; readonly span: ByteSpan }[];
  readonly tail: Buffer;
}

/** RFC 2046 5.1.1, without a space, and with no need of quotes. */
const BOUNDARY = /^[A-Za-z0-9'+_.-]{1,70}$/;

/**
 * RFC 9110 14.6: the frame of an answer with several ranges. The boundary must
 * not occur in the bytes: hand in one that nobody can foresee. `contentType` is
 * that of the representation, undefined where it has none.
 */
export function multipartPlan(
  spans: readonly ByteSpan[],
  sizeBytes: number,
  contentType: string | undefined,
  boundary: string,
): MultipartPlan {
  invariant(BOUNDARY.test(boundary), 'a multipart boundary is 1 to 70 characters of its alphabet');
  const typeLine = contentType === undefined ? '' : `Content-Type: ${contentType}\r\n`;
  const parts = spans.map((span, index) => ({
    head: Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\n${typeLine}Content-Range: ${contentRange(span, sizeBytes)}\r\n\r\n`,
      'latin1',
    ),
    span,
  }));
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1');
  const framed = parts.reduce((sum, { head, span }) => sum + head.length + spanLength(span), tail.length);
  return { contentType: `multipart/byteranges; boundary=${boundary}`, sizeBytes: framed, parts, tail };
}

function trimSpaces(text: string): string {
  return text.replace(/^[ \t]+|[ \t]+$/g, '');
}
