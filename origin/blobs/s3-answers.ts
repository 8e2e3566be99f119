/** What S3 servers answer, and what it means: is a body what was asked for, is a failure worth another try. Pure. */
import { Readable } from 'node:stream';
import { Fault } from '../../src/errors.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { ReadOutcome } from './blob-store.js';

interface GetAnswer {
  readonly Body?: unknown;
  readonly ContentLength?: number | undefined;
  readonly ContentRange?: string | undefined;
}

/** Trusts a body only if the head says that it is of exactly the bytes asked for. `release`: called once the body is done with. */
export function foundIn(answer: GetAnswer, span: ByteSpan | undefined, release: () => void): ReadOutcome {
  const { Body: body, ContentLength, ContentRange } = answer;
  const whole = span === undefined ? ContentLength : sizeInRange(ContentRange, span);
  const expected = span === undefined || whole === undefined ? whole : Math.min(span.last, whole - 1) - span.first + 1;
  if (body instanceof Readable && whole !== undefined && ContentLength === expected) {
    body.once('close', release);
    return { kind: 'found', sizeBytes: whole, body };
  }
  if (body instanceof Readable) body.destroy();
  release();
  throw new Error('the server answered with other bytes than it was asked for');
}

/** The size of the whole, from the Content-Range of an answer that begins where it was asked to (RFC 9110 14.4). */
function sizeInRange(contentRange: string | undefined, span: ByteSpan): number | undefined {
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange ?? '');
  return match !== null && Number(match[1]) === span.first ? Number(match[2]) : undefined;
}

export function statusOf(thrown: unknown): number | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('$metadata' in thrown)) return undefined;
  return (thrown.$metadata as { readonly httpStatusCode?: number } | undefined)?.httpStatusCode;
}

export function nameOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.name : '';
}

/** A missing bucket is no missing blob, as far as the answer tells them apart. */
export function isMissing(thrown: unknown): boolean {
  return statusOf(thrown) === 404 && nameOf(thrown) !== 'NoSuchBucket';
}

/** Server trouble, a broken connection, a corrected clock; not a refusal, and not a full server. */
export function mayHelpToRetry(thrown: unknown): boolean {
  if (thrown instanceof Fault || nameOf(thrown) === 'CredentialsProviderError') return false;
  const status = statusOf(thrown);
  if (status === undefined) return true;
  if (['RequestTimeout', 'RequestTimeTooSkewed', 'SlowDown'].includes(nameOf(thrown))) return true;
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 507);
}
