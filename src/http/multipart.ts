/**
 * Answers with several ranges (RFC 9110 14.6): the frame of a
 * multipart/byteranges body, whose size is known before anything is read, and
 * the body itself.
 */
import { Readable } from 'node:stream';
import { invariant } from '../errors.js';
import { type ByteSpan, contentRange, spanLength } from './range.js';
import type { ReplyBody } from './reply.js';

export interface MultipartPlan {
  /** The Content-Type of the answer. */
  readonly contentType: string;
  /** The Content-Length of the answer: every head, every span, the tail. */
  readonly sizeBytes: number;
  readonly parts: readonly { readonly head: Buffer; readonly span: ByteSpan }[];
  readonly tail: Buffer;
}

/** RFC 2046 5.1.1, without space and without characters that need quotes. */
const BOUNDARY = /^[A-Za-z0-9'+_.-]{1,70}$/;

/**
 * RFC 9110 14.6: the frame of an answer with several ranges. The boundary must
 * not occur in the bytes, so it must be unpredictable. `contentType` is that of
 * the representation; undefined if it has none.
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

/** The framed bytes. Each span is opened when its turn comes; breaking off destroys the open one. */
export function multipartBody(
  { sizeBytes, parts, tail }: MultipartPlan,
  openSpan: (span: ByteSpan, signal: AbortSignal) => Readable | Promise<Readable>,
): ReplyBody {
  async function* framed(signal: AbortSignal): AsyncGenerator<Buffer> {
    for (const { head, span } of parts) {
      yield head;
      yield* (await openSpan(span, signal)) as AsyncIterable<Buffer>;
    }
    yield tail;
  }
  return { kind: 'stream', sizeBytes, open: (signal) => Readable.from(framed(signal), { objectMode: false }) };
}
