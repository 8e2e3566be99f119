/**
 * One of the workers of an edge, inside its own process: its share of the configuration, the socket on which the other
 * workers ask it, and the answers to the questions of the parent.
 */
import cluster from 'node:cluster';
import { rm } from 'node:fs/promises';
import type { Closer } from '../../src/lifecycle.js';
import type { Metrics } from '../../src/metrics.js';
import type { ConfigSource, ProcessDeps } from '../../src/process.js';
import type { ReloadSteps } from '../../src/reload.js';
import type { ListenLimits } from '../../src/server/limits.js';
import { listen } from '../../src/server/listen.js';
import { type Trace, traceOf } from '../../src/tracing/context.js';
import type { EdgeConfig } from '../config.js';
import { type Applied, fence } from '../journal/fence.js';
import type { ExplainOrder, Explanation } from '../ops/explain.js';
import type { OpsDeps } from '../ops/ops.js';
import { createTally } from '../ops/tally.js';
import type { Watch } from '../ops/watch.js';
import type { UnsafeAnswer } from '../pass/config.js';
import type { EdgeRequest } from '../request.js';
import { createFastlane } from '../server/fastlane/fastlane.js';
import { createServer, type NodeServerDeps } from '../server/node-http.js';
import type { UpstreamConfig } from '../upstream/config.js';
import { poolLimits } from '../upstream/pool.js';
import type { Question, ToParent, ToWorker, WorkerFigures } from './messages.js';
import { openPeers, type Peers, socketOf } from './peers.js';
import { ownerOf, type Place, shareOf } from './share.js';

export interface Worker {
  owns(primaryKey: string): boolean;
  openPeers(config: UpstreamConfig, deps: ProcessDeps): Peers;
  /** `applied`: null in generic mode. */
  listenToPeers(deps: NodeServerDeps, applied: Applied | null, limits: ListenLimits, opened: Closer): Promise<void>;
  /** Answers the questions of the parent from now on. */
  serve(control: Control): void;
  /** Resolves when no other worker shows the state before the change, or when one of them is late. */
  invalidateAtOthers(answer: UnsafeAnswer): Promise<void>;
}

export interface Control extends Pick<OpsDeps, 'sources' | 'purge' | 'takedowns'> {
  readonly reload: ReloadSteps;
  invalidate(answer: UnsafeAnswer): Promise<void>;
  explain(order: ExplainOrder): Promise<Explanation>;
  readonly watch: Watch;
  readonly metrics: Metrics;
}

interface Settings {
  readonly edge: EdgeConfig;
}

/** How the parent says to a process which worker it is. */
export const WORKER_PLACE = 'MEDIA_EDGE_WORKER';
export const WORKER_FOLDER = 'MEDIA_EDGE_WORKERS_FOLDER';

/** Undefined: this process is not a worker. */
export function workerHere(): { worker: Worker; share: <S extends Settings>(settings: S) => S } | undefined {
  const [number = 0, of = 0] = (process.env[WORKER_PLACE] ?? '').split('/').map(Number);
  const folder = process.env[WORKER_FOLDER];
  if (!cluster.isWorker || number === 0 || of === 0 || folder === undefined) return undefined;
  const place = { number, of };
  return {
    worker: createWorker(place, folder),
    share: (settings) => ({ ...settings, edge: shareOf(settings.edge, place) }),
  };
}

/** A changed configuration is shared out in the same way. */
export function sharedSource<S extends Settings>(source: ConfigSource<S>, share: (settings: S) => S): ConfigSource<S> {
  return {
    ...source,
    read() {
      const outcome = source.read();
      return outcome.kind === 'faulty' ? outcome : { ...outcome, config: share(outcome.config) };
    },
  };
}

