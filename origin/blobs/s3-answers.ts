/** Reads the responses of S3 servers: whether a body is what was requested, and whether a failure is worth a retry. Pure. */
import { Readable } from 'node:stream';
import { Fault } from '../../src/errors.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { ReadOutcome } from './blob-store.js';

interface GetAnswer {
  readonly Body?: unknown;
  readonly ContentLength?: number | undefined;
  readonly ContentRange?: string | undefined;
}

/** Accepts a body only if its head announces exactly the requested bytes. `release` is called when the body has ended. */
export function readOutcomeOf(answer: GetAnswer, span: ByteSpan | undefined, release: () => void): ReadOutcome {
  const { Body: body, ContentLength, ContentRange } = answer;
  const whole = span === undefined ? ContentLength : sizeInRange(ContentRange, span);
  const expected = span === undefined || whole === undefined ? whole : Math.min(span.last, whole - 1) - span.first + 1;
  if (body instanceof Readable && whole !== undefined && ContentLength === expected) {
    body.once('close', release);
    return { kind: 'found', sizeBytes: whole, body };
  }
  if (body instanceof Readable) body.destroy();
  release();
  throw new Error('the server answered with other bytes than were requested');
}

/** The size of the whole, from a Content-Range that begins where it was requested to (RFC 9110 14.4). */
function sizeInRange(contentRange: string | undefined, span: ByteSpan): number | undefined {
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange ?? '');
  return match !== null && Number(match[1]) === span.first ? Number(match[2]) : undefined;
}

export function statusOf(thrown: unknown): number | undefined {
  return (thrown as Answered | null | undefined)?.$metadata?.httpStatusCode;
}

/** What the SDK adds to an error of the server. */
interface Answered {
  readonly $metadata?: { readonly httpStatusCode?: number };
}

export function nameOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.name : '';
}

/** A missing bucket does not count as a missing blob, if the response tells them apart. */
export function isMissing(thrown: unknown): boolean {
  return statusOf(thrown) === 404 && nameOf(thrown) !== 'NoSuchBucket';
}

/** True for an error of the server, a broken connection and a corrected clock, false for a refusal and a full server. */
export function isWorthRetrying(thrown: unknown): boolean {
  if (thrown instanceof Fault || nameOf(thrown) === 'CredentialsProviderError') return false;
  const status = statusOf(thrown);
  if (status === undefined) return true;
  if (['RequestTimeout', 'RequestTimeTooSkewed', 'SlowDown'].includes(nameOf(thrown))) return true;
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 507);
}

/** Whether a write that failed may be stored all the same: its answer was lost, or an earlier attempt has ended the upload. */
export function mayHaveSucceeded(thrown: unknown): boolean {
  return isWorthRetrying(thrown) || isMissing(thrown);
}
