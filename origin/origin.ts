/**
 * The composition root: opens every component once, in the order in which they
 * need each other, and closes them in reverse order. A start that fails half-way
 * leaves nothing open.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import type { AccessConfig } from '../src/access/config.js';
import { openGate } from '../src/access/gate.js';
import { type Living, livingConfig } from '../src/config/living.js';
import { createAddressOf, createTrust } from '../src/http/address.js';
import { header } from '../src/http/head.js';
import { problemReply } from '../src/http/problem.js';
import { createIdSource } from '../src/ids.js';
import { type Closer, openOrClose } from '../src/lifecycle.js';
import type { LogConfig } from '../src/log.js';
import { createRequestLog } from '../src/logs/request-line.js';
import type { ConfigSource, ProcessDeps, Running } from '../src/process.js';
import { createReload, openReloading, type ReloadOutcome } from '../src/reload.js';
import { countRefusals, type GuardReason } from '../src/server/guard.js';
import { listen } from '../src/server/listen.js';
import { createFiguresFeed } from '../src/server/live/figures-feed.js';
import { admitOperator } from '../src/server/operators.js';
import { traceOf } from '../src/tracing/context.js';
import { withSpans } from '../src/tracing/tracer.js';
import { operatorRoutes } from './api/operators.js';
import { originRoutes, type RouteDeps } from './api/routes.js';
import { createWellKnown } from './api/well-known.js';
import { openAudit } from './audit.js';
import { counted } from './blobs/counted.js';
import { openBlobStore } from './blobs/open.js';
import { lockStage } from './blobs/stage-lock.js';
import { clearLeftovers } from './blobs/sweep.js';
import { nameOf, type OriginConfig } from './config.js';
import { openOriginJournal } from './edges/origin-journal.js';
import { createPositionFence } from './edges/position-fence.js';
import { createEdgeRoutes } from './edges/routes.js';
import { createUseReports } from './edges/use-reports.js';
import { registerFigures } from './figures.js';
import { createHealth } from './health.js';
import { createAdmissions } from './ingest/admit.js';
import { openRescan } from './ingest/rescan.js';
import { openResumableUploads } from './ingest/resumable/resumable-uploads.js';
import { createRoom } from './ingest/room.js';
import { createScanner } from './ingest/scan.js';
import { createLiveSettings, type LiveSettings } from './live-settings.js';
import { openMeta } from './meta/open.js';
import { type FiguresDeps, type OriginFigures, openOriginHistory, readFigures } from './ops/figures.js';
import { operatorMediaRoutes } from './ops/media-routes.js';
import { originPageRoutes, type PageDeps } from './ops/page-routes.js';
import { createOriginTally, type OriginTally } from './ops/tally.js';
import { createQuotas } from './quota.js';
import { createRateLimits, NO_RATE_LIMITS } from './server/rate-limits.js';
import { createServer, type OriginServer, requestCounts } from './server/server.js';
import { openThumbs } from './thumbs/engine.js';
import { thumbOptionsOf } from './thumbs/plan.js';
import { openLauncher } from './thumbs/render/launcher.js';
import { localMarks } from './upkeep/scrub.js';
import { openSweeper } from './upkeep/sweeper.js';
import { uploadCounts } from './upload.js';
import { eventMakerOf } from './webhooks/event-maker.js';
import { openSender } from './webhooks/sender.js';

export interface OriginSettings {
  readonly log: LogConfig;
  readonly access: AccessConfig;
  readonly origin: OriginConfig;
}

/** Without a source the settings cannot be reloaded. */
export async function openOrigin(
  settings: OriginSettings,
  deps: ProcessDeps,
  source?: ConfigSource<OriginSettings>,
): Promise<Running> {
  return await openOrClose(deps.log, async (opened) => {
    const living: Living<OriginSettings> =
      source === undefined ? { config: settings, renew: () => undefined } : livingConfig(source.sections, settings);
    const live = createLiveSettings(living.config);
    const components = await openComponents(living.config, deps, live, opened);
    const reload = { now: async (): Promise<ReloadOutcome> => NOTHING_TO_READ };
    const urls = await openListeners(living.config, deps, { live, reload: () => reload.now() }, components, opened);
    if (source !== undefined) {
      const apply = (changed: OriginSettings): void => {
        live.renew(changed);
        components.gate.renewLinks(live.linkKeys());
        components.journal.recheckSecrets();
        components.wellKnown.renew();
      };
      const { clock, log } = deps;
      const steps = createReload({ source, started: settings, living, apply, clock, log });
      const reloading = opened.add('reloading', openReloading({ steps, source, clock, log }));
      reload.now = () => reloading.reload();
    }
    return { urls, close: () => opened.close() };
  });
}

