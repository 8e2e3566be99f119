/**
 * An edge in the process of the test, in front of a scripted origin. Handler, cache, upstream and listener are real and
 * use real sockets. The test controls the gate, the lease and the clock.
 */
import { randomUUID } from 'node:crypto';
import type { DiskFiles } from '../../../edge/cache/disk/files.js';
import { openCache } from '../../../edge/cache/open.js';
import { type EdgeConfig, edgeSection } from '../../../edge/config.js';
import { createEngine } from '../../../edge/create-engine.js';
import { createAbsences } from '../../../edge/fetch/absences.js';
import type { Engine } from '../../../edge/fetch/engine.js';
import { createFlights } from '../../../edge/fetch/flight.js';
import { handle } from '../../../edge/handler.js';
import { createHealth } from '../../../edge/health.js';
import type { LeaseState, LeaseVerdict } from '../../../edge/journal/lease.js';
import { createTally, type Tally } from '../../../edge/ops/tally.js';
import { createTraffic } from '../../../edge/ops/traffic.js';
import { createWatch, type Watch } from '../../../edge/ops/watch.js';
import { invalidate } from '../../../edge/pass/invalidate-after.js';
import { keepPosted } from '../../../edge/pass/keep-post.js';
import { createPass } from '../../../edge/pass/pass.js';
import { createRateLimits, type StatedRates } from '../../../edge/rate-limits.js';
import type { ClientSignal, EdgeRequest } from '../../../edge/request.js';
import { createFastlane } from '../../../edge/server/fastlane/fastlane.js';
import { createServer } from '../../../edge/server/node-http.js';
import { createOutgoing } from '../../../edge/server/outgoing.js';
import { createEdgeRequestLog } from '../../../edge/server/request-log.js';
import { readOriginTls } from '../../../edge/upstream/tls.js';
import { traceUpstream } from '../../../edge/upstream/traced.js';
import { openUpstream } from '../../../edge/upstream/upstream.js';
import { createUseReports, type UseReports } from '../../../edge/use-reports.js';
import type { Caller, Credentials, Gate, Grant } from '../../../src/access/grant.js';
import { systemClock } from '../../../src/clock.js';
import { parseConfig } from '../../../src/config/load.js';
import { createAddressOf, createTrust } from '../../../src/http/address.js';
import type { MediaId } from '../../../src/ids.js';
import { createLog, type Log } from '../../../src/log.js';
import type { ThumbOptions } from '../../../src/media/thumb-choice.js';
import { createMetrics } from '../../../src/metrics.js';
import { type Listener, listen } from '../../../src/server/listen.js';
import { type TraceSenders, traceOf } from '../../../src/tracing/context.js';
import { type Tracer, withSpans } from '../../../src/tracing/tracer.js';
import { ManualClock } from '../clock.js';
import { openScriptedOrigin, type ScriptedOrigin } from './scripted-origin.js';

export interface TestEdge {
  readonly url: string;
  readonly origin: ScriptedOrigin;
  readonly listener: Listener;
  readonly engine: Engine;
  readonly clock: ManualClock;
  readonly tally: Tally;
  readonly watch: Watch;
  readonly uses: UseReports;
  /** The verdict of the lease, from now on. */
  lease: LeaseVerdict;
  thumbOptions: ThumbOptions | undefined;
  /** What the origin has stated. */
  rates: StatedRates | undefined;
  /** Takes media down, as the journal does. */
  takeDown(id: MediaId): Promise<void>;
  /** The value of a counter with these labels, or 0. */
  counted(name: string, labels?: string): Promise<number>;
  close(): Promise<void>;
}

export const EDGE_PROOF = 'v1.proof-of-the-tests';

