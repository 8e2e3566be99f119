/**
 * An edge's handler without sockets, files and timers: the test is the client and the origin. Cache, flights and rules are
 * real; the cache is memory alone.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { EdgeCache } from '../../../edge/cache/cache.js';
import { openCache } from '../../../edge/cache/open.js';
import { type EdgeConfig, edgeSection } from '../../../edge/config.js';
import { createEngine } from '../../../edge/create-engine.js';
import { createAbsences } from '../../../edge/fetch/absences.js';
import type { Engine } from '../../../edge/fetch/engine.js';
import { createFlights } from '../../../edge/fetch/flight.js';
import { handle } from '../../../edge/handler.js';
import type { LeaseVerdict } from '../../../edge/journal/lease.js';
import type { RateLimits } from '../../../edge/rate-limits.js';
import type { Answer, EdgeRequest } from '../../../edge/request.js';
import type { Answered, UpstreamOutcome, UpstreamRequest } from '../../../edge/upstream/request.js';
import { splitTarget } from '../../../src/http/head.js';
import { type HeaderList, linesOf } from '../../../src/http/reply.js';
import type { ThumbOptions } from '../../../src/media/thumb-choice.js';
import { ManualClock } from '../clock.js';
import { configured, type TestDeps, testDeps } from '../deps.js';
import { readAll } from './cache.js';
import { EDGE_PROOF, wordGate } from './edge.js';

export type Origin = (request: UpstreamRequest, signal: AbortSignal) => UpstreamOutcome | Promise<UpstreamOutcome>;

export interface Asking {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Aborts when the client leaves. */
  readonly gone?: AbortSignal;
  readonly inform?: EdgeRequest['inform'];
}

/** What a client got. */
export interface Got {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Buffer;
  readonly outcome: string;
}

export interface DirectEdge extends TestDeps {
  readonly engine: Engine;
  readonly cache: EdgeCache;
  readonly clock: ManualClock;
  /** What the origin was sent, with the fields by name. */
  readonly sent: readonly (UpstreamRequest & { readonly fields: Readonly<Record<string, string>> })[];
  origin: Origin;
  lease: LeaseVerdict;
  thumbOptions: ThumbOptions | undefined;
  admit: RateLimits['admit'];
  /** The whole answer. */
  readonly ask: (target: string, asking?: Asking) => Promise<Got>;
  /** The answer whose body nobody has read. */
  readonly answer: (target: string, asking?: Asking) => Promise<Answer>;
  readonly close: () => Promise<void>;
}

