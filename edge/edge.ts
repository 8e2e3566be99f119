/**
 * The composition root: opens every part once, in the order in which they need
 * each other, and closes them in reverse. Nothing is left open by half a start.
 * Serves only after it has applied the takedowns that it missed, or has waited
 * as long for them as it may.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { AccessConfig } from '../src/access/config.js';
import { edgeProof } from '../src/access/edge-proof.js';
import { openGate } from '../src/access/gate.js';
import type { Gate } from '../src/access/grant.js';
import type { Deferred } from '../src/config/field.js';
import { invariant } from '../src/errors.js';
import { listen } from '../src/http/listen.js';
import { type MediaId, parseMediaId } from '../src/ids.js';
import { errorFields, type Log, type LogConfig } from '../src/log.js';
import type { ConfigSource, Parts, Running } from '../src/process.js';
import type { EdgeCache } from './cache/cache.js';
import { openCache } from './cache/open.js';
import { cacheStatusOf } from './cache-status.js';
import { type Capabilities, followCapabilities } from './capabilities.js';
import { type EdgeConfig, type EdgePolicy, POLICY_PATHS, policyOf } from './config.js';
import { createCounters } from './counters.js';
import { honoursRefresh } from './decide.js';
import type { Engine } from './engine.js';
import type { Landing } from './fill.js';
import { createFlights, type Flights } from './flight.js';
import { handle } from './handler.js';
import { createHealth } from './health.js';
import { invalidatedBy } from './invalidate.js';
import { type Follower, followJournal } from './journal/follow.js';
import { keysUnder } from './lookup.js';
import { openOps } from './ops/ops.js';
import { createTally, type Tally } from './ops/stats.js';
import { createPass, type Pass, type UnsafeAnswer } from './pass.js';
import { openReloading } from './reload.js';
import { createServer } from './serve.js';
import { createUncacheableMemory } from './uncacheable.js';
import { openUpstream, type Upstream } from './upstream.js';
import { createWarming } from './warming.js';

export interface EdgeSettings {
  readonly log: LogConfig;
  readonly access: Deferred<AccessConfig>;
  readonly edge: EdgeConfig;
}

/** Without a source it cannot be reloaded. */
export async function openEdge(
  settings: EdgeSettings,
  parts: Parts,
  source: ConfigSource<EdgeSettings> = { path: undefined, read: () => ({ kind: 'loaded', config: settings }) },
): Promise<Running> {
  const opened = createStack(parts.log);
  try {
    return await openAll(settings, parts, source, opened);
  } catch (thrown) {
    await opened.close();
    throw thrown;
  }
}

async function openAll(
  settings: EdgeSettings,
  parts: Parts,
  source: ConfigSource<EdgeSettings>,
  opened: Stack,
): Promise<Running> {
  const { clock, log, metrics } = parts;
  const { edge: config } = settings;
  const access = accessOf(settings);
  const policy = { current: policyOf(config) };
  const tally = createTally();

  const gate = access === null ? null : openGate({ config: access, clock, log, metrics });
  if (gate !== null) opened.add('gate', () => gate.close());
  const upstream = openUpstream({ config: config.upstream, clock, metrics });
  opened.add('upstream', () => upstream.close());
  const cache = await openCache(config.cache, { log, metrics, clock, randomName: randomUUID });
  opened.add('cache', () => cache.close());
  const flights = createFlights<Landing>(() => ({
    flightsMax: policy.current.fill.concurrentMax,
    waitersMax: policy.current.fill.waitersMax,
  }));
  opened.add('flights', () => flights.close());
  const follower = access === null ? null : await openFollower(config, access, { cache, upstream, flights }, parts);
  if (follower !== null) opened.add('journal', () => follower.close());
  const capabilities =
    access === null ? null : followCapabilities({ config: config.capabilities, upstream, clock, log });
  if (capabilities !== null) opened.add('capabilities', async () => capabilities.close());

  const engine = createEngine(
    config,
    { gate, capabilities, follower, cache, upstream, flights, access, policy },
    parts,
  );
  const pass = createPass({
    config: config.pass,
    originUrl: config.upstream.url,
    originCa: config.upstream.caFile === null ? null : readFileSync(config.upstream.caFile, 'utf8'),
    edgeName: config.name,
    onUnsafe: (answer) => invalidate(engine, cache, flights, answer, log),
    clock,
    log,
    metrics,
  });
  opened.add('pass', () => pass.close());

  await Promise.all([follower?.caughtUp, capabilities?.asked]);
  const lease = follower === null ? null : () => follower.lease.mayServe();
  const server = createServer({
    handle: (ask, client) => handle(engine, ask, client),
    health: createHealth({ cache, upstream, lease, clock, log, metrics }),
    pass,
    tally,
    clock,
    log,
    requestLog: settings.log.requests,
    newRequestId: randomUUID,
  });
  opened.add('requests', async () => server.close());
  const listener = await listen({
    ...config.listen,
    clock,
    log,
    onRequest: (request, response) => server.onRequest(request, response),
    onExpectation: (request, response) => server.onRequest(request, response),
  });
  opened.add('listener', () => listener.close());
  const operators = await openOperators(
    settings,
    { cache, follower, upstream, flights, pass, tally, policy },
    parts,
    source,
    opened,
  );
  return { urls: { media: listener.url, ...operators }, close: () => opened.close() };
}