const NOTHING_TO_READ: ReloadOutcome = { kind: 'refused', faults: ['this origin has no configuration to read again'] };

type Components = Awaited<ReturnType<typeof openComponents>>;

/** Everything behind the listeners. What the handlers need of it is checked against RouteDeps. */
async function openComponents(
  { access, origin: config }: OriginSettings,
  deps: ProcessDeps,
  live: LiveSettings,
  opened: Closer,
) {
  const { clock, log, metrics } = deps;
  const { baseUri, quota, retention, upload } = config;

  const meta = opened.add(
    'metadata',
    await openMeta(
      config.meta,
      { clock, log, randomName: randomUUID, eventMaker: eventMakerOf(config) },
      { origin: nameOf(config) },
    ),
  );
  const blobs = opened.add('blobs', counted(await openBlobStore(config.blobs, deps), deps));
  const onWalked = registerFigures({ meta, blobs, config: config.meta, clock, metrics });
  const stage = opened.add('stage', await lockStage(blobs.stageFolder, randomUUID, log));
  const leftovers = stage.isHeld ? await clearLeftovers(blobs.stageFolder) : 0;
  if (leftovers > 0) log.info({ files: leftovers }, 'files of unfinished uploads were removed');
  const gate = opened.add('gate', openGate({ config: access, ...deps }));
  const launcher = await openLauncher(blobs.stageFolder, log);
  const thumbs = opened.add('thumbnails', await openThumbs({ config: config.thumbs, meta, blobs, launcher, ...deps }));
  const journal = await openOriginJournal({
    journal: meta.journal,
    origins: meta.origins,
    shared: meta.edges,
    duties: meta.duties,
    config: config.journal,
    isEdge: live.isEdge,
    usesEveryMs: retention.unusedForMs === null ? undefined : retention.usesEveryMs,
    ...deps,
  });
  const room = createRoom({
    config: upload,
    meta,
    blobs,
    folders: meta.shared === null ? [dirname(config.audit.file)] : [],
    clock,
  });
  const sweeper = opened.add(
    'retention',
    openSweeper({ config: retention, quota, meta, blobs, room, onWalked, ...deps }),
  );
  const audit = opened.add('audit', await openAudit(config.audit, meta.shared));
  const useReports = opened.add(
    'use reports',
    createUseReports({
      meta,
      stepMs: config.meta.usedStepMs,
      enabled: retention.unusedForMs !== null,
      ...deps,
    }),
  );
  const resumable = opened.add('resumable uploads', await openResumableUploads({ meta, blobs, config, ...deps }));
  const tally = createOriginTally();
  const scanner = createScanner({ config: upload.scan, launcher, ...deps });
  opened.add('webhooks', openSender({ config: config.webhooks, meta, ...deps }));
  opened.add('rescan', openRescan({ config: upload.scan, scanner, meta, blobs, ...deps }));
  return {
    gate,
    meta,
    blobs,
    tracer: deps.tracer,
    thumbs,
    clock,
    ids: createIdSource(clock),
    scanner,
    audit,
    useReports,
    admissions: createAdmissions({ config: upload, room, relieve: () => sweeper.relieve(), metrics }),
    quotas: createQuotas(quota, meta, clock),
    resumable,
    tally,
    counts: tally.uploads(uploadCounts(metrics)),
    thumbOptions: thumbOptionsOf(config.thumbs),
    baseUri,
    ownersMayDelete: access.ownersMayDelete,
    links: { ...access.links, key: () => live.linkKeys()[0] },
    journal,
    health: createHealth({ meta, blobs, room, gate, thumbs, ...deps }),
    wellKnown: createWellKnown({
      baseUri,
      links: access.links,
      ownersMayDelete: access.ownersMayDelete,
      facts: { uploadWaitMs: config.thumbs.enabled ? config.thumbs.uploadWaitMs : 0 },
      signsLinks: () => live.linkKeys().length > 0,
      blobs,
      thumbs: thumbs.capabilities(),
      config,
    }),
    config,
  } satisfies RouteDeps & { readonly tally: OriginTally };
}

