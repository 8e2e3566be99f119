/**
 * The composition root of the edge: opens every component once, each after those
 * that it needs, and closes them in reverse. A start that fails closes what it
 * had opened. The edge listens from the first moment; until the takedowns that it
 * missed are applied, the lease says what may be answered.
 */

import { randomUUID } from 'node:crypto';
import type { AccessConfig } from '../src/access/config.js';
import type { Clock } from '../src/clock.js';
import { steadyClock } from '../src/clock.js';
import type { Deferred } from '../src/config/field.js';
import { livingConfig } from '../src/config/living.js';
import { Fault, invariant } from '../src/errors.js';
import { createAddressOf, createTrust } from '../src/http/address.js';
import type { JournalPosition } from '../src/journal/entry.js';
import { recentTakedowns } from '../src/journal/recent.js';
import { type Closer, openOrClose } from '../src/lifecycle.js';
import { errorFields, type LogConfig } from '../src/log.js';
import { createRequestLog } from '../src/logs/request-line.js';
import type { ConfigSource, ProcessDeps, Running } from '../src/process.js';
import { createReload, openReloading, type ReloadSteps } from '../src/reload.js';
import { countRefusals } from '../src/server/guard.js';
import { type Listener, listen } from '../src/server/listen.js';
import { traceOf } from '../src/tracing/context.js';
import { withSpans } from '../src/tracing/tracer.js';
import { watchFile } from '../src/watch.js';
import { EDGE_PROOF } from '../src/wire.js';
import { openCache } from './cache/open.js';
import type { EdgeConfig } from './config.js';
import { createEngine } from './create-engine.js';
import type { CacheKey, Entry } from './entry.js';
import { createAbsences } from './fetch/absences.js';
import type { Engine, EngineDeps } from './fetch/engine.js';
import { createFlights } from './fetch/flight.js';
import type { FetchResult } from './fetch/result.js';
import { applyRulesTo } from './fetch/rules.js';
import { handle } from './handler.js';
import { createHealth } from './health.js';
import { createHeldRules } from './held-rules.js';
import type { AppliedJournal } from './journal/applied-journal.js';
import type { Behind } from './journal/behind.js';
import { fenceEdge } from './journal/fence.js';
import { createLiveSettings } from './live-settings.js';
import { type MediaComponents, type MediaNeeds, openMedia } from './media.js';
import { type ExplainOrder, type Explanation, explain } from './ops/explain.js';
import { type OpsDeps, openOps } from './ops/ops.js';
import { type PurgeDeps, purge } from './ops/purge.js';
import { createTally, type Tally } from './ops/tally.js';
import { createTraffic, type Traffic } from './ops/traffic.js';
import { createWatch, type Watch } from './ops/watch.js';
import { watchingOf } from './ops/watching.js';
import { pageOf } from './page.js';
import { invalidate } from './pass/invalidate-after.js';
import { keepPosted } from './pass/keep-post.js';
import { createPass, type Pass } from './pass/pass.js';
import { createRateLimits, type RateLimits, type StatedRates } from './rate-limits.js';
import type { ServerDeps } from './server/exchange.js';
import { createFastlane } from './server/fastlane/fastlane.js';
import { createServer } from './server/node-http.js';
import { createOutgoing, type Outgoing } from './server/outgoing.js';
import { createEdgeRequestLog } from './server/request-log.js';
import { openTrace, type Trace, traced } from './trace/trace.js';
import { fenceUpstream } from './upstream/fenced.js';
import { readOriginTls } from './upstream/tls.js';
import { traceUpstream } from './upstream/traced.js';
import { openUpstream, type Upstream } from './upstream/upstream.js';
import { NO_USE_REPORTS } from './use-reports.js';
import type { Worker } from './workers/worker.js';

export interface EdgeSettings {
  readonly log: LogConfig;
  readonly access: Deferred<AccessConfig>;
  readonly edge: EdgeConfig;
}

/** Without a source the settings cannot be reloaded. `worker`: this process is one of several of the same edge. */
export async function openEdge(
  settings: EdgeSettings,
  deps: ProcessDeps,
  source: ConfigSource<EdgeSettings> = {
    path: undefined,
    sections: {},
    files: () => [],
    read: () => ({ kind: 'loaded', config: settings }),
  },
  worker: Worker | null = null,
): Promise<Running> {
  return await openOrClose(deps.log, (opened) => openComponents(settings, deps, source, worker, opened));
}

