/**
 * Confirms to the origin how far this edge has applied the journal. One request
 * at a time; numbers that come during a request are confirmed together by the
 * next one, so that a burst of takedowns needs two requests.
 */
import { withDeadline } from '../../src/clock.js';
import { CONFIRM_PATH } from '../../src/journal/entry.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { FollowerDeps } from './config.js';

export type ConfirmOutcome =
  | 'confirmed'
  /** The origin has no stream open to this edge. */
  | 'unknown'
  | 'failed';

export interface Confirmer {
  /** Confirms this number. During a request, it waits for the next one; only the latest number is sent. */
  confirm(seq: number): void;
  close(): Promise<void>;
}

export function createConfirmer(deps: FollowerDeps, onOutcome: (outcome: ConfirmOutcome) => void): Confirmer {
  const { config, clock } = deps;
  const closing = new AbortController();
  const late = (): Error => new Error('confirmation took too long');
  let next: number | undefined;
  let running: Promise<void> | undefined;

  async function run(): Promise<void> {
    while (next !== undefined && !closing.signal.aborted) {
      const seq = next;
      next = undefined;
      onOutcome(await post(seq));
    }
    running = undefined;
  }
  async function post(seq: number): Promise<ConfirmOutcome> {
    const request = {
      method: 'POST',
      target: CONFIRM_PATH,
      headers: [
        ['content-type', 'application/json'],
        [EDGE_PROOF, deps.proof()],
      ],
      body: Buffer.from(JSON.stringify({ edge: deps.edgeName, instance: deps.instance, seq })),
    } as const;
    const deadline = { clock, ms: config.connectTimeoutMs, late, signal: closing.signal };
    try {
      const response = await withDeadline(deadline, (signal) => deps.open(request, signal));
      response.body.on('error', () => {}).resume();
      if (response.status === 409) return 'unknown';
      return response.status < 300 ? 'confirmed' : 'failed';
    } catch {
      return 'failed';
    }
  }

  return {
    confirm(seq) {
      next = seq;
      running ??= run();
    },
    async close() {
      closing.abort();
      await running;
    },
  };
}
