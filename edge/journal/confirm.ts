/**
 * Confirms to the origin how far this edge has applied the journal, and how far
 * the edges behind it have. One request at a time; what comes during a request is
 * confirmed together by the next one, so that a burst of takedowns needs two
 * requests. What has not changed is confirmed again now and then, so that the origin
 * knows that this edge is there.
 */
import { withDeadline } from '../../src/clock.js';
import { type Confirmation, edgesIn, formatConfirmation } from '../../src/journal/confirmation.js';
import { CONFIRM_PATH } from '../../src/journal/entry.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { FollowerDeps } from './config.js';

export type ConfirmOutcome =
  | 'confirmed'
  /** The origin has no stream open to this edge. */
  | 'unknown'
  | 'failed';

export interface Confirmer {
  /**
   * Confirms this number. During a request, it waits for the next one; only the latest number is sent. What was
   * confirmed less than `everyMs` ago is not confirmed again.
   */
  confirm(seq: number): void;
  /** Says that this edge stops, unless edges are behind it, which go on. In one attempt. */
  leave(): Promise<void>;
  close(): Promise<void>;
}

export type ConfirmerDeps = Pick<
  FollowerDeps,
  'config' | 'clock' | 'edgeName' | 'instance' | 'open' | 'proof' | 'behind'
>;

export function createConfirmer(
  deps: ConfirmerDeps,
  everyMs: number,
  onOutcome: (outcome: ConfirmOutcome) => void,
): Confirmer {
  const { clock } = deps;
  const closing = new AbortController();
  /** What the origin has taken last, and when it was sent. */
  let taken = { said: '', atMs: Number.NEGATIVE_INFINITY };
  let next: number | undefined;
  let latest = 0;
  let running: Promise<void> | undefined;

  const saidOf = (seq: number): string => JSON.stringify([seq, deps.behind()]);

  async function run(): Promise<void> {
    while (next !== undefined && !closing.signal.aborted) {
      const seq = next;
      next = undefined;
      const sent = { said: saidOf(seq), atMs: clock.monotonicMs() };
      const outcome = await post(deps, { seq, leaves: false }, closing.signal);
      if (outcome === 'confirmed') taken = sent;
      onOutcome(outcome);
    }
    running = undefined;
  }

  return {
    confirm(seq) {
      latest = seq;
      const isNew = saidOf(seq) !== taken.said;
      if (!isNew && running === undefined && clock.monotonicMs() - taken.atMs < everyMs) return;
      next = seq;
      running ??= run();
    },
    async leave() {
      const { connected, away } = deps.behind();
      if (edgesIn(connected) + edgesIn(away) > 0) return;
      next = undefined;
      await running;
      await post(deps, { seq: latest, leaves: true }, closing.signal);
    },
    async close() {
      closing.abort();
      await running;
    },
  };
}

async function post(
  deps: ConfirmerDeps,
  said: Pick<Confirmation, 'seq' | 'leaves'>,
  closing: AbortSignal,
): Promise<ConfirmOutcome> {
  const { clock, config, edgeName: edge, instance } = deps;
  const request = {
    method: 'POST',
    target: CONFIRM_PATH,
    headers: [
      ['content-type', 'application/json'],
      [EDGE_PROOF, deps.proof()],
    ],
    body: Buffer.from(formatConfirmation({ edge, instance, behind: deps.behind(), ...said })),
  } as const;
  const late = (): Error => new Error('confirmation took too long');
  const deadline = { clock, ms: config.connectTimeoutMs, late, signal: closing };
  try {
    const response = await withDeadline(deadline, (signal) => deps.open(request, signal));
    response.body.on('error', () => {}).resume();
    if (response.status === 409) return 'unknown';
    return response.status < 300 ? 'confirmed' : 'failed';
  } catch {
    return 'failed';
  }
}
