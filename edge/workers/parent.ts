/**
 * The parent of an edge with several workers: starts them, and answers operators for all of them together. It serves no
 * client itself.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock, Timer } from '../../src/clock.js';
import { livingConfig } from '../../src/config/living.js';
import { type Closer, openOrClose } from '../../src/lifecycle.js';
import { type Metrics, renderTogether } from '../../src/metrics.js';
import type { ConfigSource, ProcessDeps, Running } from '../../src/process.js';
import { createReload, type Others, openReloading } from '../../src/reload.js';
import type { EdgeConfig } from '../config.js';
import type { EdgeSettings } from '../edge.js';
import { openOps } from '../ops/ops.js';
import type { PurgeOrder } from '../ops/purge.js';
import type { StatsSources } from '../ops/stats.js';
import { sumOfTops } from '../ops/watch.js';
import { mergeLogs, type Watching } from '../ops/watching.js';
import { workerCount } from './count.js';
import { type Crew, outputTo, startCrew } from './crew.js';
import type { WorkerFigures } from './messages.js';
import { furthestBehind, sum, sumOfCaches, sumOfCounts, sumOfFirstBytes, sumOfUpstreams } from './sums.js';

/** How often the figures are read while nobody asks, for the graph of the live page. */
const FIGURES_EVERY_MS = 1_000;

export async function openParent(
  settings: EdgeSettings,
  deps: ProcessDeps,
  source: ConfigSource<EdgeSettings>,
): Promise<Running> {
  return await openOrClose(deps.log, (opened) => open(settings, deps, source, opened));
}

async function open(
  started: EdgeSettings,
  deps: ProcessDeps,
  source: ConfigSource<EdgeSettings>,
  opened: Closer,
): Promise<Running> {
  const { clock, log } = deps;
  const living = livingConfig(source.sections, started);
  const { edge: config, log: logs } = living.config;
  await requireFreePort(config);
  const folder = await mkdtemp(join(tmpdir(), 'media-edge-'));
  opened.add('sockets of the workers', { close: () => rm(folder, { recursive: true, force: true }) });
  const known = new Known();
  const count = workerCount(config);
  const crew = await startCrew({
    count,
    folder,
    output: logs.to === 'file' ? outputTo(log, logs.format) : process.stdout,
    onEnded: (number) => known.end(number),
    clock,
    log,
  });
  opened.add('workers', crew);
  const steps = createReload({ source, started, living, clock, log });
  const reloading = opened.add('reloading', openReloading({ steps, source, others: othersOf(crew), clock, log }));
  log.info({ workers: count }, 'the workers serve');
  const urls = { media: crew.url };
  const close = (): Promise<void> => opened.close();
  if (!config.operators.enabled) return { urls, close };
  const refresh = async (): Promise<void> => {
    for (const [number, figures] of await crew.ask({ kind: 'figures' })) known.note(number, figures);
  };
  await refresh();
  opened.add('figures', keepFresh(refresh, clock));
  const ops = await openOps({
    config: config.operators,
    limits: config.listen.limits,
    sources: { ...sourcesOf(config.name, known, clock), policy: () => steps.state() },
    purge: (order) => purgeAll(crew, order),
    reload: () => reloading.reload(),
    watching: watchAll(crew),
    // Each of them applies all takedowns; an edge with workers has none behind it.
    takedowns: async () => [...(await crew.ask({ kind: 'takedowns' })).values()][0] ?? null,
    refresh,
    clock,
    log,
    metrics: together(deps.metrics, crew),
  });
  opened.add('operators', ops);
  return { urls: { ...urls, operators: ops.url }, close };
}

/** Workers share their port with whoever else wants to: one that another process has must be found before. */
async function requireFreePort({ listen: { host, port } }: EdgeConfig): Promise<void> {
  const probe = createServer().listen(port, host);
  await once(probe, 'listening');
  probe.close();
  await once(probe, 'close');
}

/** The last figures of each worker, and what those that have ended had counted. */
class Known {
  readonly counts = sumOfCounts([]);
  #living = new Map<number, WorkerFigures>();
  #ended: WorkerFigures[] = [];

