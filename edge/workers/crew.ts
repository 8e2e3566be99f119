/**
 * The worker processes of an edge: starts them, asks them, starts one again that has ended, and stops them all.
 *
 * Promises: a worker that ends by itself is started again, after a wait that grows while that goes on; the others serve
 * meanwhile. A worker whose parent is gone ends by itself (src/process.ts).
 */
import cluster, { type Worker as Child } from 'node:cluster';
import { once } from 'node:events';
import { type Readable, Writable } from 'node:stream';
import type { Clock, Timer } from '../../src/clock.js';
import type { Log, LogConfig } from '../../src/log.js';
import type { Answers, Question, ToParent, ToWorker } from './messages.js';
import { WORKER_FOLDER, WORKER_PLACE } from './worker.js';

/** A worker that does not answer in this time counts as one that is away. */
const ANSWER_WITHIN_MS = 2_000;
const RESTART_MIN_MS = 500;
const RESTART_MAX_MS = 30_000;
/** A worker that has run for so long was sound. */
const SOUND_AFTER_MS = 60_000;

export interface CrewDeps {
  readonly count: number;
  /** The folder of the workers' sockets. */
  readonly folder: string;
  /** Where the lines of the workers' logs go. */
  readonly output: Writable;
  /** The last figures of this worker count no longer as those of one that lives. */
  onEnded(number: number): void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Crew {
  /** The URL for clients. */
  readonly url: string;
  /** The answers of those that answer in time, by their numbers. */
  ask<K extends Question['kind']>(question: Extract<Question, { kind: K }>): Promise<ReadonlyMap<number, Answers[K]>>;
  close(): Promise<void>;
}

interface Member {
  readonly number: number;
  child: Child;
  failures: number;
  restart: Timer | undefined;
}

/** How often a worker has ended soon after its start, now that it has ended once more. */
export function failuresAfter(failures: number, ranMs: number): number {
  return ranMs > SOUND_AFTER_MS ? 0 : failures + 1;
}

/** How long it is left alone before it is started again: the longer, the more often it ended at once. */
export function restartPauseMs(failures: number): number {
  return Math.min(RESTART_MAX_MS, RESTART_MIN_MS * 2 ** failures);
}

/** Resolves when all of them serve. Rejects if one ends before. */
export async function startCrew(deps: CrewDeps): Promise<Crew> {
  const { count, folder, output, clock, log } = deps;
  // Where each worker cannot have a socket of its own (`reusePort`), the parent accepts and hands connections out in turn.
  // Over a socket that all of them share, Linux would give most of the connections to one.
  cluster.schedulingPolicy = cluster.SCHED_RR;
  cluster.setupPrimary({ silent: true, serialization: 'advanced' });
  const waiting = new Map<number, (message: ToParent | undefined) => void>();
  let asked = 0;
  let closing = false;

  function fork(number: number): Child {
    const child = cluster.fork({ [WORKER_PLACE]: `${number}/${count}`, [WORKER_FOLDER]: folder });
    if (child.process.stdout !== null) forwardLines(child.process.stdout, output);
    if (child.process.stderr !== null) forwardLines(child.process.stderr, process.stderr);
    child.on('message', (message: ToParent) => {
      if (message.kind === 'tell') void tell(number, child, message);
      else if (message.kind === 'answer' || message.kind === 'failed') waiting.get(message.id)?.(message);
    });
    return child;
  }

  /** Waits until it serves. */
  async function begin(number: number): Promise<{ member: Member; url: string }> {
    const member: Member = { number, child: fork(number), failures: 0, restart: undefined };
    const url = await urlOf(member.child);
    watch(member);
    return { member, url };
  }

  function watch(member: Member): void {
    const startedMs = clock.monotonicMs();
    member.child.once('exit', (code, signal) => {
      deps.onEnded(member.number);
      if (closing) return;
      member.failures = failuresAfter(member.failures, clock.monotonicMs() - startedMs);
      const waitMs = restartPauseMs(member.failures);
      log.error({ worker: member.number, code, signal, waitMs }, 'a worker ended; starting it again');
      member.restart = clock.after(waitMs, () => {
        member.child = fork(member.number);
        watch(member);
      });
    });
  }

  function askOne(child: Child, question: Question): Promise<ToParent | undefined> {
    asked += 1;
    const id = asked;
    return new Promise((resolve) => {
      const settle = (message: ToParent | undefined): void => {
        waiting.delete(id);
        late.cancel();
        child.off('exit', gone);
        resolve(message);
      };
      const gone = (): void => settle(undefined);
      const late = clock.after(ANSWER_WITHIN_MS, gone);
      waiting.set(id, settle);
      child.once('exit', gone);
      post(child, { kind: 'question', id, question });
    });
  }

  async function ask<K extends Question['kind']>(
    question: Extract<Question, { kind: K }>,
    without?: number,
  ): Promise<ReadonlyMap<number, Answers[K]>> {
    const answers = new Map<number, Answers[K]>();
    const others = members.filter(({ number }) => number !== without);
    await Promise.all(
      others.map(async ({ number, child }) => {
        const message = await askOne(child, question);
        if (message?.kind === 'answer') answers.set(number, message.value as Answers[K]);
      }),
    );
    return answers;
  }

  /**
   * A copy of the state before a change may be fetched from a worker that has not heard of it yet. Once all have, nobody
   * has such a copy to give, and what was fetched in between goes the second time.
   */
  async function tell(number: number, child: Child, { id, answer }: ToParent & { kind: 'tell' }): Promise<void> {
    await ask({ kind: 'invalidate', answer }, number);
    await ask({ kind: 'invalidate', answer });
    post(child, { kind: 'told', id });
  }

  const members: Member[] = [];
  const stop = async (): Promise<void> => {
    closing = true;
    for (const { restart } of members) restart?.cancel();
    await Promise.all(Object.values(cluster.workers ?? {}).map(async (child) => child && (await end(child))));
  };
  try {
    const begun = await Promise.all(Array.from({ length: count }, (_, index) => begin(index + 1)));
    members.push(...begun.map(({ member }) => member));
    return {
      url: begun[0]?.url ?? '',
      ask: (question) => ask(question),
      close: stop,
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

async function urlOf(child: Child): Promise<string> {
  return await new Promise((resolve, reject) => {
    child.on('message', (message: { kind?: unknown; urls?: Readonly<Record<string, string>> }) => {
      if (message.kind === 'ready') resolve(message.urls?.['media'] ?? '');
    });
    child.once('exit', () => reject(new Error('a worker of the edge did not start; its error stands above')));
  });
}

async function end(child: Child): Promise<void> {
  if (child.isDead()) return;
  const ended = once(child, 'exit');
  child.process.kill('SIGTERM');
  await ended;
}

function post(child: Child, message: ToWorker): void {
  // One that is gone cannot be told, and its end is seen elsewhere.
  if (child.isConnected()) child.send(message, () => undefined);
}

const NEWLINE = 10;

/** Passes whole lines on, so that those of several processes do not mix. */
export function forwardLines(from: Readable, to: Writable): void {
  let held: Buffer[] = [];
  from.on('data', (chunk: Buffer) => {
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    if (end === 0) {
      held.push(chunk);
      return;
    }
    const goesOn = to.write(Buffer.concat([...held, chunk.subarray(0, end)]));
    held = end < chunk.length ? [chunk.subarray(end)] : [];
    if (goesOn) return;
    from.pause();
    to.once('drain', () => from.resume());
  });
  from.on('end', () => {
    if (held.length > 0) to.write(Buffer.concat(held));
  });
}

/** Takes the whole lines of workers for the log of their parent. In the combined format a line of a request is no JSON. */
export function outputTo(log: Pick<Log, 'lines'>, format: LogConfig['format']): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      const text = chunk.toString();
      if (format === 'json') log.lines(text, 'requests');
      else for (const line of text.split(/(?<=\n)/)) log.lines(line, line.startsWith('{') ? 'others' : 'requests');
      done();
    },
  });
}