export interface TestEdgeOptions {
  /** Lines of the section `edge`, in YAML. */
  readonly edge?: readonly string[];
  /** Members of `listen.limits`, in YAML's flow style. */
  readonly limits?: string;
  /** Members of `listen.tls`, in YAML's flow style; without any, plain HTTP. */
  readonly tls?: string;
  /** The certificate of the origin. Without it the origin speaks plain HTTP. */
  readonly originTls?: { readonly cert: string; readonly key: string };
  /** The origin of the edge, in place of the scripted one. */
  readonly originUrl?: string;
  readonly log?: Log;
  readonly tracer?: Tracer;
  /** Whose trace is continued; `trusted` unless given. */
  readonly trace?: TraceSenders;
  /** Members of `upstream` and of `cache`, in YAML's flow style. Without any, the cache is memory alone. */
  readonly upstream?: string;
  readonly cache?: string;
  /** The file system of the cache. */
  readonly files?: DiskFiles;
}

/** `folder` belongs to the test. */
export async function openTestEdge(folder: string, options: TestEdgeOptions = {}): Promise<TestEdge> {
  const origin = await openScriptedOrigin(options.originTls);
  const clock = new ManualClock();
  const log = options.log ?? createLog('edge', { level: 'silent' });
  const metrics = createMetrics('');
  const deps = { log, metrics, clock };
  const edge = readConfig(folder, options.originUrl ?? origin.url, options);
  const untraced = openUpstream({ config: edge.upstream, clock, log, metrics });
  const upstream = options.tracer === undefined ? untraced : traceUpstream(untraced, options.tracer, systemClock);
  const cache = await openCache(edge.cache, {
    ...deps,
    randomName: randomUUID,
    ...(options.files && { files: options.files }),
  });
  const settable: { lease: LeaseVerdict; thumbOptions: ThumbOptions | undefined; rates: StatedRates | undefined } = {
    lease: 'yes',
    thumbOptions: undefined,
    rates: undefined,
  };
  const rates = createRateLimits({ config: edge.rateLimits, stated: () => settable.rates, clock, metrics });
  const engine = createEngine(
    edge,
    {
      gate: edge.access === 'off' ? null : wordGate,
      isEdge: (proof) => edge.access !== 'off' && proof === EDGE_PROOF,
      identity: { proof: EDGE_PROOF, edgeName: edge.name },
      cache,
      upstream,
      rates,
      signsLinks: () => false,
      thumbOptions: () => settable.thumbOptions,
      caughtUp: () => undefined,
      lease: () => settable.lease,
      flights: createFlights(() => edge.fill),
      absences: createAbsences(() => edge.fill, clock),
      policy: () => edge,
    },
    deps,
  );
  const pass = createPass({
    config: edge.pass,
    origins: upstream,
    originTls: readOriginTls(edge.upstream),
    mode: engine.mode,
    edgeName: edge.name,
    rates,
    onUnsafe: (answer) => invalidate(engine, answer),
    keep: (answer) => keepPosted(engine, answer),
    ...deps,
    clock: systemClock,
  });
  const tally = createTally();
  const outgoing = createOutgoing();
  const watch = createWatch({ keptMax: edge.operators.watchedMax, rules: () => edge.rules, clock: systemClock });
  const uses = createUseReports({ config: edge.uses, upstream, proof: () => EDGE_PROOF, random: () => 1, ...deps });
  const trustsPeer = createTrust(edge.trustedProxies);
  const exchange = {
    handle: (request: EdgeRequest, client: ClientSignal) => handle(engine, request, client),
    addressOf: createAddressOf(edge.trustedProxies),
    traceOf: (request: EdgeRequest) =>
      traceOf(
        (name) => request.header(name),
        options.trace ?? 'trusted',
        () => trustsPeer(request.sender().peer) || engine.isEdge(request.header('edge-authorization')),
        options.tracer?.begin,
      ),
    health: createHealth({
      cache,
      upstream,
      lease: { mayServe: () => settable.lease, state: () => leaseState(settable.lease) },
      ...deps,
    }),
    tally,
    traffic: createTraffic(metrics),
    watch,
    uses,
    outgoing,
    ...deps,
    requestLog: createEdgeRequestLog(
      withSpans({ write: () => undefined }, { tracer: options.tracer, clock: systemClock }),
      () => edge.rules,
    ),
    newRequestId: randomUUID,
  };
  const server = createServer({ ...exchange, pass, behind: null, links: null });
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    tls: edge.listen.tls,
    limits: { ...edge.listen.limits, closeWithinMs: 0 },
    clock: systemClock,
    log,
    onRequest: (request, response) => server.onRequest(request, response),
    onExpectation: (request, response) => server.onRequest(request, response),
    firstReader: (limits, waiting) => createFastlane(exchange, limits, waiting),
  });
  return {
    url: listener.url,
    listener,
    origin,
    engine,
    clock,
    tally,
    watch,
    uses,
    get lease() {
      return settable.lease;
    },
    set lease(verdict) {
      settable.lease = verdict;
    },
    get rates() {
      return settable.rates;
    },
    set rates(stated) {
      settable.rates = stated;
    },
    get thumbOptions() {
      return settable.thumbOptions;
    },
    set thumbOptions(thumbOptions) {
      settable.thumbOptions = thumbOptions;
    },
    async takeDown(id) {
      engine.absences.forget(id);
      engine.flights.breakOff(id);
      outgoing.breakOff(id);
      await cache.takeDown(id);
    },
    async counted(name, labels = '') {
      const { text } = await metrics.render();
      const line = text.split('\n').find((each) => each.startsWith(`${name}${labels} `));
      return line === undefined ? 0 : Number(line.split(' ')[1]);
    },
    async close() {
      watch.close();
      await listener.close();
      server.close();
      await engine.flights.close();
      await pass.close();
      await cache.close();
      await upstream.close();
      await origin.close();
    },
  };
}