interface OperatedParts {
  readonly cache: EdgeCache;
  readonly follower: Follower | null;
  readonly upstream: Upstream;
  readonly flights: Flights<Landing>;
  readonly pass: Pass;
  readonly tally: Tally;
  readonly policy: { current: EdgePolicy };
}

/** What operators see and may change, and where. */
async function openOperators(
  settings: EdgeSettings,
  { cache, follower, upstream, flights, pass, tally, policy }: OperatedParts,
  { clock, log, metrics }: Parts,
  source: ConfigSource<EdgeSettings>,
  opened: Stack,
): Promise<{ readonly operators?: string }> {
  const { edge: config } = settings;
  const reloading = openReloading({
    source,
    config: settings,
    policyPaths: POLICY_PATHS,
    apply: ({ edge }) => {
      policy.current = policyOf(edge);
    },
    clock,
    log,
  });
  opened.add('reloading', async () => reloading.close());
  if (!config.operators.enabled) return {};
  const ops = await openOps({
    config: config.operators,
    limits: config.listen.limits,
    sources: {
      edgeName: config.name,
      startedAt: clock.now(),
      clock,
      tally,
      cache: () => cache.stats(),
      journal: () => follower?.state() ?? null,
      lease: () => (follower === null ? null : { verdict: follower.lease.mayServe(), state: follower.lease.state() }),
      upstream: () => upstream.stats(),
      passing: () => pass.active,
      policy: () => reloading.state(),
    },
    purge: {
      cache,
      onTakedown: (id) => flights.breakOff(id),
      onPurge: (which) => flights.breakOffWhere((key) => 'all' in which || key.startsWith(which.prefix)),
    },
    reload: () => reloading.reload(),
    clock,
    log,
    metrics,
  });
  opened.add('operators', () => ops.close());
  return { operators: ops.url };
}

/** Null in generic mode. `check` of main.ts has told the faults there may be. */
function accessOf({ access, edge }: EdgeSettings): AccessConfig | null {
  if (edge.access === 'off') return null;
  invariant(access.kind === 'read', 'a media edge starts with an access section that could be read');
  return access.value;
}

function openFollower(
  config: EdgeConfig,
  access: AccessConfig,
  { cache, upstream, flights }: { cache: EdgeCache; upstream: Upstream; flights: Flights<Landing> },
  parts: Parts,
): Promise<Follower> {
  return followJournal({
    config: config.journal,
    edgeName: config.name,
    instance: randomUUID(),
    open: (request, signal) => upstream.converse(request, signal),
    proof: edgeProof(access.edgeSecret),
    cache,
    onTakedown: (id) => flights.breakOff(id),
    onPurgeAll: () => flights.breakOffWhere(() => true),
    folder: `${config.cache.folder}-journal`,
    random: Math.random,
    ...parts,
  });
}

