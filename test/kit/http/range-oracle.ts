/**
 * Range planning without a package, written from RFC 9110 14: the oracle that
 * src/http/range.ts is compared with.
 */
import type { ByteSpan, RangePlan } from '../../../src/http/range.js';

const WHOLE: RangePlan = { kind: 'whole' };
const UNSATISFIABLE: RangePlan = { kind: 'unsatisfiable' };

/** What a Range field asks for, before the size is known. */
type RangeSpec =
  | { readonly kind: 'from'; readonly first: number; readonly last: number }
  | { readonly kind: 'suffix'; readonly length: number };

/** The plan for a GET whose If-Range holds. */
export function planByOracle(value: string, sizeBytes: number, rangesMax: number): RangePlan {
  const specs = parseRange(value, rangesMax);
  return specs === undefined ? WHOLE : planSpecs(specs, sizeBytes);
}

/** 14.1.2: undefined for another unit, a malformed or backward range, or too many of them. */
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
    // 5.6.1.2: empty members of a list are ignored.
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
    // 14.1.2: a suffix of an empty representation is satisfiable, but a 206 cannot name no bytes.
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

/** Undefined if the range lies outside of the bytes. */
function spanOf(spec: RangeSpec, sizeBytes: number): ByteSpan | undefined {
  if (spec.kind === 'suffix') {
    // 14.1.2: a suffix longer than the representation means all of it.
    return spec.length === 0 || sizeBytes === 0
      ? undefined
      : { first: Math.max(0, sizeBytes - spec.length), last: sizeBytes - 1 };
  }
  return spec.first >= sizeBytes ? undefined : { first: spec.first, last: Math.min(spec.last, sizeBytes - 1) };
}

/** Ascending spans; those that touch become one (15.3.7.2). Undefined if two overlap. */
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

function trimSpaces(text: string): string {
  return text.replace(/^[ \t]+|[ \t]+$/g, '');
}
