/** An origin that has nothing but a takedown journal, over real sockets. */
import { once } from 'node:events';
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type RequestListener,
  type Server,
} from 'node:http';
import type { OpenOrigin } from '../../../edge/journal/config.js';
import { journalSection } from '../../../origin/edges/origin-journal.js';
import type { Clock } from '../../../src/clock.js';
import { faultOf } from '../../../src/errors.js';
import { problemReply } from '../../../src/http/problem.js';
import { createJournalStream, type JournalStream } from '../../../src/journal/journal-stream.js';
import { ALWAYS_CURRENT } from '../../../src/journal/source.js';
import { send } from '../../../src/server/send.js';
import type { ManualClock } from '../clock.js';
import { configured, testDeps } from '../deps.js';
import { ownPort } from '../ports.js';
import { MemoryJournal } from './journal.js';

export const PROOF = 'the-proof';
export const BEAT_MS = 1_000;

/** It can be stopped, and started again on the same port. */
export class JournalOrigin {
  journal = new MemoryJournal();
  /** The error of its wall clock. */
  skewMs = 0;
  stream: JournalStream | undefined;
  readonly #clock: ManualClock;
  #server: Server | undefined;
  #port = 0;

  constructor(clock: ManualClock) {
    this.#clock = clock;
  }

  get port(): number {
    return this.#port;
  }

  async start(): Promise<void> {
    const { log, metrics } = testDeps();
    const clock: Clock = {
      now: () => this.#clock.now() + this.skewMs,
      monotonicMs: () => this.#clock.monotonicMs(),
      after: (delayMs, run) => this.#clock.after(delayMs, run),
    };
    const config = configured(journalSection, { beatMs: BEAT_MS, batchMax: 4 });
    const stream = createJournalStream({
      journal: this.journal,
      proof: ALWAYS_CURRENT,
      usesEveryMs: () => undefined,
      config,
      isEdge: (proof) => proof === PROOF,
      clock,
      log,
      metrics,
    });
    const server = createServer(journalHandler(stream));
    if (this.#port === 0) this.#port = await ownPort();
    server.listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    this.stream = stream;
    this.#server = server;
  }

  async stop(): Promise<void> {
    await this.stream?.close();
    this.#server?.closeAllConnections();
    const closed = this.#server === undefined ? undefined : once(this.#server, 'close');
    this.#server?.close();
    await closed;
    this.stream = undefined;
    this.#server = undefined;
  }
}

export function openHttp(port: () => number): OpenOrigin {
  return ({ method, target, headers, body }, signal) =>
    new Promise((resolve, reject) => {
      const sent = httpRequest({
        port: port(),
        host: '127.0.0.1',
        method,
        path: target,
        headers: Object.fromEntries(headers),
        signal,
        agent: false,
      });
      sent.on('response', (answer: IncomingMessage) => resolve({ status: answer.statusCode ?? 0, body: answer }));
      sent.on('error', reject);
      sent.end(body);
    });
}

/** Answers as a listener for edges does: GET follows the journal, and everything else confirms. */
export function journalHandler(stream: JournalStream): RequestListener {
  const never = new AbortController().signal;
  return (request, response) => {
    const handled =
      request.method === 'GET'
        ? stream.follow(request, response, never)
        : stream.confirm(request, never).then((reply) => send(reply, request, response, never));
    handled.catch((thrown: unknown) => send(problemReply(faultOf(thrown)), request, response, never)).catch(() => {});
  };
}
