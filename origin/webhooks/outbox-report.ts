/** What operators do with events: look at the dead letters, and have them sent again. */
import type { Clock } from '../../src/clock.js';
import type { MetaStore } from '../meta/store.js';
import { instantText } from '../respond/media-json.js';

type Meta = Pick<MetaStore, 'outbox'>;

const DEAD_SHOWN_MAX = 20;
const STEP = 500;

/** The newest dead letters are shown. Their content is not: it would name files. */
export async function reportOutbox({ outbox }: Meta): Promise<object> {
  const { waiting, dead, oldestSince } = await outbox.counts();
  const letters = await outbox.dead(DEAD_SHOWN_MAX);
  return {
    waiting,
    dead,
    oldest_since: oldestSince === null ? null : instantText(oldestSince),
    dead_letters: letters.map(({ name, type, id, at, attempts, fault }) => ({
      event: name,
      type,
      id,
      timestamp: instantText(at),
      attempts,
      fault,
    })),
  };
}

/** As many as there are at the start, so that those which die again meanwhile do not keep it going. */
export async function* retryEvents(
  { outbox }: Meta,
  clock: Pick<Clock, 'now'>,
  signal: AbortSignal,
): AsyncGenerator<{ readonly revived: number; readonly left: number }> {
  const { dead } = await outbox.counts();
  let revived = 0;
  while (revived < dead) {
    signal.throwIfAborted();
    const step = await outbox.revive(Math.min(STEP, dead - revived), clock.now());
    if (step === 0) return;
    revived += step;
    yield { revived, left: dead - revived };
  }
}
