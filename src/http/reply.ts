/**
 * An answer as plain data, made by a story and written by `send`. Bodies are
 * opened only when they are to be sent, so a HEAD costs no read.
 */
import type { Readable } from 'node:stream';

/** Field lines in the order they are sent. Names are lower case. */
export type HeaderList = readonly (readonly [name: string, value: string])[];

export type ReplyBody =
  | { readonly kind: 'none' }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'stream';
      /** Exact number of bytes that `open` gives, or null where only the end tells. */
      readonly sizeBytes: number | null;
      open(signal: AbortSignal): Readable | Promise<Readable>;
    };

export interface Reply {
  readonly status: number;
  /**
   * Field lines that many answers share, sent before `headers`: the same array
   * for all of them, so that whoever writes them may keep its written form.
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

/** The first value of a field in a list, by lower-case name. */
export function headerOf(headers: HeaderList, name: string): string | undefined {
  return headers.find(([held]) => held === name)?.[1];
}
