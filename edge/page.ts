/**
 * In development only: passes the paths of the page for people to
 * `media-service dev`, which serves them. Only for clients on this machine, since
 * the page gives tokens to whoever asks. Without the variable that `dev` sets there
 * is no page.
 */
import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { isPathOfPage, PAGE_ADDRESS } from '../src/dev/page-address.js';
import { splitTarget } from '../src/http/head.js';

export interface Page {
  takes(incoming: IncomingMessage): boolean;
  handle(incoming: IncomingMessage, response: ServerResponse): void;
}

/** Undefined: there is no page. */
export function pageOf(env: Readonly<Record<string, string | undefined>>): Page | undefined {
  const address = env[PAGE_ADDRESS];
  if (address === undefined || !URL.canParse(address)) return undefined;
  const { hostname, port } = new URL(address);
  if (!isLoopback(hostname)) return undefined;
  return {
    takes: (incoming) =>
      isPathOfPage(splitTarget(incoming.url ?? '').path) && isLoopback(incoming.socket.remoteAddress),
    handle(incoming, response) {
      const { method, url, headers } = incoming;
      const fields = Object.entries(headers).filter(([name]) => !name.startsWith(':') && !HOP_BY_HOP.has(name));
      const onward = request({ hostname, port, method, path: url, headers: Object.fromEntries(fields) }, (answer) => {
        const answered = Object.entries(answer.headers).filter(([name]) => !HOP_BY_HOP.has(name));
        response.writeHead(answer.statusCode ?? 502, Object.fromEntries(answered));
        answer.pipe(response);
        answer.once('error', () => response.destroy());
      });
      onward.once('error', () => {
        if (response.headersSent) response.destroy();
        else response.writeHead(502).end();
      });
      response.once('close', () => onward.destroy());
      incoming.pipe(onward);
    },
  };
}

const HOP_BY_HOP: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'expect']);

function isLoopback(address = ''): boolean {
  return isIP(address) !== 0 && /^(?:127\.|::1$|::ffff:127\.)/.test(address);
}
