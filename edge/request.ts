/**
 * A request as plain values, whoever received it: node:http, HTTP/2 or a parser
 * of our own. All that the edge decides, it decides from this; no server's
 * request object goes further than the file that makes an Ask of it.
 */
import type { HeaderList } from '../src/http/reply.js';

export interface Ask {
  /** As received; upper case for all that the edge knows. */
  readonly method: string;
  /** The request target in origin form, as received. */
  readonly target: string;
  /** The target up to `?`. */
  readonly path: string;
  /** The target behind `?`; empty where there is none. */
  readonly query: string;
  /** A field's value by lower-case name, several lines joined by `, ` (RFC 9110 5.3). */
  header(name: string): string | undefined;
  /** The same object for requests with the very same fields, where whoever received them can tell. */
  readonly carrier?: object;
  /** Every field line as received, names in lower case: for what is sent on to the origin. */
  fields(): HeaderList;
  /** Passes an interim answer of the origin on, if whoever received the request can (RFC 9110 15.2). */
  inform?(status: number, headers: HeaderList): void;
  /** Made by the edge, or a well-formed one of the client. */
  readonly requestId: string;
}
