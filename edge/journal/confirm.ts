/**
 * Tells the origin how far this edge has come. One request at a time; what
 * comes meanwhile is told by the next one, so that a burst of takedowns costs
 * two requests and not one each.
 */
import { CONFIRM_PATH } from '../../src/journal/entry.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { FollowerDeps } from './config.js';

export type ConfirmOutcome =
  | 'told'
  /** The origin does not know this edge as one that follows. */
  | 'unknown'
  | 'failed';

export interface Confirmer {
  /** Tells this number, or what is told after it while another is under way. */
  tell(seq: number): void;
  close(): Promise<void>;
}

export function createConfirmer(options: FollowerDeps, onOutcome: (outcome: ConfirmOutcome) => void): Confirmer {
  const closing = new AbortController();
  let wanted: number | undefined;
  let running: Promise<void> | undefined;

  async function run(): Promise<void> {
    while (wanted !== undefined && !closing.signal.aborted) {
      const seq = wanted;
      wanted = undefined;
      onOutcome(await post(seq));
    }
    running = undefined;
  }
  async function post(seq: number): Promise<ConfirmOutcome> {
    const attempt = new AbortController();
    const give = (): void => attempt.abort(new Error('confirmation took too long'));
    const timer = options.clock.after(options.config.connectTimeoutMs, give);
    closing.signal.addEventListener('abort', give, { once: true });
    try {
      const answer = await options.open(
        {
          method: 'POST',
          target: CONFIRM_PATH,
          headers: [
            ['content-type', 'application/json'],
            [EDGE_PROOF, options.proof()],
          ],
          body: Buffer.from(JSON.stringify({ edge: options.edgeName, instance: options.instance, seq })),
        },
        attempt.signal,
      );
      answer.body.on('error', () => {}).resume();
      if (answer.status === 409) return 'unknown';
      return answer.status < 300 ? 'told' : 'failed';
    } catch {
      return 'failed';
    } finally {
      timer.cancel();
      closing.signal.removeEventListener('abort', give);
    }
  }

  return {
    tell(seq) {
      wanted = seq;
      running ??= run();
    },
    async close() {
      closing.abort();
      await running;
    },
  };
}
