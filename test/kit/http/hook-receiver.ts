/** A chat server that receives webhooks, and the check of their signatures, written anew from the specification. */
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  readonly name: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly type: string;
  readonly id: string;
  readonly body: {
    readonly type: string;
    readonly timestamp: string;
    readonly data: Readonly<Record<string, unknown>>;
  };
}

export interface HookReceiver {
  readonly url: string;
  /** Every request so far. */
  readonly received: Received[];
  /** How the next requests are answered. */
  answer: (request: Received, response: ServerResponse) => void;
  close(): Promise<void>;
}

export const takes: HookReceiver['answer'] = (_request, response) => void response.writeHead(204).end();
export const answers =
  (status: number): HookReceiver['answer'] =>
  (_request, response) =>
    void response.writeHead(status).end('not read');

export async function openHookReceiver(): Promise<HookReceiver> {
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => void pieces.push(piece));
    request.on('error', () => undefined);
    request.on('end', () => {
      const text = Buffer.concat(pieces).toString('utf8');
      const body = JSON.parse(text) as Received['body'];
      const { headers } = request;
      const name = String(headers['webhook-id']);
      const one = { name, headers, text, body, type: body.type, id: String(body.data['id']) };
      receiver.received.push(one);
      receiver.answer(one, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const receiver: HookReceiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks?of=chat`,
    received: [],
    answer: takes,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return receiver;
}

/** Whether one of the signatures is right for this secret. */
export async function isSigned(
  { headers, text }: Pick<Received, 'headers' | 'text'>,
  secret: string,
): Promise<boolean> {
  const raw = Uint8Array.from(atob(secret.slice('whsec_'.length)), (one) => one.charCodeAt(0));
  const key = await crypto.subtle.importKey('raw', raw, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
  const content = Buffer.from([headers['webhook-id'], headers['webhook-timestamp'], text].join('.'));
  for (const part of String(headers['webhook-signature']).split(' ')) {
    const [version, encoded = ''] = part.split(',');
    if (version !== 'v1') continue;
    const signature = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
    if (await crypto.subtle.verify('HMAC', key, signature, content)) return true;
  }
  return false;
}
