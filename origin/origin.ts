/**
 * The composition root: opens every part once, in the order in which they need
 * each other, and closes them in reverse. Nothing is left open by half a start.
 */
import { randomUUID } from 'node:crypto';
import type { AccessConfig } from '../src/access/config.js';
import { openGate } from '../src/access/gate.js';
import { createAddressOf } from '../src/http/address.js';
import { createIdSource } from '../src/ids.js';
import { type Closer, openOrClose } from '../src/lifecycle.js';
import type { LogConfig } from '../src/log.js';
import type { ConfigSource, ProcessDeps, Running } from '../src/process.js';
import { openReloading } from '../src/reload.js';
import { countRefusals, type GuardReason } from '../src/server/guard.js';
import { listen } from '../src/server/listen.js';
import { operatorRoutes } from './api/operators.js';
import { originRoutes, type RouteDeps } from './api/routes.js';
import { createWellKnown } from './api/well-known.js';
import { openAuditLog } from './audit.js';
import { createHashLocks } from './blobs/hash-locks.js';
import { openBlobStore } from './blobs/open.js';
import type { OriginConfig } from './config.js';
import { createJournalStream } from './edges/journal-stream.js';
import { createEdgeRoutes } from './edges/routes.js';
import { createUseReports } from './edges/use-reports.js';
import { createHealth } from './health.js';
import { createAdmissions } from './ingest/admit.js';
import { openRescan } from './ingest/rescan.js';
import { openResumableUploads } from './ingest/resumable-uploads.js';
import { createScanner } from './ingest/scan.js';
import { createLiveSettings, LIVE_PATHS } from './live-settings.js';
import { openMetaStore } from './meta/lmdb.js';
import { createQuotas } from './quota.js';
import { createRateLimits, NO_RATE_LIMITS } from './server/rate-limits.js';
import { createServer, type OriginServer, requestCounts } from './server/server.js';
import { openThumbs } from './thumbs/engine.js';
import { thumbOptionsOf } from './thumbs/plan.js';
import { localMarks } from './upkeep/scrub.js';
import { openSweeper } from './upkeep/sweeper.js';
import { uploadCounts } from './upload.js';

export interface OriginSettings {
  readonly log: LogConfig;
  readonly access: AccessConfig;
  readonly origin: OriginConfig;
}

/** Without a source it cannot be reloaded. */
export async function openOrigin(
  settings: OriginSettings,
  deps: ProcessDeps,
  source?: ConfigSource<OriginSettings>,
): Promise<Running> {
  return await openOrClose(deps.log, (opened) => openComponents(settings, deps, source, opened));
}

