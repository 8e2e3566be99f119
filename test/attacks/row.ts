/**
 * What an attack is: one request of a table, and the status that it must get at the origin and at an edge, in front of
 * which it is sent over HTTP/1.1 in both lanes and over HTTP/2.
 */
import type { AuthService } from '../kit/auth-service.js';

/** `origin`, then `edge` if it answers otherwise. */
type Expected = number | readonly [origin: number, edge: number];

export interface Row {
  readonly name: string;
  readonly method: string;
  /** Sent as it is. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  readonly expected: Expected;
  /** Over HTTP/2 the session ends, and there is no answer. */
  readonly endsSession?: true;
}

/** The media and the callers that the tables use. */
export interface Stage {
  readonly auth: AuthService;
  readonly now: number;
  readonly id: { readonly shown: string; readonly hidden: string; readonly deleted: string; readonly unknown: string };
  readonly user: Readonly<Record<string, string>>;
  readonly admin: Readonly<Record<string, string>>;
  /** A token for reading alone, and one for uploading alone. */
  readonly reader: Readonly<Record<string, string>>;
  readonly uploader: Readonly<Record<string, string>>;
  /** A signed link to the hidden media: its path and query. */
  readonly link: string;
  /** The query of an upload link that another user has made. */
  readonly uploadLink: string;
  /** The path of an unfinished resumable upload of another user. */
  readonly upload: string;
}

/** Text of the hidden media. No answer to a stranger contains it. */
export const HIDDEN_TEXT = 'hidden-from-strangers';

export const bearer = (token: string): Readonly<Record<string, string>> => ({ authorization: `Bearer ${token}` });

type Headers = Readonly<Record<string, string>>;

/** A row without a body. `request` is `METHOD target`. */
export function ask(name: string, request: string, headers: Headers, expected: Expected): Row {
  const space = request.indexOf(' ');
  const method = request.slice(0, space);
  return { name, method, target: request.slice(space + 1), headers, body: undefined, expected };
}

export function send(name: string, request: string, headers: Headers, body: string, expected: Expected): Row {
  return { ...ask(name, request, headers, expected), body };
}
