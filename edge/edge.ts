/**
 * The composition root: opens every part once, in the order in which they need
 * each other, and closes them in reverse. Nothing is left open by half a start.
 * Listens from the first moment: until the takedowns that it missed are applied,
 * the lease says what may be answered.
 */
import { randomUUID } from 'node:crypto';
import type { AccessConfig } from '../src/access/config.js';
import { edgeProof } from '../src/access/edge-proof.js';
import { openGate } from '../src/access/gate.js';
import type { Gate } from '../src/access/grant.js';
import type { Deferred } from '../src/config/field.js';
import { invariant } from '../src/errors.js';
import { createAddressOf } from '../src/http/address.js';
import { type Closer, openOrClose } from '../src/lifecycle.js';
import { errorFields, type LogConfig } from '../src/log.js';
import type { ConfigSource, ProcessDeps, Running } from '../src/process.js';
import { openReloading } from '../src/reload.js';
import { countRefusals } from '../src/server/guard.js';
import { type Listener, listen } from '../src/server/listen.js';
import { watchFile } from '../src/watch.js';
import { openCache } from './cache/open.js';
import { type Capabilities, followCapabilities } from './capabilities.js';
import { type EdgeConfig, type EdgePolicy, POLICY_PATHS, policyOf } from './config.js';
import { createEngine } from './create-engine.js';
import type { Entry } from './entry.js';
import type { Engine } from './fetch/engine.js';
import { mayLieInMemory } from './fetch/rules.js';
import { handle } from './handler.js';
import { createHealth } from './health.js';
import { type Follower, followJournal } from './journal/follow.js';
import { openOps } from './ops/ops.js';
import { createTally, type Tally } from './ops/tally.js';
import { invalidate } from './pass/invalidate-after.js';
import { keepPosted } from './pass/keep-post.js';
import { createPass, type Pass } from './pass/pass.js';
import type { ClientSignal, EdgeRequest } from './request.js';
import { createFastlane } from './server/fastlane/fastlane.js';
import { createServer } from './server/node-http.js';
import { createOutgoing, type Outgoing } from './server/outgoing.js';
import { createRequestLog } from './server/request-log.js';
import { readOriginTls } from './upstream/tls.js';
import { openUpstream, type Upstream } from './upstream/upstream.js';
import { createUseReports, NO_USE_REPORTS, type UseReports } from './use-reports.js';

export interface EdgeSettings {
  readonly log: LogConfig;
  readonly access: Deferred<AccessConfig>;
  readonly edge: EdgeConfig;
}

/** Without a source it cannot be reloaded. */
export async function openEdge(
  settings: EdgeSettings,
  deps: ProcessDeps,
  source: ConfigSource<EdgeSettings> = {
    path: undefined,
    files: () => [],
    read: () => ({ kind: 'loaded', config: settings }),
  },
): Promise<Running> {
  return await openOrClose(deps.log, (opened) => openComponents(settings, deps, source, opened));
}

async function openComponents(
  settings: EdgeSettings,
  deps: ProcessDeps,
  source: ConfigSource<EdgeSettings>,
  opened: Closer,
): Promise<Running> {
  const { clock, log, metrics } = deps;
  const { edge: config } = settings;
  const access = accessOf(settings);
  const policy = { current: policyOf(config) };
  const logging = { ...settings.log };
  const tally = createTally();
  const outgoing = createOutgoing();

  const credential = createCredential(access);
  const upstream = openUpstream({ config: config.upstream, clock, log, metrics });
  opened.add('upstream', upstream);
  const mayPromote = (entry: Entry): boolean => mayLieInMemory(policy.current.rules, entry);
  const cache = await openCache(config.cache, { log, metrics, clock, randomName: randomUUID, mayPromote });
  opened.add('cache', cache);
  const media: { part?: MediaParts } = {};
  const engine = createEngine(
    config,
    {
      gate: access === null ? null : openGateFor(access, deps, opened),
      identity: {
        edgeName: config.name,
        get proof() {
          return credential.proof();
        },
      },
      cache,
      upstream,
      thumbOptions: () => media.part?.capabilities.thumbOptions,
      lease: () => (access === null ? 'yes' : (media.part?.follower.lease.mayServe() ?? 'refuse')),
      policy,
    },
    deps,
  );
  opened.add('flights', engine.flights);
  if (access !== null)
    media.part = await openMediaParts(config, { engine, upstream, outgoing, credential }, deps, opened);
  const pass = createPass({
    config: config.pass,
    originUrl: config.upstream.url,
    originTls: readOriginTls(config.upstream),
    edgeName: config.name,
    onUnsafe: (answer) => invalidate(engine, answer),
    keep: (answer) => keepPosted(engine, answer),
    clock,
    log,
    metrics,
  });
  opened.add('pass', pass);

  const exchange = {
    handle: (ask: EdgeRequest, client: ClientSignal) => handle(engine, ask, client),
    health: createHealth({ cache, upstream, lease: media.part?.follower.lease ?? null, clock, log, metrics }),
    tally,
    uses: media.part?.uses ?? NO_USE_REPORTS,
    outgoing,
    clock,
    log,
    requestLog: createRequestLog('edge', logging, clock),
    newRequestId: randomUUID,
  };
  const server = createServer({ ...exchange, pass, addressOf: createAddressOf(config.trustedProxies) });
  opened.add('requests', server);
  const listener = await listen({
    ...config.listen,
    clock,
    log,
    onRequest: (request, response) => server.onRequest(request, response),
    onExpectation: (request, response) => server.onRequest(request, response),
    onRefused: countRefusals(metrics),
    firstReader: (limits, waiting) => createFastlane(exchange, limits, waiting),
  });
  opened.add('listener', listener);
  watchCertificate(config, listener, deps, opened);
  const follower = media.part?.follower ?? null;
  const operators = await openOperators(
    settings,
    { engine, follower, pass, tally, policy, logging, listener, credential },
    deps,
    source,
    opened,
  );
  return { urls: { media: listener.url, ...operators }, close: () => opened.close() };
}

