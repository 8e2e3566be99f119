/**
 * What becomes of a job after an attempt: a pure decision from the end of the
 * attempt, the number of attempts before and the configuration.
 */
import type { JobPriority } from '../meta/jobs.js';
import type { ThumbRefusal } from '../meta/media.js';
import type { ThumbOutcome } from '../meta/store.js';
import type { ThumbsConfig } from './config.js';
import type { JobEnd } from './job.js';

/** How an attempt may end. */
export type Attempt =
  | JobEnd
  /** The service itself failed: storage, database or disk. */
  | { readonly kind: 'untried'; readonly detail: string }
  /** An unexpected error, probably a bug. */
  | { readonly kind: 'faulty'; readonly detail: string }
  /** The lease was lost, the media are gone, or the engine is closing. */
  | { readonly kind: 'aborted' }
  /** The blob has no record any more. */
  | { readonly kind: 'gone' };

export type Verdict =
  | { readonly kind: 'finish'; readonly outcome: ThumbOutcome }
  /** Counts an attempt. `priority`: what the job is lowered to; null: it keeps its own. */
  | {
      readonly kind: 'retry';
      readonly delayMs: number;
      readonly priority: JobPriority | null;
      readonly why: string;
    }
  /** Counts no attempt. */
  | { readonly kind: 'give_back'; readonly delayMs: number; readonly why: string }
  | { readonly kind: 'bury'; readonly refusal: ThumbRefusal; readonly why: string }
  | { readonly kind: 'drop' };

/** Why a job goes back that was not needed any more, or not by this process. */
export const ABORTED = 'aborted';

export type QueueConfig = ThumbsConfig['queue'];

/** `attempts` is the number of failed attempts before this one, `random` from 0 up to 1. */
export function verdictOf(attempt: Attempt, attempts: number, config: QueueConfig, random: number): Verdict {
  switch (attempt.kind) {
    case 'made':
      return { kind: 'finish', outcome: { kind: 'made', made: attempt.made, picture: attempt.picture } };
    case 'refused':
      return { kind: 'finish', outcome: { kind: 'refused', reason: attempt.reason, picture: attempt.picture } };
    case 'gone':
      return { kind: 'drop' };
    case 'aborted':
      return { kind: 'give_back', delayMs: 0, why: ABORTED };
    case 'untried':
      return { kind: 'give_back', delayMs: backoffMs(attempts, config, random), why: attempt.detail };
    case 'lost':
      if (attempt.loss === 'aborted') return { kind: 'give_back', delayMs: 0, why: ABORTED };
      // Without a process, the picture was not tried.
      if (attempt.loss === 'start') {
        return { kind: 'give_back', delayMs: backoffMs(attempts, config, random), why: attempt.detail };
      }
      return again(
        `${attempt.loss}: ${attempt.detail}`,
        EXPENSIVE.has(attempt.loss) ? 'too_expensive' : 'failed',
        SLOW.has(attempt.loss),
      );
    case 'missing':
      return again('the original is not in the store', 'failed');
    case 'faulty':
      return again(attempt.detail, 'failed');
  }

  function again(why: string, refusal: ThumbRefusal, slow = false): Verdict {
    if (attempts + 1 >= config.attemptsMax) return { kind: 'bury', refusal, why };
    const delayMs = backoffMs(slow ? attempts + SLOW_DOUBLINGS : attempts, config, random);
    return { kind: 'retry', delayMs, priority: slow ? 'backfill' : null, why };
  }
}

const EXPENSIVE: ReadonlySet<string> = new Set(['time', 'cpu', 'memory']);
/** The machine may have been busy: the job waits longer, and then behind all others. */
const SLOW: ReadonlySet<string> = new Set(['time', 'cpu']);
const SLOW_DOUBLINGS = 3;

/** Doubles after each failure. The jitter, down to a half, keeps jobs that failed together from returning together. */
export function backoffMs(attempts: number, config: QueueConfig, random: number): number {
  const whole = Math.min(config.backoffMaxMs, config.backoffMs * 2 ** Math.min(attempts, 30));
  return Math.round(whole * (0.5 + random / 2));
}
