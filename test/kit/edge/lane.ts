/** A fast lane on a real listener, whose handler the test gives. */
import type { Socket } from 'node:net';
import type { Test } from 'tap';
import { createTally, type Tally } from '../../../edge/ops/tally.js';
import type { Answer, ClientSignal, EdgeRequest, Exchanged } from '../../../edge/request.js';
import { createFastlane } from '../../../edge/server/fastlane/fastlane.js';
import { createOutgoing, type Outgoing } from '../../../edge/server/outgoing.js';
import { type Clock, systemClock } from '../../../src/clock.js';
import type { Reply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { tlsSection } from '../../../src/server/certificate.js';
import type { GuardReason } from '../../../src/server/guard.js';
import { type ListenLimits, limitsSection } from '../../../src/server/limits.js';
import { type Listener, listen } from '../../../src/server/listen.js';
import type { TestCertificate } from '../certificates.js';
import { configured, testDeps } from '../deps.js';

export const LIMITS = configured(limitsSection, { closeWithinMs: 0 });
export const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
export const head = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
export const get = (target: string, ...lines: readonly string[]): string =>
  head(`GET ${target} HTTP/1.1`, 'Host: a', ...lines);

export interface Lane {
  readonly port: number;
  readonly listener: Listener;
  /** All requests, those of the lane and those handed over to node:http, in their order. */
  readonly requests: readonly string[];
  readonly byNode: readonly string[];
  readonly reasons: readonly GuardReason[];
  readonly tally: Tally;
  readonly outgoing: Outgoing;
  /** How many answers a takedown could break off now. */
  readonly held: () => number;
  /** The server's side of each connection, in the order of their coming. */
  readonly sockets: readonly Socket[];
  readonly logged: readonly Logged[];
  /** Errors in the log. */
  readonly errors: () => readonly unknown[];
}

/** What the request log was given. */
export type Logged = Pick<EdgeRequest, 'requestId' | 'method' | 'target'> & Exchanged;

export type Handler = (request: EdgeRequest, client: ClientSignal) => Answer | Promise<Answer>;

interface LaneOptions {
  readonly tls?: TestCertificate;
  readonly clock?: Clock;
  /** Of an HTTP/2 session. */
  readonly interruptionsMax?: number;
  readonly streamsMax?: number;
}

export async function openLane(
  t: Test,
  handler: Handler = echo,
  limits: Partial<ListenLimits> = {},
  { tls, clock = systemClock, ...more }: LaneOptions = {},
): Promise<Lane> {
  const { log, lines } = testDeps();
  const requests: string[] = [];
  const byNode: string[] = [];
  const reasons: GuardReason[] = [];
  const logged: Logged[] = [];
  const tally = createTally();
  const sockets: Socket[] = [];
  const outgoing = createOutgoing();
  let held = 0;
  const add: Outgoing['add'] = (id, connection) => {
    const remove = outgoing.add(id, connection);
    held += 1;
    return () => {
      held -= 1;
      remove();
    };
  };
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: { ...LIMITS, ...limits },
    ...(tls !== undefined && {
      tls: configured(tlsSection, { certificateFile: tls.certFile, keyFile: tls.keyFile, ...more }),
    }),
    clock,
    log,
    onRefused: (reason) => reasons.push(reason),
    onRequest(request, response) {
      requests.push(`${request.method} ${request.url}`);
      byNode.push(`${request.method} ${request.url}`);
      request.on('data', () => undefined).on('error', () => undefined);
      request.on('end', () => response.end(`node ${request.url}\n`));
    },
    firstReader: (within, waiting) => {
      const reader = createFastlane(
        {
          handle(request, client) {
            requests.push(`${request.method} ${request.target}`);
            return handler(request, client);
          },
          health: { live: () => text('alive'), ready: async () => text('ready') },
          uses: { note: () => undefined },
          traffic: { note: () => undefined },
          watch: { active: false, note: () => undefined },
          outgoing: { ...outgoing, add },
          tally,
          clock,
          log,
          requestLog: {
            write: ({ requestId, method, target }, ended) => void logged.push({ requestId, method, target, ...ended }),
          },
          newRequestId: () => 'made-here',
          addressOf: () => '192.0.2.1',
          traceOf: () => undefined,
        },
        within,
        waiting,
      );
      return {
        ...reader,
        take(connection) {
          sockets.push(connection.socket);
          reader.take(connection);
        },
      };
    },
  });
  t.teardown(() => listener.close());
  const errors = () => lines.filter(({ level }) => level === 'error' || level === 'warn');
  return {
    port: listener.port,
    listener,
    requests,
    byNode,
    reasons,
    tally,
    outgoing,
    held: () => held,
    sockets,
    logged,
    errors,
  };
}

export function text(words: string): Reply {
  return {
    status: 200,
    headers: [['content-type', 'text/plain']],
    body: { kind: 'bytes', bytes: Buffer.from(words) },
  };
}

export function replied(reply: Reply, mediaId: MediaId | null = null): Answer {
  return { kind: 'reply', reply, outcome: 'hit_memory', mediaId };
}

/** Answers with the target; what begins with /pass is passed on. */
export function echo({ target }: EdgeRequest): Answer {
  return target.startsWith('/pass')
    ? { kind: 'pass', outcome: 'pass', sender: { subject: undefined, admin: false } }
    : replied(text(`lane ${target}\n`));
}