  note(number: number, figures: WorkerFigures): void {
    this.#living.set(number, figures);
    // Others hold this object.
    Object.assign(this.counts, sumOfCounts([...this.#ended, ...this.#living.values()].map(({ counts }) => counts)));
  }

  end(number: number): void {
    const last = this.#living.get(number);
    this.#living.delete(number);
    if (last === undefined) return;
    this.#ended.push(last);
    // One sum is as good as many parts.
    const counts = sumOfCounts(this.#ended.map((each) => each.counts));
    const cache = sumOfCaches(this.#ended.map((each) => each.cache));
    const upstream = sumOfUpstreams(this.#ended.map((each) => each.upstream));
    const firstByte = sumOfFirstBytes(this.#ended.map((each) => each.firstByte));
    this.#ended = [{ ...last, counts, cache, upstream, firstByte }];
  }

  get living(): readonly WorkerFigures[] {
    return [...this.#living.values()];
  }

  get ended(): readonly WorkerFigures[] {
    return this.#ended;
  }
}

function sourcesOf(edgeName: string, known: Known, clock: Clock): Omit<StatsSources, 'policy'> {
  return {
    edgeName,
    startedAt: clock.now(),
    clock,
    tally: { counts: known.counts, count: () => undefined },
    cache() {
      const now = sumOfCaches(known.living.map(({ cache }) => cache));
      const before = known.ended.map(({ cache }) => cache);
      const evictions = (tier: 'memory' | 'disk'): number => sum(before, (each) => each[tier].evictions);
      return {
        ...now,
        memory: { ...now.memory, evictions: now.memory.evictions + evictions('memory') },
        disk: { ...now.disk, evictions: now.disk.evictions + evictions('disk') },
      };
    },
    journal: () => furthestBehind(known.living).journal,
    lease: () => furthestBehind(known.living).lease,
    upstream: () => sumOfUpstreams(known.living.map(({ upstream }) => upstream)),
    passing: () => sum(known.living, ({ passing }) => passing),
    firstByte: () => sumOfFirstBytes([...known.ended, ...known.living].map(({ firstByte }) => firstByte)),
  };
}

function keepFresh(refresh: () => Promise<void>, clock: Clock): { close(): void } {
  let closed = false;
  const again = (): Timer => clock.after(FIGURES_EVERY_MS, () => void refresh().finally(next));
  const next = (): void => {
    if (!closed) timer = again();
  };
  let timer = again();
  return {
    close() {
      closed = true;
      timer.cancel();
    },
  };
}

/** Twice, for the reason that `tell` in crew.ts has. */
async function purgeAll(crew: Crew, order: PurgeOrder): Promise<number> {
  const first = await crew.ask({ kind: 'purge', order });
  const second = await crew.ask({ kind: 'purge', order });
  return sum([...first.values(), ...second.values()], (dropped) => dropped);
}

/** They read the same file. If it changes meanwhile, the parent sees that, and they read it again. */
function othersOf(crew: Crew): Others {
  return {
    async prepare() {
      const answers = [...(await crew.ask({ kind: 'reload', step: 'prepare' })).values()];
      return answers.find((answer) => answer?.kind === 'refused');
    },
    async commit() {
      await crew.ask({ kind: 'reload', step: 'commit' });
    },
  };
}

function watchAll(crew: Crew): Watching {
  return {
    explain: async (order) => [...(await crew.ask({ kind: 'explain', order })).values()],
    log: async (after, filter) => mergeLogs(after, await crew.ask({ kind: 'log', after, filter })),
    top: async () => sumOfTops([...(await crew.ask({ kind: 'top' })).values()]),
  };
}

/** What the parent counts for all of them, and what each worker counts by itself. */
function together(own: Metrics, crew: Crew): Metrics {
  return {
    ...own,
    async render() {
      const ofWorkers = await crew.ask({ kind: 'metrics' });
      return await renderTogether([await own.snapshot(), ...ofWorkers.values()]);
    },
  };
}
