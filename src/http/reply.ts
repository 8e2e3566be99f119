/**
 * An answer as plain data, made by a handler and written by `send`. A body is
 * opened only when it is to be sent, so a HEAD reads nothing.
 */
import type { Readable } from 'node:stream';

/** Field lines in the order they are sent. Names are lower case. */
export type HeaderList = readonly (readonly [name: string, value: string])[];

export type ReplyBody =
  | { readonly kind: 'none' }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'stream';
      /** The exact number of bytes that `open` gives; null if it is not known before the end. */
      readonly sizeBytes: number | null;
      open(signal: AbortSignal): Readable | Promise<Readable>;
    };

export interface Reply {
  readonly status: number;
  /**
   * Field lines that many answers share, sent before `headers`. It is the same
   * array for all of them, so that its written form can be cached.
   */
  readonly leading?: HeaderList;
  readonly headers: HeaderList;
  readonly body: ReplyBody;
}

/** All field lines of a reply, in the order they are sent. */
export function linesOf({ leading, headers }: Reply): HeaderList {
  return leading === undefined ? headers : [...leading, ...headers];
}

export const NO_BODY: ReplyBody = { kind: 'none' };

export function emptyReply(status: number, headers: HeaderList = []): Reply {
  return { status, headers, body: NO_BODY };
}

/** A JSON document; `Cache-Control: no-store` unless `headers` says otherwise. */
export function jsonReply(status: number, value: unknown, headers: HeaderList = []): Reply {
  const stated = headers.some(([name]) => name === 'cache-control');
  return {
    status,
    headers: [
      ['content-type', 'application/json; charset=utf-8'],
      ...(stated ? [] : ([['cache-control', 'no-store']] as const)),
      ...headers,
    ],
    body: { kind: 'bytes', bytes: Buffer.from(JSON.stringify(value)) },
  };
}

/** The value of the first line with this name, in lower case. */
export function headerOf(headers: HeaderList, name: string): string | undefined {
  return headers.find(([each]) => each === name)?.[1];
}
