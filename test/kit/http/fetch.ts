/** One request over each protocol that a listener speaks, and its whole answer, in one form. */
import { Agent, type RequestOptions, request } from 'node:http';
import { request as requestTls, Agent as TlsAgent } from 'node:https';
import { connectHttp2, fetchHttp2 } from './http2.js';

export interface Fetched {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface Fetching {
  readonly name: string;
  /** Rejects if there is no answer, or if it is cut short. */
  fetch(method: string, target: string, headers?: Readonly<Record<string, string>>, body?: string): Promise<Fetched>;
  close(): void;
}

/** All requests go over one connection, so that a byte too much or too few breaks the answer behind it. */
export function overHttp1(name: string, url: string, ca?: string): Fetching {
  const kept = { keepAlive: true, maxSockets: 1 };
  const agent = ca === undefined ? new Agent(kept) : new TlsAgent({ ...kept, ca });
  return { name, fetch: (...what) => fetchHttp1(url, agent, ...what), close: () => agent.destroy() };
}

/** Each request has a connection of its own and says so, which sends it to node:http and not to the fast lane. */
export function overNodeHttp(name: string, url: string): Fetching {
  return { name, fetch: (...what) => fetchHttp1(url, false, ...what), close: () => undefined };
}

/** `more`: fields of every request. */
export async function overHttp2(
  name: string,
  url: string,
  ca: string,
  more: Readonly<Record<string, string>> = {},
): Promise<Fetching> {
  const client = await connectHttp2(url, ca);
  return {
    name,
    async fetch(method, target, headers = {}, body) {
      const bytes = body === undefined ? undefined : Buffer.from(body);
      // With its length, as over HTTP/1.1: an edge sends a small body of known length with its head.
      const length = bytes === undefined ? {} : { 'content-length': String(bytes.length) };
      const fields = { ':method': method, ':path': target, ...length, ...more, ...headers };
      const { status, headers: received, bytes: content, rstCode } = await fetchHttp2(client, fields, bytes);
      if (rstCode !== 0) throw new Error(`${method} ${target}: the stream was reset with ${rstCode}`);
      return { status, headers: received, body: content.toString('latin1') };
    },
    close: () => client.destroy(),
  };
}

function fetchHttp1(
  url: string,
  agent: RequestOptions['agent'],
  method: string,
  target: string,
  headers: Readonly<Record<string, string>> = {},
  body?: string,
): Promise<Fetched> {
  const send = url.startsWith('https:') ? requestTls : request;
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': String(body.length) };
    const sent = send(url + target, { method, headers: { ...headers, ...length }, agent }, (response) => {
      let text = '';
      response.setEncoding('latin1').on('data', (chunk: string) => (text += chunk));
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
      });
    });
    sent.on('error', (error) => reject(new Error(`${method} ${target}: ${error.message}`)));
    sent.end(body);
  });
}