async function openListeners(
  { origin: config, log: logging }: OriginSettings,
  deps: ProcessDeps,
  { live, reload }: { readonly live: LiveSettings; readonly reload: () => Promise<ReloadOutcome> },
  components: Components,
  opened: Closer,
): Promise<{ readonly media: string; readonly operators: string }> {
  const { clock, log, metrics, tracer } = deps;
  const { health, meta, thumbs, tally, journal, useReports } = components;
  const { isEdge } = live;
  const trustsPeer = createTrust(config.trustedProxies);
  const common = {
    addressOf: createAddressOf(config.trustedProxies),
    traceOf: ({ headers, socket }: IncomingMessage, proved: boolean) =>
      traceOf(
        (name) => header(headers, name),
        logging.trace,
        () => proved || trustsPeer(socket.remoteAddress),
        tracer?.begin,
      ),
    ...(tracer !== undefined && { within: tracer.within }),
    isEdge,
    drain: config.refusedBodies,
    clock,
    log,
  };
  const onRefused = countRefusals(metrics);
  const counts = requestCounts(metrics);
  const fence = createPositionFence(meta.journal);
  const media = await openListener(opened, deps, config.listen, {
    name: 'requests',
    onRefused,
    server: createServer({
      ...common,
      counts: tally.requests(counts),
      cors: 'any',
      limits: createRateLimits(config.rateLimits, clock, metrics, () => meta.origins.living().length),
      requestLog: withSpans(
        createRequestLog({
          name: 'origin',
          config: logging,
          clock,
          write: (line) => log.lines(line, 'requests'),
        }),
        deps,
      ),
      routes: originRoutes(components),
      edgeRoutes: createEdgeRoutes({ journal, useReports, isEdge }),
      admit: (request) => fence.admit(request),
      position: () => fence.told(),
    }),
    // The streams to edges do not end by themselves.
    onClosing: () => journal.close(),
  });
  const page = openPage(config, components, deps, opened);
  const operators = await openListener(
    opened,
    deps,
    { ...config.operators, limits: config.listen.limits },
    {
      name: 'operators',
      problem: problemReply,
      onRefused,
      server: createServer({
        ...common,
        counts,
        cors: 'none',
        admit: (request) => admitOperator(config.operators, request),
        limits: NO_RATE_LIMITS,
        requestLog: { write: () => undefined },
        routes: [
          ...operatorRoutes({
            health,
            metrics,
            marks: localMarks(meta, clock),
            meta,
            thumbs,
            audit: components.audit,
            reload,
            config,
            clock,
          }),
          ...originPageRoutes(page),
          ...operatorMediaRoutes(components, config.operators),
        ],
        edgeRoutes: () => undefined,
      }),
      // The streams to pages do not end by themselves.
      onClosing: async () => page.feed.close(),
    },
  );
  return { media: media.url, operators: operators.url };
}

function openPage(
  config: OriginConfig,
  { meta, tally }: Pick<Components, 'meta' | 'tally'>,
  { clock, log }: ProcessDeps,
  opened: Closer,
): PageDeps {
  const history = opened.add('history', openOriginHistory(tally, clock));
  const sources: FiguresDeps = {
    name: nameOf(config),
    startedAt: clock.now(),
    tally,
    meta,
    sendsEvents: config.webhooks.url !== null,
    hasToken: config.operators.token !== null,
    clock,
  };
  const figures = (): Promise<OriginFigures> => readFigures(sources, history);
  const { pagesMax } = config.operators;
  return { history, figures, feed: createFiguresFeed({ read: figures, pagesMax, clock, log }) };
}

interface ListenerDeps {
  readonly name: string;
  readonly onRefused: (reason: GuardReason) => void;
  /** How a refusal of the guard looks; without it, as for clients. */
  readonly problem?: typeof problemReply;
  readonly server: OriginServer;
  /** Called when no new connections are accepted any more. Ends what would not end by itself. */
  readonly onClosing: () => Promise<void>;
}

async function openListener(
  opened: Closer,
  { clock, log }: ProcessDeps,
  where: Pick<OriginConfig['listen'], 'host' | 'port' | 'limits'>,
  { name, server, onClosing, onRefused, problem }: ListenerDeps,
): Promise<{ readonly url: string }> {
  opened.add(`unfinished ${name}`, server);
  const listener = await listen({
    ...where,
    clock,
    log,
    onRequest: (request, response) => server.handle(request, response, 'sends'),
    onExpectation: (request, response) => server.handle(request, response, 'waits'),
    onRefused,
    ...(problem !== undefined && { problem }),
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