async function openComponents(
  started: EdgeSettings,
  given: ProcessDeps,
  source: ConfigSource<EdgeSettings>,
  worker: Worker | null,
  opened: Closer,
): Promise<Running> {
  // What is stored must not live longer because the clock was set back. Credentials are judged by the wall clock.
  const deps = { ...given, clock: steadyClock(given.clock) };
  const { clock, log, metrics } = deps;
  const living = livingConfig(source.sections, started);
  const { edge: config, log: logging } = living.config;
  const access = accessOf(living.config);
  const live = createLiveSettings(access);
  const tally = createTally();
  const outgoing = createOutgoing();
  const watched = { keptMax: config.operators.watchedMax, rules: () => config.rules, clock };
  const watch = opened.add('watch', createWatch(watched));

  // An answer says that the origin can be reached, also by the journal.
  const onAnswered = (): void => media?.follower.originAnswered();
  const toOrigins = { config: config.upstream, edgeName: config.name, onAnswered, clock, log, metrics };
  const upstream = opened.add('upstream', openUpstream(toOrigins));
  const mayPromote = (entry: Entry): boolean => applyRulesTo(entry, config.rules).tiers.memory;
  const ownsDisk = (primaryKey: string): boolean => worker === null || worker.owns(primaryKey);
  const trace = await openTraceOf(config, deps, opened);
  const onDropped = (key: CacheKey | 'all'): void => trace?.dropped(key);
  const held = createHeldRules(() => config.rules, { mode: config.access, freshness: config.freshness });
  const caching = { log, metrics, clock, randomName: randomUUID, mayPromote, held, ownsDisk, onDropped };
  const cache = await openCache(config.cache, caching);
  opened.add('cache', cache);
  const flights = opened.add(
    'flights',
    createFlights<FetchResult>(() => config.fill),
  );
  const absences = createAbsences(() => config.fill, clock);
  const shared = { upstream, cache, flights, absences, outgoing, live };
  let media: MediaComponents | null = null;
  if (access !== null) media = await openMedia(config, access, shared, { ...deps, wallClock: given.clock }, opened);
  const stated = (): StatedRates | undefined => media?.capabilities.rates;
  const rates = createRateLimits({ config: config.rateLimits, stated, clock, metrics });
  const fenced = media === null ? upstream : fenceTo(upstream, media.behind.applied);
  const routed = worker === null ? fenced : routeToOwners(worker, config, fenced, media, deps, opened);
  const fetching = deps.tracer === undefined ? routed : traceUpstream(routed, deps.tracer, clock);
  const onWarmed = (entry: Entry): void => trace?.warmed(entry);
  const engine = createEngine(
    config,
    { ...engineDepsOf(config, { ...shared, upstream: fetching }, media, rates, clock), onWarmed },
    deps,
  );
  const pass = opened.add('pass', passTo(config, { engine, upstream, worker }, onAnswered, deps));
  const traffic = createTraffic(metrics);
  const serving = { engine, upstream, media, pass, tally, traffic, watch, outgoing, logging, worker, trace };
  const listener = await listenToClients(config, serving, deps, opened);
  const apply = (): void => {
    live.renew(access);
    if (access !== null) media?.gate.renewLinks(access.links.secrets);
    media?.behind.recheckSecrets();
    listener.renewCertificate();
    void cache.renew().catch((thrown: unknown) => log.error(errorFields(thrown), 'the cache was not resized'));
  };
  const steps = createReload({ source, started, living, apply, clock, log });
  // The parent has its workers reload all together.
  const reloading = worker === null ? opened.add('reloading', openReloading({ steps, source, clock, log })) : undefined;
  const close = (): Promise<void> => opened.close();
  const control = controlOf(config, { engine, media, pass, tally, traffic, steps }, deps);
  const explained = (order: ExplainOrder): Promise<Explanation> => explain(engine, order);
  worker?.serve({
    ...control,
    reload: steps,
    invalidate: (answer) => invalidate(engine, answer),
    explain: explained,
    watch,
    metrics,
  });
  if (!config.operators.enabled || reloading === undefined) return { urls: { media: listener.url }, close };
  const watching = watchingOf(watch, explained);
  const ops = await openOps({
    ...control,
    reload: () => reloading.reload(),
    watching,
    config: config.operators,
    limits: config.listen.limits,
    ...deps,
  });
  opened.add('operators', ops);
  return { urls: { media: listener.url, operators: ops.url }, close };
}