interface EngineParts {
  readonly gate: Gate | null;
  readonly capabilities: Capabilities | null;
  readonly follower: Follower | null;
  readonly cache: EdgeCache;
  readonly upstream: Upstream;
  readonly flights: Flights<Landing>;
  readonly access: AccessConfig | null;
  readonly policy: { readonly current: EdgePolicy };
}

function createEngine(config: EdgeConfig, open: EngineParts, { clock, log, metrics }: Parts): Engine {
  const { policy, access, gate, follower, capabilities, flights, cache, upstream } = open;
  const mode = config.access;
  const aims = { access: mode, sharedPaths: new Set(config.sharedPaths) };
  const aloneLimits = (): { entriesMax: number; ttlMs: number } => ({
    entriesMax: policy.current.fill.aloneMax,
    ttlMs: policy.current.fill.aloneMs,
  });
  return {
    mode,
    gate,
    aims,
    menu: () => capabilities?.menu,
    lease: () => follower?.lease.mayServe() ?? 'yes',
    fills: {
      cache,
      upstream,
      uncacheable: createUncacheableMemory(aloneLimits, clock),
      warming: createWarming(() => policy.current.warm, metrics),
      identity: { proof: access === null ? '' : edgeProof(access.edgeSecret), edgeName: config.name },
      storing: { mode, freshness: config.freshness, parts: false },
      policy: () => policy.current,
      counters: createCounters(metrics),
      clock,
      log,
    },
    flights,
    deciding: {
      honoursRefresh: honoursRefresh(config.reuse, mode),
      targetedFields: config.freshness.targetedFields,
    },
    policy: () => policy.current,
    responding: () => ({ rangesMax: policy.current.rangesMax, edgeName: config.name, newBoundary: randomUUID }),
    cacheStatus: cacheStatusOf(config.name),
    clock,
    log,
  };
}

/**
 * A change that went through this edge is not waited for: what it touches is
 * forgotten before the client hears of it (RFC 9111 4.4). Never throws.
 */
async function invalidate(
  engine: Engine,
  cache: EdgeCache,
  flights: Flights<Landing>,
  answer: UnsafeAnswer,
  log: Log,
): Promise<void> {
  try {
    const id = engine.mode === 'media' ? removedMedia(answer) : undefined;
    if (id !== undefined) {
      flights.breakOff(id);
      await cache.takeDown(id);
      return;
    }
    for (const primaryKey of targetsOf(answer)) {
      flights.breakOffWhere((held) => held === primaryKey);
      for (const key of keysUnder(cache, primaryKey)) cache.drop(key, 'invalidated');
      engine.fills.uncacheable.forget(primaryKey);
    }
  } catch (thrown) {
    log.error(errorFields(thrown), 'what a change made worthless could not be dropped');
  }
}

/** DELETE of media, quarantine and its end: the journal will say so too, but not sooner. */
function removedMedia({ method, target, status }: UnsafeAnswer): MediaId | undefined {
  const match = /^\/v1\/media\/([^/?]+)(\/quarantine)?(?:\?|$)/.exec(target);
  const removes = method === 'DELETE' || (method === 'POST' && match?.[2] !== undefined);
  return removes && status < 300 ? parseMediaId(match?.[1] ?? '') : undefined;
}

/** Nothing leaves the one origin that is behind an edge, so any base will do. */
const BASE = 'http://origin.invalid';

function targetsOf({ method, target, status, location, contentLocation }: UnsafeAnswer): readonly string[] {
  const uris = invalidatedBy({ method, uri: BASE + target, status, location, contentLocation });
  return uris.map((uri) => uri.slice(BASE.length));
}

interface Stack {
  add(name: string, close: () => Promise<void>): void;
  /** In reverse order; may be called twice. A part that fails to close holds up nobody. */
  close(): Promise<void>;
}

function createStack(log: Log): Stack {
  const parts: { readonly name: string; readonly close: () => Promise<void> }[] = [];
  let closing: Promise<void> | undefined;
  async function closeAll(): Promise<void> {
    for (const { name, close } of parts.toReversed()) {
      try {
        await close();
      } catch (thrown) {
        log.error({ part: name, ...errorFields(thrown) }, 'a part did not close');
      }
    }
  }
  return {
    add: (name, close) => void parts.push({ name, close }),
    close: () => (closing ??= closeAll()),
  };
}
