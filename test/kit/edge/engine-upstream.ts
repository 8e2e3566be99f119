/** An edge's engine as the origin of another one, without sockets: for the model of edges in a row. */
import { Readable } from 'node:stream';
import type { Engine } from '../../../edge/fetch/engine.js';
import { handle } from '../../../edge/handler.js';
import type { UpstreamOutcome, UpstreamRequest } from '../../../edge/upstream/request.js';
import type { Upstream } from '../../../edge/upstream/upstream.js';
import type { Clock } from '../../../src/clock.js';
import { fieldsToForward } from '../../../src/http/fields.js';
import { contentLength, splitTarget } from '../../../src/http/head.js';
import { type HeaderList, linesOf, type ReplyBody } from '../../../src/http/reply.js';

/** `before` is read at each request, as an edge may be started again. */
export function upstreamOf(before: () => Engine, clock: Clock): Upstream {
  return {
    async fetch(request, signal) {
      try {
        return await fetchFrom(before(), request, signal, clock);
      } catch (thrown) {
        // A wait that the signal ends rejects, as it does behind a listener, which then answers nobody.
        if (signal.aborted) return { kind: 'failed', failure: 'left' };
        throw thrown;
      }
    },
    fetchOwn: () => Promise.reject(new Error('the model has no journal')),
    tlsTrouble: null,
    askAll: async () => 'answered',
    moveOn: () => false,
    inOrder: () => [],
    stats: () => ({ breaker: 'closed', inFlight: 0, requests: 0, failures: 0, origins: [] }),
    close: async () => undefined,
  };
}

async function fetchFrom(
  engine: Engine,
  { method, target, headers }: UpstreamRequest,
  signal: AbortSignal,
  clock: Clock,
): Promise<UpstreamOutcome> {
  const requestedAt = clock.now();
  if (signal.aborted) return { kind: 'failed', failure: 'left' };
  const values = new Map(headers);
  const request = {
    method,
    target,
    ...splitTarget(target),
    header: (name: string) => values.get(name),
    fields: () => headers,
    sender: () => ({ address: '192.0.2.1', scheme: 'http' }) as const,
    requestId: 'model-request',
  };
  const answer = await handle(engine, request, { gone: () => signal });
  if (answer.kind !== 'reply') throw new Error('a GET or HEAD was passed on');
  const { status, body } = answer.reply;
  const lines = fieldsToForward(status, [...linesOf(answer.reply)]);
  const sent = method === 'HEAD' || status === 304 ? Readable.from([]) : await opened(body, signal);
  sent.on('error', () => undefined);
  signal.addEventListener('abort', () => sent.destroy(new Error('nobody waits for it')), { once: true });
  if (signal.aborted) {
    sent.destroy();
    return { kind: 'failed', failure: 'left' };
  }
  const sizeBytes = status === 304 ? 0 : sizeOf(lines, body);
  const received = new Promise<void>((resolve) => sent.once('close', resolve));
  return {
    kind: 'answered',
    status,
    headers: lines,
    body: sent,
    sizeBytes,
    received,
    requestedAt,
    receivedAt: clock.now(),
  };
}

function sizeOf(lines: HeaderList, body: ReplyBody): number | null {
  const announced = contentLength(lines);
  if (announced !== null) return announced;
  return body.kind === 'bytes' ? body.bytes.byteLength : body.kind === 'stream' ? body.sizeBytes : null;
}

async function opened(body: ReplyBody, signal: AbortSignal): Promise<Readable> {
  switch (body.kind) {
    case 'none':
      return Readable.from([]);
    case 'bytes':
      return Readable.from([Buffer.from(body.bytes)], { objectMode: false });
    case 'stream':
      return await body.open(signal);
  }
}
