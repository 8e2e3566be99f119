/**
 * The ways to reach an edge over which the public suite runs: each has a `fetch` as the suite wants it. For HTTP/1.1 it
 * is node-fetch; for HTTP/2, which node-fetch does not speak, one that makes node-fetch's responses.
 */
import { once } from 'node:events';
import { Agent } from 'node:http';
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2';
import { Agent as TlsAgent } from 'node:https';

export interface FetchInit {
  readonly method?: string;
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly body?: string;
}
export type Fetch = (url: string, init?: FetchInit) => Promise<unknown>;

/** What the suite gets from node-fetch. */
export interface NodeFetch {
  readonly default: (url: string, init: FetchInit & { agent?: Agent | TlsAgent }) => Promise<unknown>;
  readonly Response: new (
    body: Buffer | undefined,
    init: { status: number; headers: readonly (readonly [string, string])[] },
  ) => unknown;
}

export interface Way {
  readonly name: string;
  readonly encrypted: boolean;
  /** `ca` is the certificate of an encrypted edge. */
  open(nodeFetch: NodeFetch, base: string, ca: string): Promise<{ readonly fetch: Fetch; close(): void }>;
}

export const WAYS: readonly Way[] = [
  {
    name: 'HTTP/1.1, kept connections',
    encrypted: false,
    open: async (fetching) => kept(fetching, new Agent({ keepAlive: true })),
  },
  {
    name: 'HTTP/1.1, one request each',
    encrypted: false,
    open: async (fetching) => ({ fetch: (url, init = {}) => fetching.default(url, init), close: () => undefined }),
  },
  {
    name: 'HTTP/1.1 over TLS',
    encrypted: true,
    open: async (fetching, _base, ca) => kept(fetching, new TlsAgent({ keepAlive: true, ca })),
  },
  { name: 'HTTP/2', encrypted: true, open: overHttp2 },
];

function kept(fetching: NodeFetch, agent: Agent | TlsAgent): { readonly fetch: Fetch; close(): void } {
  return { fetch: (url, init = {}) => fetching.default(url, { ...init, agent }), close: () => agent.destroy() };
}

async function overHttp2(
  { Response }: NodeFetch,
  base: string,
  ca: string,
): Promise<{ readonly fetch: Fetch; close(): void }> {
  let session: ClientHttp2Session | undefined;
  const connected = async (): Promise<ClientHttp2Session> => {
    if (session !== undefined && !session.closed && !session.destroyed) return session;
    session = connect(base, { ca });
    session.on('error', () => undefined);
    await once(session, 'connect');
    return session;
  };
  await connected();
  return {
    async fetch(url, init = {}) {
      const { status, headers, body } = await exchange(await connected(), new URL(url), init);
      return new Response(body.length === 0 ? undefined : body, { status, headers });
    },
    close: () => session?.destroy(),
  };
}

/** RFC 9113 8.2.2: fields of one connection, which HTTP/2 does not have. */
const OF_HTTP1: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'upgrade']);

interface Exchanged {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
}

function exchange(
  session: ClientHttp2Session,
  url: URL,
  { method = 'GET', headers = [], body }: FetchInit,
): Promise<Exchanged> {
  const fields: OutgoingHttpHeaders = { ':method': method, ':path': url.pathname + url.search, accept: '*/*' };
  for (const [given, text] of headers) {
    const name = given.toLowerCase();
    // As fetch sends it; HTTP/2 forbids white space at either end (RFC 9113 8.2.1).
    const value = text.trim();
    if (OF_HTTP1.has(name)) continue;
    const before = name === 'accept' ? undefined : fields[name];
    fields[name] = before === undefined ? value : `${String(before)}, ${value}`;
  }
  return new Promise((resolve, reject) => {
    const stream = session.request(fields, { endStream: body === undefined });
    const chunks: Buffer[] = [];
    let received: Exchanged['headers'] = [];
    let status = 0;
    stream.on('response', (answered) => {
      status = Number(answered[':status']);
      received = Object.entries(answered).flatMap(([name, value]) =>
        name.startsWith(':') || value === undefined ? [] : [value].flat().map((each) => [name, each] as const),
      );
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => resolve({ status, headers: received, body: Buffer.concat(chunks) }));
    if (body !== undefined) stream.end(body);
  });
}
