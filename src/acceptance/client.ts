/**
 * The HTTP client of the acceptance run: one request, one answer, nothing followed and nothing hidden. It shares no code
 * with the service, so that a fault in shared code cannot hide.
 */
import { type IncomingMessage, Agent as PlainAgent, request as plainRequest, type RequestOptions } from 'node:http';
import { Agent as SecureAgent, request as secureRequest } from 'node:https';

export interface Sent {
  readonly method: string;
  readonly url: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly body?: Buffer;
  /** Wait for 100 before the body is sent. */
  readonly expectContinue?: boolean;
  /** Break the connection after so many bytes of the body. */
  readonly cutAfter?: number;
}

export interface Received {
  readonly status: number;
  /** Names in lower case; values of fields that were repeated are joined. */
  readonly fields: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Whether 100 came before the answer. */
  readonly continued: boolean;
}

export interface Client {
  /** Rejects where no whole answer came. */
  send(sent: Sent): Promise<Received>;
  /** Sends and breaks off as `cutAfter` says. */
  cut(sent: Sent): Promise<void>;
  close(): void;
}

const SOCKETS_MAX = 16;
const SILENT_MAX_MS = 45_000;
const BODY_MAX_BYTES = 64 * 1024 * 1024;

/** Reads are broken off by the signal. A request that changes something is answered first, so that nothing is left unknown. */
export function openClient(signal: AbortSignal): Client {
  const agents = {
    'http:': new PlainAgent({ keepAlive: true, maxSockets: SOCKETS_MAX }),
    'https:': new SecureAgent({ keepAlive: true, maxSockets: SOCKETS_MAX }),
  } as const;

  function begin({ method, url, fields, body, expectContinue = false }: Sent, fresh: boolean) {
    signal.throwIfAborted();
    const { protocol } = new URL(url);
    const reads = method === 'GET' || method === 'HEAD';
    const length = body === undefined || 'transfer-encoding' in fields ? {} : { 'content-length': body.length };
    const options: RequestOptions = {
      method,
      headers: { ...length, ...fields, ...(expectContinue && { expect: '100-continue' }) },
      timeout: SILENT_MAX_MS,
      ...(reads && { signal }),
    };
    return protocol === 'https:'
      ? secureRequest(url, { ...options, agent: fresh ? false : agents['https:'] })
      : plainRequest(url, { ...options, agent: fresh ? false : agents['http:'] });
  }

  return {
    send: (sent) =>
      new Promise((resolve, reject) => {
        // A connection that the server ends after a refusal must not be one that others wait for.
        const request = begin(sent, sent.body !== undefined);
        let continued = false;
        request.once('timeout', () => request.destroy(new Error(`no answer within ${SILENT_MAX_MS / 1_000} s`)));
        request.once('continue', () => {
          continued = true;
          request.end(sent.body);
        });
        let answered = false;
        request.on('error', (thrown) => {
          if (!answered) reject(thrown);
        });
        request.once('response', (response) => {
          answered = true;
          readWhole(response).then((body) => {
            resolve({ status: response.statusCode ?? 0, fields: fieldsOf(response), body, continued });
            if (sent.expectContinue === true && !continued) request.destroy();
          }, reject);
        });
        if (sent.expectContinue === true) request.flushHeaders();
        else request.end(sent.body);
      }),
    cut: (sent) =>
      new Promise((resolve) => {
        const request = begin(sent, true);
        request.once('timeout', () => request.destroy());
        request.on('error', () => resolve());
        request.once('close', () => resolve());
        request.write(sent.body?.subarray(0, sent.cutAfter ?? 0), () => request.destroy());
      }),
    close() {
      for (const agent of Object.values(agents)) agent.destroy();
    },
  };
}

async function readWhole(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_MAX_BYTES) throw new Error('the answer is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function fieldsOf(response: IncomingMessage): Readonly<Record<string, string>> {
  const fields: Record<string, string> = {};
  for (let at = 0; at + 1 < response.rawHeaders.length; at += 2) {
    const name = (response.rawHeaders[at] ?? '').toLowerCase();
    const value = response.rawHeaders[at + 1] ?? '';
    fields[name] = name in fields ? `${fields[name]}, ${value}` : value;
  }
  return fields;
}