function createWorker(place: Place, folder: string): Worker {
  const telling = new Map<number, () => void>();
  let told = 0;
  let control: Control | undefined;
  process.on('message', (message: ToWorker) => {
    if (message.kind === 'told') telling.get(message.id)?.();
    else if (message.kind === 'question' && control !== undefined)
      void reply(message.id, message.question, control, place.number);
  });
  return {
    owns: (primaryKey) => ownerOf(primaryKey, place.of) === place.number,
    openPeers: (config, { clock, metrics }) =>
      openPeers({ place, folder, config, limits: poolLimits(config), clock, metrics }),
    listenToPeers: (deps, applied, limits, opened) =>
      listenToPeers(socketOf(folder, place.number), deps, applied, limits, opened),
    serve(given) {
      control = given;
    },
    invalidateAtOthers(answer) {
      told += 1;
      const id = told;
      return new Promise((resolve) => {
        telling.set(id, () => {
          telling.delete(id);
          resolve();
        });
        send({ kind: 'tell', id, answer });
      });
    },
  };
}

/** Other workers are asked for nothing but what is stored: their requests are counted and logged where they came in. */
async function listenToPeers(
  path: string,
  deps: NodeServerDeps,
  applied: Applied | null,
  limits: ListenLimits,
  opened: Closer,
): Promise<void> {
  const { clock, log } = deps;
  const serverDeps: NodeServerDeps = {
    ...deps,
    handle(request, client) {
      const caughtUp = fence(applied, request, clock, () => client.gone());
      return caughtUp === undefined ? deps.handle(request, client) : caughtUp.then(() => deps.handle(request, client));
    },
    addressOf: addressAsTold,
    traceOf: traceAsGiven,
    tally: createTally(),
    traffic: { note: () => undefined },
    watch: { active: false, note: () => undefined },
    requestLog: { write: () => undefined },
  };
  const server = createServer(serverDeps);
  opened.add('requests of other workers', server);
  // Left by a worker that was killed.
  await rm(path, { force: true });
  const listener = await listen({
    host: '',
    port: 0,
    path,
    limits: { ...limits, connectionsPerClientMax: 0 },
    clock,
    log,
    onRequest: (request, response) => server.onRequest(request, response),
    onExpectation: (request, response) => server.onRequest(request, response),
    firstReader: (own, waiting) => createFastlane(serverDeps, own, waiting),
  });
  opened.add('listener for other workers', listener);
}

/** The asking worker has put the address of its client here, and dropped what the client wrote. */
function addressAsTold({ headers }: Parameters<NodeServerDeps['addressOf']>[0]): string {
  const told = headers['x-forwarded-for'];
  return typeof told === 'string' ? told : '';
}

/** The asking worker has decided already whose trace is continued, and records the request. Its span is that of both. */
function traceAsGiven(request: EdgeRequest): Trace | undefined {
  const trace = traceOf(
    (name) => request.header(name),
    'anyone',
    () => true,
  );
  return trace?.parentId === undefined ? trace : { ...trace, spanId: trace.parentId };
}

async function reply(id: number, question: Question, control: Control, number: number): Promise<void> {
  try {
    send({ kind: 'answer', id, value: await answerTo(question, control, number) });
  } catch {
    send({ kind: 'failed', id });
  }
}

async function answerTo(question: Question, control: Control, number: number): Promise<unknown> {
  switch (question.kind) {
    case 'figures':
      return figuresOf(control.sources);
    case 'metrics':
      return await control.metrics.snapshot();
    case 'purge':
      return await control.purge(question.order);
    case 'reload':
      return question.step === 'prepare' ? control.reload.prepare() : control.reload.commit();
    case 'invalidate':
      return await control.invalidate(question.answer);
    case 'explain':
      return await control.explain(question.order);
    case 'log':
      return control.watch.log(question.after[number] ?? 0, question.filter);
    case 'top':
      return control.watch.top();
    case 'takedowns':
      return await control.takedowns();
  }
}

function figuresOf(from: Control['sources']): WorkerFigures {
  return {
    counts: from.tally.counts,
    cache: from.cache(),
    journal: from.journal(),
    lease: from.lease(),
    upstream: from.upstream(),
    passing: from.passing(),
    policy: from.policy(),
    firstByte: from.firstByte(),
  };
}

function send(message: ToParent): void {
  // Without a parent this process is about to end.
  process.send?.(message, undefined, undefined, () => undefined);
}
