/** One HTTP request over a real socket, and its whole response. */
import { type Agent, type IncomingHttpHeaders, request } from 'node:http';

export interface RequestOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  /** Reuses connections. Without it each request has a connection of its own. */
  readonly agent?: Agent;
  /** Called with each interim response. */
  onInterim?(status: number, headers: IncomingHttpHeaders): void;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
  /** False if the connection broke before the announced end. */
  readonly whole: boolean;
}

export function sendRequest(url: string, options: RequestOptions = {}): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: options.method ?? 'GET', headers: options.headers ?? {}, agent: options.agent ?? false },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', () => undefined);
        response.on('close', () => {
          const { statusCode: status = 0, headers, complete: whole } = response;
          resolve({ status, headers, bytes: Buffer.concat(chunks), whole });
        });
      },
    );
    sent.on('error', reject);
    sent.on('information', ({ statusCode, headers }) => options.onInterim?.(statusCode, headers));
    sent.end(options.body);
  });
}

/** The body of a response as JSON. */
export function json(answer: HttpResponse): Readonly<Record<string, unknown>> {
  return JSON.parse(answer.bytes.toString()) as Readonly<Record<string, unknown>>;
}

/** A member of a JSON body, as text. */
export function member(answer: HttpResponse, name: string): string {
  return String(json(answer)[name]);
}