export async function openDirectEdge(
  mode: 'media' | 'off',
  change: (config: EdgeConfig) => EdgeConfig = (config) => config,
): Promise<DirectEdge> {
  const deps = testDeps();
  const clock = new ManualClock();
  const defaults = configured(edgeSection);
  const { cache: sizes } = defaults;
  const config = change({
    ...defaults,
    access: mode,
    cache: { ...sizes, folder: '', disk: { ...sizes.disk, sizeBytes: 0 } },
  });
  const cache = await openCache(config.cache, { ...deps, clock });
  const sent: (UpstreamRequest & { fields: Record<string, string> })[] = [];
  const settable: Pick<DirectEdge, 'origin' | 'lease' | 'thumbOptions' | 'admit'> = {
    origin: () => ({ kind: 'failed', failure: 'connect' }),
    lease: 'yes',
    thumbOptions: undefined,
    admit: () => undefined,
  };
  const engine = createEngine(
    config,
    {
      gate: mode === 'off' ? null : wordGate,
      isEdge: (proof) => mode === 'media' && proof === EDGE_PROOF,
      identity: { proof: EDGE_PROOF, edgeName: 'edge' },
      cache,
      upstream: {
        async fetch(request, signal) {
          sent.push({ ...request, fields: Object.fromEntries(request.headers) });
          return settable.origin(request, signal);
        },
        fetchOwn: () => Promise.reject(new Error('nobody asks for it here')),
        tlsTrouble: null,
        askAll: async () => 'answered',
        moveOn: () => false,
        inOrder: () => [],
        stats: () => ({ breaker: 'closed', inFlight: 0, requests: 0, failures: 0, origins: [] }),
        close: async () => undefined,
      },
      rates: { admit: (client) => settable.admit(client) },
      signsLinks: () => false,
      thumbOptions: () => settable.thumbOptions,
      caughtUp: () => undefined,
      lease: () => settable.lease,
      flights: createFlights(() => config.fill),
      absences: createAbsences(() => config.fill, clock),
      policy: () => config,
    },
    { ...deps, clock },
  );
  const answer: DirectEdge['answer'] = async (target, { method = 'GET', headers = {}, gone, inform } = {}) => {
    const signal = gone ?? new AbortController().signal;
    const request: EdgeRequest = {
      method,
      target,
      ...splitTarget(target),
      header: (name) => headers[name],
      fields: () => Object.entries(headers),
      sender: () => ({ address: '192.0.2.1', scheme: 'https' }),
      requestId: 'request',
      ...(inform && { inform }),
    };
    return handle(engine, request, { gone: () => signal });
  };
  return Object.assign(settable, {
    ...deps,
    engine,
    cache,
    clock,
    sent,
    answer,
    async ask(target: string, asking: Asking = {}) {
      const got = await answer(target, asking);
      if (got.kind !== 'reply') throw new Error(`it was answered with ${got.kind}`);
      const { status, body } = got.reply;
      const headers: Record<string, string> = {};
      for (const [name, value] of linesOf(got.reply))
        headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
      const bytes =
        body.kind === 'none' || asking.method === 'HEAD'
          ? Buffer.alloc(0)
          : body.kind === 'bytes'
            ? Buffer.from(body.bytes)
            : await readAll(await body.open(asking.gone ?? new AbortController().signal));
      return { status, headers, bytes, outcome: got.outcome };
    },
    async close() {
      await engine.flights.close();
      await cache.close();
    },
  });
}

export interface Scripted {
  readonly status?: number;
  readonly fields?: Readonly<Record<string, string>>;
  readonly bytes?: Buffer;
  /** In place of the bytes. */
  readonly body?: Readable;
  readonly sizeBytes?: number | null;
  /** When the origin has sent everything; at once, unless it is given. */
  readonly received?: Promise<void>;
}

/** A response of the origin that arrives now. */
export function respondWith(clock: ManualClock, scripted: Scripted): Answered {
  const { status = 200, fields = {}, bytes = Buffer.alloc(0), received = Promise.resolve() } = scripted;
  const now = clock.now();
  const headers: HeaderList = Object.entries(fields);
  const body = scripted.body ?? Readable.from(bytes.length > 0 ? [bytes] : [], { objectMode: false });
  const sizeBytes = scripted.sizeBytes === undefined ? bytes.length : scripted.sizeBytes;
  return { kind: 'answered', status, headers, body, sizeBytes, received, requestedAt: now, receivedAt: now };
}

export interface MediaFacts {
  readonly public?: boolean;
  readonly maxAge?: number;
  readonly more?: Readonly<Record<string, string>>;
}

/** The fields of media, as our own origin sends them to an edge. */
export function mediaFields(bytes: Buffer, facts: MediaFacts = {}): Readonly<Record<string, string>> {
  const digest = createHash('sha256').update(bytes);
  const sha256 = digest.copy().digest('hex');
  const scope = facts.public === true ? 'public, ' : '';
  return {
    'content-type': 'image/png',
    'content-length': String(bytes.length),
    etag: `"sha256:${sha256}"`,
    'repr-digest': `sha-256=:${digest.digest('base64')}:`,
    'cache-control': `${facts.public === true ? 'public' : 'private'}, max-age=60`,
    'cdn-cache-control': `${scope}max-age=${facts.maxAge ?? 3_600}, stale-while-revalidate=60, stale-if-error=600`,
    ...facts.more,
  };
}