async function openComponents(
  settings: OriginSettings,
  deps: ProcessDeps,
  source: ConfigSource<OriginSettings> | undefined,
  opened: Closer,
): Promise<Running> {
  const { clock, log, metrics } = deps;
  const { access, origin: config } = settings;
  const { retention: rules, quota } = config;

  const meta = await openMetaStore(config.meta, { clock, log, randomName: randomUUID });
  opened.add('metadata', meta);
  const blobs = await openBlobStore(config.blobs, deps);
  opened.add('blobs', blobs);
  const gate = openGate({ config: access, clock, log, metrics });
  opened.add('gate', gate);
  const hashLocks = createHashLocks();
  const thumbs = await openThumbs({ config: config.thumbs, meta, blobs, hashLocks, log, metrics, clock });
  opened.add('thumbnails', thumbs);

  const live = createLiveSettings(settings);
  const { isEdge } = live;
  const journal = createJournalStream({
    journal: meta.journal,
    config: config.journal,
    isEdge,
    usesEveryMs: rules.unusedForMs === null ? undefined : rules.usesEveryMs,
    clock,
    log,
    metrics,
  });
  const sweeper = openSweeper({
    config: rules,
    quotaPeriodMs: quota.periodMs,
    meta,
    blobs,
    hashLocks,
    clock,
    log,
    metrics,
  });
  opened.add('retention', sweeper);
  const audit = await openAuditLog(config.audit);
  opened.add('audit', audit);
  const useReports = createUseReports({
    meta,
    clock,
    log,
    metrics,
    stepMs: config.meta.usedStepMs,
    enabled: rules.unusedForMs !== null,
  });
  opened.add('use reports', useReports);
  const quotas = createQuotas(quota, meta, clock);
  const resumable = await openResumableUploads({ stageFolder: blobs.stageFolder, config, clock, log, metrics });
  opened.add('resumable uploads', resumable);
  const { freeMinBytes } = config.upload;
  const health = createHealth({ meta, blobs, gate, thumbs, clock, log, metrics, freeMinBytes });
  const scanner = createScanner({ config: config.upload.scan, clock, log, metrics });
  const rescan = openRescan({ config: config.upload.scan, scanner, meta, blobs, clock, log, metrics });
  opened.add('rescan', rescan);
  const thumbOptions = thumbOptionsOf(config.thumbs);
  const { baseUri } = config;
  const routeDeps: RouteDeps = {
    gate,
    meta,
    blobs,
    thumbs,
    clock,
    ids: createIdSource(clock),
    hashLocks,
    scanner,
    audit,
    useReports,
    admissions: createAdmissions({ config: config.upload, blobs, clock, metrics }),
    quotas,
    resumable,
    counts: uploadCounts(metrics),
    thumbOptions,
    baseUri,
    links: { ...access.links, key: () => live.linkKeys()[0] },
    journal,
    health,
    wellKnown: createWellKnown({
      baseUri,
      links: access.links,
      signsLinks: () => live.linkKeys().length > 0,
      blobs,
      thumbs: thumbs.capabilities(),
      config,
    }),
    config,
  };

  const counts = requestCounts(metrics);
  const common = {
    addressOf: createAddressOf(config.trustedProxies),
    limits: createRateLimits(config.rateLimits, clock, metrics),
    isEdge,
    drain: config.refusedBodies,
    requests: live.requests,
    counts,
    clock,
    log,
  };
  const edgeRoutes = createEdgeRoutes({ journal, useReports, isEdge });
  const onRefused = countRefusals(metrics);
  const media = await openListener(opened, deps, config.listen, {
    name: 'requests',
    onRefused,
    server: createServer({ ...common, routes: originRoutes(routeDeps), edgeRoutes }),
    // Streams to edges never end by themselves.
    onClosing: () => journal.close(),
  });
  const operators = await openListener(
    opened,
    deps,
    { ...config.operators, limits: config.listen.limits },
    {
      name: 'operators',
      onRefused,
      server: createServer({
        ...common,
        limits: NO_RATE_LIMITS,
        requests: () => 'none',
        routes: operatorRoutes({ health, metrics, marks: localMarks(meta, clock), meta, thumbs, config, clock }),
        edgeRoutes: () => undefined,
      }),
      onClosing: () => Promise.resolve(),
    },
  );
  const apply = (changed: OriginSettings): void => {
    live.renew(changed);
    gate.renewLinks(live.linkKeys());
    journal.recheckSecrets();
  };
  if (source !== undefined) {
    const reloading = openReloading({ source, config: settings, livePaths: LIVE_PATHS, apply, clock, log });
    opened.add('reloading', reloading);
  }
  return { urls: { media: media.url, operators: operators.url }, close: () => opened.close() };
}

async function openListener(
  opened: Closer,
  { clock, log }: ProcessDeps,
  where: OriginConfig['listen'],
  { name, server, onClosing, onRefused }: ListenerDeps,
): Promise<{ readonly url: string }> {
  opened.add(`${name} in hand`, server);
  const listener = await listen({
    ...where,
    clock,
    log,
    onRequest: (request, response) => server.handle(request, response, 'sends'),
    onExpectation: (request, response) => server.handle(request, response, 'waits'),
    onRefused,
  });
  opened.add(`${name} listener`, {
    async close() {
      const closed = listener.close();
      await onClosing();
      await closed;
    },
  });
  return listener;
}

interface ListenerDeps {
  readonly name: string;
  readonly onRefused: (reason: GuardReason) => void;
  readonly server: OriginServer;
  /** Once no new connection is taken: ends what would not end by itself. */
  readonly onClosing: () => Promise<void>;
}
