/**
 * POST of links for many media, answered by the edge itself: it has the secrets, and the media need not exist. Leaves to
 * others: who may ask (handler.ts). Where the edge signs no links, or does not know the service's address yet, the
 * request goes to the origin.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AccessConfig } from '../src/access/config.js';
import { type LinkSigning, linksBodyMaxBytes, makeLinks } from '../src/access/make-links.js';
import { type Clock, withDeadline } from '../src/clock.js';
import { Fault } from '../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS } from '../src/http/browser.js';
import { header } from '../src/http/head.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import { readSmallBody } from '../src/server/small-body.js';
import { REQUEST_ID } from '../src/wire.js';

export interface Links {
  /** Whether this edge can sign links now. */
  ready(): boolean;
  /** Throws a Fault to refuse. */
  answer(request: IncomingMessage, response: ServerResponse, requestId: string, signal: AbortSignal): Promise<Reply>;
}

export interface LinksDeps {
  readonly config: AccessConfig['links'];
  readonly key: LinkSigning['key'];
  /** What the URLs of media begin with; undefined: not known yet. */
  readonly baseUri: () => string | undefined;
  /** How long a client may take to send its body. */
  readonly bodyWithinMs: number;
  readonly edgeName: string;
  /** The wall clock: links end by it. */
  readonly clock: Clock;
}

export function createLinks({ config, key, baseUri, bodyWithinMs, edgeName, clock }: LinksDeps): Links {
  const signing: LinkSigning = { ...config, key };
  const maxBytes = linksBodyMaxBytes(config);
  const tooLong = (): Fault => new Fault('malformed', `The body has at most ${maxBytes} bytes.`);
  return {
    ready: () => key() !== undefined && baseUri() !== undefined,
    async answer(request, response, requestId, signal) {
      if (header(request.headers, 'expect')?.toLowerCase() === '100-continue') response.writeContinue();
      const late = (): Fault => {
        // RFC 9110 15.5.9: nobody waits for the rest.
        response.shouldKeepAlive = false;
        return new Fault('request_timeout', 'The body arrives too slowly.');
      };
      const body = await withDeadline({ clock, ms: bodyWithinMs, late, signal }, (ending) =>
        readSmallBody(request, maxBytes, tooLong, ending),
      );
      const at = baseUri();
      if (at === undefined) throw new Fault('overloaded', 'The origin has not said yet where the service is.');
      return jsonReply(200, makeLinks(body, signing, at, clock.now()), [
        ...GUARD_HEADERS,
        ...CORS_HEADERS,
        ['via', `1.1 ${edgeName}`],
        [REQUEST_ID, requestId],
      ]);
    },
  };
}