function leaseState(verdict: LeaseVerdict): LeaseState {
  return { kind: verdict === 'yes' ? 'held' : 'lapsed', currentMsAgo: 0 };
}

function readConfig(
  folder: string,
  originUrl: string,
  { edge = [], limits = '', tls = '', upstream = '', cache = 'disk: { size: 0 }' }: TestEdgeOptions,
): EdgeConfig {
  const text = [
    'edge:',
    `  listen: { port: 0, limits: { ${limits} }${tls === '' ? '' : `, tls: { ${tls} }`} }`,
    `  cache: { folder: ${JSON.stringify(`${folder}/cache`)}, ${cache} }`,
    `  upstream: { url: "${originUrl}"${upstream === '' ? '' : `, ${upstream}`} }`,
    ...edge.map((line) => `  ${line}`),
  ];
  const outcome = parseConfig(text.join('\n'), { edge: edgeSection });
  if (outcome.kind === 'faulty') throw new Error(JSON.stringify(outcome.faults));
  return outcome.config.edge;
}

/** Tokens are words: `reader`, `uploader`, `unknown` (cannot be checked), or a signature of `good` in the query. */
export const wordGate: Gate = {
  open({ authorization, query }: Credentials): Grant {
    if (authorization === 'Bearer reader') return { kind: 'caller', caller: callerOf('all') };
    if (authorization === 'Bearer uploader') return { kind: 'caller', caller: callerOf('upload') };
    if (authorization === 'Bearer unknown') return { kind: 'unavailable', retryAfterMs: 1_500 };
    if (authorization !== undefined) return { kind: 'anonymous', refusal: 'token_signature' };
    const until = /(?:^|&)exp=(\d+)/.exec(query)?.[1];
    const expiresAt = until === undefined ? Number.MAX_SAFE_INTEGER : Number(until) * 1_000;
    if (query.includes('sig=good')) return { kind: 'link', expiresAt };
    return { kind: 'anonymous', refusal: 'none' };
  },
  probe: async () => undefined,
  issuers: () => ({}),
  renewLinks: () => undefined,
  close: async () => undefined,
};

function callerOf(scope: Caller['scope']): Caller {
  return { subject: 'tests', issuer: 'tests', roles: new Set(), scope, expiresAt: Number.MAX_SAFE_INTEGER };
}