/** An edge that cannot record serves all the same. */
async function openTraceOf(
  { trace: config, name: edgeName, freshness }: EdgeConfig,
  { clock, log, metrics }: ProcessDeps,
  opened: Closer,
): Promise<Trace | null> {
  if (!config.enabled) return null;
  try {
    return opened.add('trace', await openTrace({ config, edgeName, freshness, clock, log, metrics }));
  } catch (thrown) {
    log.error(errorFields(thrown), 'requests are not recorded: edge.trace.folder cannot be used');
    return null;
  }
}

/** Null in generic mode. `check` in main.ts has reported the faults of a section that could not be read. */
function accessOf({ access, edge }: EdgeSettings): AccessConfig | null {
  if (edge.access === 'off') return null;
  invariant(access.kind === 'read', 'a media edge starts with an access section that could be read');
  return access.value;
}

function engineDepsOf(
  config: EdgeConfig,
  { upstream, cache, flights, absences, live }: MediaNeeds,
  media: MediaComponents | null,
  rates: RateLimits,
  clock: Clock,
): EngineDeps {
  const identity = {
    edgeName: config.name,
    get proof() {
      return live.proof;
    },
  };
  return {
    gate: media === null ? null : media.gate,
    isEdge: (proof) => live.isEdge(proof),
    identity,
    cache,
    upstream,
    flights,
    absences,
    rates,
    signsLinks: () => media?.links.ready() ?? false,
    thumbOptions: () => media?.capabilities.thumbOptions,
    caughtUp: (request, signal) =>
      media === null ? undefined : fenceEdge(media.behind.applied, request, clock, signal),
    lease: () => (media === null ? 'yes' : media.follower.lease.mayServe()),
    policy: () => config,
  };
}

function passTo(
  config: EdgeConfig,
  { engine, upstream, worker }: Pick<ClientDeps, 'engine' | 'upstream' | 'worker'>,
  onAnswered: () => void,
  { clock, log, metrics }: ProcessDeps,
): Pass {
  return createPass({
    config: config.pass,
    origins: upstream,
    originTls: readOriginTls(config.upstream),
    mode: engine.mode,
    rates: engine.rates,
    edgeName: config.name,
    async onUnsafe(answer) {
      await invalidate(engine, answer);
      await worker?.invalidateAtOthers(answer);
    },
    keep: (answer) => keepPosted(engine, answer),
    onAnswered,
    clock,
    log,
    metrics,
  });
}

interface ClientDeps {
  readonly engine: Engine;
  /** To the origins themselves. */
  readonly upstream: Upstream;
  readonly media: MediaComponents | null;
  readonly pass: Pass;
  readonly tally: Tally;
  readonly traffic: Traffic;
  readonly watch: Watch;
  readonly outgoing: Outgoing;
  readonly logging: LogConfig;
  readonly worker: Worker | null;
  readonly trace: Trace | null;
}

/** The clients' listener: plain requests are read by the fast lane, all others by node:http. */
async function listenToClients(
  config: EdgeConfig,
  { engine, upstream, media, pass, tally, traffic, watch, outgoing, logging, worker, trace }: ClientDeps,
  { clock, log, metrics, tracer }: ProcessDeps,
  opened: Closer,
): Promise<Listener> {
  const { cache } = engine;
  const lease = media === null ? null : media.follower.lease;
  const trustsPeer = createTrust(config.trustedProxies);
  const serverDeps: ServerDeps = {
    handle: (request, client) => handle(engine, request, client),
    addressOf: createAddressOf(config.trustedProxies),
    traceOf: (request) =>
      traceOf(
        (name) => request.header(name),
        logging.trace,
        () => trustsPeer(request.sender().peer) || engine.isEdge(request.header(EDGE_PROOF)),
        tracer?.begin,
      ),
    health: createHealth({ cache, upstream, lease, clock, log, metrics }),
    tally,
    traffic: traced(traffic, trace),
    watch,
    uses: media === null ? NO_USE_REPORTS : media.useReports,
    outgoing,
    clock,
    log,
    requestLog: createEdgeRequestLog(
      withSpans(
        createRequestLog({ name: 'edge', config: logging, clock, write: (line) => log.lines(line, 'requests') }),
        { tracer, clock },
      ),
      () => config.rules,
    ),
    newRequestId: randomUUID,
  };
  const applied = media?.behind.applied ?? null;
  await worker?.listenToPeers(
    { ...serverDeps, pass, behind: null, links: null },
    applied,
    config.listen.limits,
    opened,
  );
  const behind = worker === null ? (media?.behind ?? null) : NO_EDGES_BEHIND;
  const server = createServer({ ...serverDeps, pass, behind, links: media?.links ?? null });
  opened.add('requests', server);
  const page = media === null ? undefined : pageOf(process.env);
  const listener = await listen({
    ...config.listen,
    reusePort: worker !== null && config.listen.port !== 0,
    clock,
    log,
    onRequest(request, response) {
      if (page?.takes(request) === true) page.handle(request, response);
      else server.onRequest(request, response);
    },
    onExpectation: (request, response) => server.onRequest(request, response),
    onRefused: countRefusals(metrics),
    firstReader: (limits, waiting) => createFastlane(serverDeps, limits, waiting),
  });
  opened.add('listener', {
    async close() {
      const closed = listener.close();
      // The streams to edges do not end by themselves.
      await media?.behind.close();
      await closed;
    },
  });
  watchCertificate(config, listener, { clock, log }, opened);
  return listener;
}

