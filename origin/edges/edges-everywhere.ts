/**
 * The edges of all origins, for `?wait=edges` and for admins. Each origin answers for those that follow it; the one that
 * is asked adds the answers up.
 *
 * Promises: an origin that does not answer counts with the edges that it has recorded, and none of them has confirmed;
 * so does one that has died, until its edges follow another. An edge counts once, wherever it has been. Leaves to the
 * journal's stream what the edges of this origin have confirmed.
 */
import { randomUUID } from 'node:crypto';
import { type Clock, sleep } from '../../src/clock.js';
import type { EdgePosition, EdgesConfirmed } from '../../src/journal/confirmations.js';
import type { JournalStream } from '../../src/journal/journal-stream.js';
import { errorFields, type Log } from '../../src/log.js';
import type { OriginAnswer, RecordedEdge, SharedEdges } from '../meta/origins/shared-edges.js';
import type { Origins } from '../meta/origins.js';

export interface EdgesEverywhere {
  /** As `JournalStream.confirmed`, over the edges of all origins. */
  confirmed(seq: number, timeoutMs: number, signal?: AbortSignal): Promise<EdgesConfirmed>;
  positions(): Promise<readonly EdgePosition[]>;
  close(): Promise<void>;
}

export interface EverywhereDeps {
  readonly stream: Pick<JournalStream, 'confirmed' | 'positions' | 'following' | 'forget'>;
  readonly shared: SharedEdges;
  readonly origins: Pick<Origins, 'name' | 'living'>;
  readonly config: { readonly waitMaxMs: number; readonly awayMs: number };
  readonly clock: Clock;
  readonly log: Log;
}

/** How often an origin looks for questions of others. */
const LOOK_MS = 200;
/** How often it looks for their answers. */
const ANSWERS_MS = 50;
/** What has not changed is recorded again so often, so that it is known to be there still. */
const RECORD_MS = 60_000;
/** The same while edges are away, which may follow another origin by now; and where only confirmations have changed. */
const RECORD_SOON_MS = 2_000;

export function openEdgesEverywhere(deps: EverywhereDeps): EdgesEverywhere {
  const { stream, shared, origins, config, clock, log } = deps;
  const closing = new AbortController();
  const answering = new Map<string, Promise<void>>();
  let recorded = { edges: '', confirmed: '', atMs: Number.NEGATIVE_INFINITY };
  let failing = false;

  async function record(): Promise<void> {
    const following = stream.following();
    const edges = keyOf(following, ({ edge, instance, connected }) => [edge, instance, connected]);
    const confirmed = keyOf(following, (each) => [each.confirmed, each.edges]);
    const ageMs = clock.monotonicMs() - recorded.atMs;
    const isAway = following.some(({ connected }) => !connected);
    const isSoon = ageMs >= RECORD_SOON_MS && (isAway || confirmed !== recorded.confirmed);
    if (edges === recorded.edges && !isSoon && ageMs < RECORD_MS) return;
    const atMs = clock.monotonicMs();
    stream.forget(await shared.record(following));
    recorded = { edges, confirmed, atMs };
  }

  /** Says at once how many have confirmed, and again when nobody is waited for any more. */
  async function answer(id: string, seq: number): Promise<void> {
    const now = await stream.confirmed(seq, 0);
    const later = stream.confirmed(seq, config.waitMaxMs, closing.signal);
    await shared.answer(id, { ...now, isFinal: false });
    await shared.answer(id, { ...(await later), isFinal: true });
  }

  async function look(): Promise<void> {
    await record();
    for (const { id, seq } of await shared.questions()) {
      if (answering.has(id)) continue;
      const answered = answer(id, seq)
        .catch((thrown: unknown) => log.warn(errorFields(thrown), 'another origin could not be answered about edges'))
        .finally(() => answering.delete(id));
      answering.set(id, answered);
    }
  }

  async function lookRegularly(): Promise<void> {
    while (!closing.signal.aborted) {
      await look().then(
        () => {
          failing = false;
        },
        (thrown: unknown) => {
          if (!failing) log.warn(errorFields(thrown), 'what other origins know of edges cannot be read at the moment');
          failing = true;
        },
      );
      await sleep(clock, LOOK_MS, closing.signal).catch(() => undefined);
    }
  }

  async function othersConfirmed(
    seq: number,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<EdgesConfirmed> {
    const asked = origins.living().filter(({ name }) => name !== origins.name);
    try {
      const answers =
        asked.length === 0
          ? []
          : await ask(
              deps,
              asked.map(({ name }) => name),
              seq,
              timeoutMs,
              signal,
            );
      const answered = new Set([origins.name, ...answers.map(({ origin }) => origin)]);
      const here = new Set(stream.following().map(({ edge }) => edge));
      const silent = (await shared.elsewhere()).filter(
        (each) => !answered.has(each.origin) && !here.has(each.edge) && each.heardAgoMs < config.awayMs + RECORD_MS,
      );
      return sumOf([...answers, ...silent.map(({ edges }) => ({ confirmed: 0, known: edges }))]);
    } catch (thrown) {
      log.warn(errorFields(thrown), 'the other origins could not be asked about their edges');
      return { confirmed: 0, known: asked.length };
    }
  }

  const looking = lookRegularly();
  return {
    async confirmed(seq, timeoutMs, signal) {
      const both = [stream.confirmed(seq, timeoutMs, signal), othersConfirmed(seq, timeoutMs, signal)];
      return sumOf(await Promise.all(both));
    },
    async positions() {
      const here = stream.positions();
      const names = new Set(here.map(({ edge }) => edge));
      const others = (await shared.elsewhere()).filter(({ edge }) => !names.has(edge));
      // In one order, so that every origin answers the same.
      const all = [...here, ...others.map((each) => positionOf(each, clock))];
      return all.toSorted((one, other) => (one.edge < other.edge ? -1 : 1));
    },
    async close() {
      closing.abort();
      await looking;
      await Promise.all(answering.values());
      // What is recorded stays: an edge that does not come to another origin may still be serving.
    },
  };
}

async function ask(
  { shared, origins, clock }: EverywhereDeps,
  names: readonly string[],
  seq: number,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<readonly OriginAnswer[]> {
  const id = randomUUID();
  const untilMs = clock.monotonicMs() + timeoutMs;
  await shared.ask(id, seq, names);
  try {
    for (;;) {
      const answers = await shared.answers(id);
      const done = new Set(answers.filter(({ isFinal }) => isFinal).map(({ origin }) => origin));
      const living = new Set(origins.living().map(({ name }) => name));
      const isOver = clock.monotonicMs() >= untilMs || signal?.aborted === true;
      if (isOver || names.every((name) => done.has(name) || !living.has(name))) return answers;
      await sleep(clock, ANSWERS_MS, signal).catch(() => undefined);
    }
  } finally {
    await shared.forget(id);
  }
}

function sumOf(all: readonly EdgesConfirmed[]): EdgesConfirmed {
  const sum = (of: (each: EdgesConfirmed) => number): number => all.reduce((total, each) => total + of(each), 0);
  return { confirmed: sum(({ confirmed }) => confirmed), known: sum(({ known }) => known) };
}

function positionOf({ edge, connected, confirmed, heardAgoMs }: RecordedEdge, clock: Clock): EdgePosition {
  return { edge, connected, confirmed, heardAt: clock.now() - heardAgoMs };
}

function keyOf(edges: readonly RecordedEdge[], of: (edge: RecordedEdge) => readonly unknown[]): string {
  return JSON.stringify(edges.map(of));
}