interface OperatedParts {
  readonly engine: Engine;
  readonly follower: Follower | null;
  readonly pass: Pass;
  readonly tally: Tally;
  readonly policy: { current: EdgePolicy };
  /** What of it may change. */
  readonly logging: { requests: LogConfig['requests'] };
  readonly listener: Listener;
  readonly credential: Credential;
}

/** A renewed certificate needs nobody to tell of it. */
function watchCertificate(
  { listen }: EdgeConfig,
  listener: Listener,
  { clock, log }: ProcessDeps,
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

/** What operators see and may change, and where. */
async function openOperators(
  settings: EdgeSettings,
  { engine, follower, pass, tally, policy, logging, listener, credential }: OperatedParts,
  { clock, log, metrics }: ProcessDeps,
  source: ConfigSource<EdgeSettings>,
  opened: Closer,
): Promise<{ readonly operators?: string }> {
  const { edge: config } = settings;
  const { flights } = engine;
  const { cache, upstream } = engine;
  const reloading = openReloading({
    source,
    config: settings,
    livePaths: [...POLICY_PATHS, ...SECRET_PATHS, 'log.requests'],
    apply(changed) {
      const access = accessOf(changed);
      policy.current = policyOf(changed.edge);
      logging.requests = changed.log.requests;
      credential.renew(access);
      if (access !== null) engine.gate?.renewLinks(access.links.secrets);
      listener.renewCertificate();
    },
    clock,
    log,
  });
  opened.add('reloading', reloading);
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
  opened.add('operators', ops);
  return { operators: ops.url };
}

/** Null in generic mode. `check` of main.ts has told the faults there may be. */
function accessOf({ access, edge }: EdgeSettings): AccessConfig | null {
  if (edge.access === 'off') return null;
  invariant(access.kind === 'read', 'a media edge starts with an access section that could be read');
  return access.value;
}

/** By what this edge proves itself to the origin now. */
interface Credential {
  proof(): string;
  renew(access: AccessConfig | null): void;
}

/** Where the secrets stand that may change while the edge runs. What it accepts of others is the origin's affair. */
const SECRET_PATHS = ['access.value.edgeSecret', 'access.value.edgeSecretsAccepted', 'access.value.links.secrets'];

function createCredential(access: AccessConfig | null): Credential {
  const proofOf = (config: AccessConfig | null): string => (config === null ? '' : edgeProof(config.edgeSecret));
  let current = proofOf(access);
  return {
    proof: () => current,
    renew(config) {
      current = proofOf(config);
    },
  };
}

function openGateFor(config: AccessConfig, deps: ProcessDeps, opened: Closer): Gate {
  const gate = openGate({ config, ...deps });
  opened.add('gate', gate);
  return gate;
}

/** What only an edge of the media service has. */
interface MediaParts {
  readonly follower: Follower;
  readonly capabilities: Capabilities;
  readonly uses: UseReports;
}

interface MediaNeeds {
  readonly engine: Engine;
  readonly upstream: Upstream;
  readonly outgoing: Outgoing;
  readonly credential: Credential;
}

async function openMediaParts(
  config: EdgeConfig,
  { engine, upstream, outgoing, credential }: MediaNeeds,
  deps: ProcessDeps,
  opened: Closer,
): Promise<MediaParts> {
  const { flights, cache } = engine;
  const proof = (): string => credential.proof();
  const uses = createUseReports({ config: config.uses, upstream, proof, random: Math.random, ...deps });
  opened.add('uses', uses);
  const follower = await followJournal({
    config: config.journal,
    edgeName: config.name,
    instance: randomUUID(),
    open: (request, signal) => upstream.fetchOwn(request, signal),
    proof,
    cache,
    onTakedown(id) {
      flights.breakOff(id);
      outgoing.breakOff(id);
    },
    onPurgeAll() {
      flights.breakOffWhere(() => true);
      outgoing.breakOffAll();
    },
    onUseReportsWanted: (everyMs) => uses.want(everyMs),
    folder: `${config.cache.folder}-journal`,
    random: Math.random,
    ...deps,
  });
  opened.add('journal', follower);
  const capabilities = followCapabilities({ config: config.capabilities, upstream, ...deps });
  opened.add('capabilities', capabilities);
  return { follower, capabilities, uses };
}