/** Uses a renewed certificate as soon as its files change. */
function watchCertificate(
  { listen }: EdgeConfig,
  listener: Listener,
  { clock, log }: Pick<ProcessDeps, 'clock' | 'log'>,
  opened: Closer,
): void {
  const { certificateFile, keyFile } = listen.tls;
  for (const path of [certificateFile, keyFile]) {
    if (path === null) continue;
    const stop = watchFile(
      path,
      () => listener.renewCertificate(),
      clock,
      (trouble) => log.warn(errorFields(trouble), 'the certificate cannot be watched; SIGHUP still reads it again'),
    );
    opened.add('certificate watch', { close: stop });
  }
}

/** The journal and its confirmations belong together, and connections of one edge would reach several workers. */
const NO_EDGES_BEHIND: Pick<Behind, 'handle'> = {
  async handle() {
    throw new Fault('not_found', 'An edge with several workers has no edges behind it.');
  },
};

/** What another worker owns is fetched from that worker. */
function routeToOwners(
  worker: Worker,
  config: EdgeConfig,
  upstream: Upstream,
  media: MediaComponents | null,
  deps: ProcessDeps,
  opened: Closer,
): Upstream {
  const peers = opened.add('other workers', worker.openPeers(config.upstream, deps));
  return peers.route(upstream, () => (media === null ? null : positionOf(media.behind.applied)));
}

function fenceTo(upstream: Upstream, applied: AppliedJournal): Upstream {
  return fenceUpstream(upstream, () => positionOf(applied));
}

function positionOf(applied: AppliedJournal): JournalPosition | undefined {
  const seq = applied.newest();
  return applied.name === '' ? undefined : { journal: applied.name, seq, mark: applied.markOf(seq) ?? null };
}

interface OperatorDeps {
  readonly engine: Engine;
  readonly media: MediaComponents | null;
  readonly pass: Pass;
  readonly tally: Tally;
  readonly traffic: Traffic;
  readonly steps: ReloadSteps;
}

/** What operators see and purge. */
function controlOf(
  config: EdgeConfig,
  { engine, media, pass, tally, traffic, steps }: OperatorDeps,
  { clock }: ProcessDeps,
): Pick<OpsDeps, 'sources' | 'purge' | 'takedowns'> {
  const { cache, upstream, flights, absences } = engine;
  const lease = media?.follower.lease;
  const hooks: PurgeDeps = {
    cache,
    onTakedown(id) {
      absences.forget(id);
      flights.breakOff(id);
    },
    onPurge(which) {
      absences.clear();
      flights.breakOffWhere((key) => 'all' in which || key.startsWith(which.prefix));
    },
  };
  return {
    sources: {
      edgeName: config.name,
      startedAt: clock.now(),
      clock,
      tally,
      cache: () => cache.stats(),
      journal: () => media?.follower.state() ?? null,
      lease: () => (lease === undefined ? null : { verdict: lease.mayServe(), state: lease.state() }),
      upstream: () => upstream.stats(),
      passing: () => pass.active,
      policy: () => steps.state(),
      firstByte: () => traffic.firstByte(),
    },
    purge: (order) => purge(order, hooks),
    takedowns: async () =>
      media === null ? null : await recentTakedowns(media.behind.applied, media.behind.positions()),
  };
}
