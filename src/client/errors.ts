/** The one class of errors that this library throws, and how an answer becomes one. */
import { type ErrorCode, serviceCode } from './codes.js';

export interface ErrorDetails {
  /** The status of the answer; undefined if there was none. */
  readonly status?: number | undefined;
  /** How long the service asks to wait, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
  /** The name of the request in the service's logs. */
  readonly requestId?: string | undefined;
  readonly cause?: unknown;
}

/** Every failure. `code` comes from a closed list; `message` is for people. */
export class MediaError extends Error {
  override readonly name = 'MediaError';
  declare readonly code: ErrorCode;
  declare readonly status?: number | undefined;
  declare readonly retryAfterMs?: number | undefined;
  declare readonly requestId?: string | undefined;

  constructor(code: ErrorCode, message: string, { cause, ...details }: ErrorDetails = {}) {
    super(message, { cause });
    Object.assign(this, { ...details, code });
  }
}

/** An answer, however it was received. */
export interface Received {
  readonly status: number;
  readonly text: string;
  readonly field: (name: string) => string | null;
}

/** The error that a refusal stands for (RFC 9457). `now` is for a Retry-After that is a date. */
export function errorOf({ status, text, field }: Received, now: number): MediaError {
  const problem = parseObject(text);
  const code = serviceCode(problem?.['code']);
  const words = [problem?.['detail'], problem?.['title']].find((word) => typeof word === 'string');
  return new MediaError(code ?? 'unexpected', words ?? `The service answered ${status}.`, {
    status,
    retryAfterMs: retryAfterMs(field('retry-after'), now),
    requestId: field('x-request-id') ?? undefined,
  });
}

/** RFC 9110 10.2.3: seconds or a date. */
export function retryAfterMs(field: string | null, now: number): number | undefined {
  if (field === null) return undefined;
  if (/^\d+$/.test(field)) return Number(field) * 1_000;
  const at = Date.parse(field);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}

/** What was thrown, as an error of this library. Whatever is unknown came from the connection. */
export function asMediaError(thrown: unknown): MediaError {
  if (thrown instanceof MediaError) return thrown;
  return new MediaError('network', 'The service could not be reached.', { cause: thrown });
}

export function aborted(cause: unknown): MediaError {
  return new MediaError('aborted', 'It was cancelled.', { cause });
}

export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
