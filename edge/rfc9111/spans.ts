/**
 * Ranges of an incomplete response (RFC 9111 3.3, 3.4): which may be joined, what
 * they cover of the whole and what is missing. Spans given and returned are in
 * ascending order; no two touch or overlap.
 */
import { etagsMatchStrongly } from '../../src/http/etag.js';
import type { ByteSpan } from '../../src/http/range.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';

/** 3.4: ranges are of the same representation if they share a strong validator and the size of the whole. */
export function combinable(
  stored: { readonly headers: HeaderList; readonly sizeBytes: number | null },
  received: { readonly headers: HeaderList; readonly sizeBytes: number | null },
): boolean {
  const known = headerOf(stored.headers, 'etag') ?? '';
  const given = headerOf(received.headers, 'etag') ?? '';
  if (!etagsMatchStrongly(known, given)) return false;
  return stored.sizeBytes !== null && stored.sizeBytes === received.sizeBytes;
}

/** Adds a span; it is joined with those that it touches or overlaps. */
export function addSpan(spans: readonly ByteSpan[], added: ByteSpan): readonly ByteSpan[] {
  const before = spans.filter((span) => span.last + 1 < added.first);
  const after = spans.filter((span) => span.first > added.last + 1);
  const touching = spans.filter((span) => span.last + 1 >= added.first && span.first <= added.last + 1);
  const first = Math.min(added.first, ...touching.map((span) => span.first));
  const last = Math.max(added.last, ...touching.map((span) => span.last));
  return [...before, { first, last }, ...after];
}

/** What the spans do not cover of `wanted`. */
export function missingOf(spans: readonly ByteSpan[], wanted: ByteSpan): readonly ByteSpan[] {
  const missing: ByteSpan[] = [];
  let next = wanted.first;
  for (const span of spans) {
    if (span.last < next) continue;
    if (span.first > wanted.last) break;
    if (span.first > next) missing.push({ first: next, last: span.first - 1 });
    next = span.last + 1;
  }
  if (next <= wanted.last) missing.push({ first: next, last: wanted.last });
  return missing;
}

/** RFC 9110 14.2: the value of Range for one span. */
export function rangeField(span: ByteSpan): string {
  return `bytes=${span.first}-${span.last}`;
}
