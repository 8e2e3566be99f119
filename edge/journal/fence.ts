/**
 * Lets a request of another worker, or of an edge behind this one, through once this one has applied the takedown journal
 * as far as that one. Promises: what is answered after that holds nothing that the asking one has dropped.
 */
import { waitFor } from '../../src/abort.js';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import { readPosition } from '../../src/journal/position-field.js';
import { MEDIA_POSITION } from '../../src/wire.js';
import type { AppliedJournal } from './applied-journal.js';

type Asking = { header(name: string): string | undefined };

/** Workers apply an entry within milliseconds of one another. Beyond this, the asking worker asks the origin. */
const CATCH_UP_MS = 500;

export type Applied = Pick<AppliedJournal, 'name' | 'newest' | 'markOf' | 'subscribe'>;

/** For a worker. `applied`: null in generic mode. Undefined: go on at once. Rejects with the refusal. */
export function fence(
  applied: Applied | null,
  request: Asking,
  clock: Clock,
  signal: () => AbortSignal,
): Promise<void> | undefined {
  if (applied === null) return undefined;
  const asked = readPosition(request.header(MEDIA_POSITION) ?? '');
  if (asked === undefined) throw new Fault('misdirected', 'A worker says how far it is in the journal.');
  if (stateOf(applied, asked) === 'other') throw notComparable();
  return reach(applied, asked, clock, signal, notComparable);
}

/** For an edge behind this one, which does not know how far it is while it begins to follow. */
export function fenceEdge(
  applied: Applied,
  request: Asking,
  clock: Clock,
  signal: () => AbortSignal,
): Promise<void> | undefined {
  const asked = readPosition(request.header(MEDIA_POSITION) ?? '');
  return asked === undefined ? undefined : reach(applied, asked, clock, signal, behindTheEdge);
}

function reach(
  applied: Applied,
  asked: JournalPosition,
  clock: Clock,
  signal: () => AbortSignal,
  refusal: () => Fault,
): Promise<void> | undefined {
  const state = stateOf(applied, asked);
  if (state === 'reached') return undefined;
  if (state === 'other') return Promise.reject(refusal());
  return catchUp(applied, asked, clock, signal(), refusal);
}

async function catchUp(
  applied: Applied,
  asked: JournalPosition,
  clock: Clock,
  signal: AbortSignal,
  refusal: () => Fault,
): Promise<void> {
  await waitFor((come) => {
    const look = (): void => {
      if (stateOf(applied, asked) !== 'behind') come();
    };
    const late = clock.after(CATCH_UP_MS, come);
    const unsubscribe = applied.subscribe(look);
    return () => {
      late.cancel();
      unsubscribe();
    };
  }, signal);
  if (stateOf(applied, asked) !== 'reached') throw refusal();
}

function stateOf(applied: Applied, asked: JournalPosition): 'reached' | 'behind' | 'other' {
  if (applied.name !== asked.journal) return 'other';
  if (applied.newest() < asked.seq) return 'behind';
  const mark = applied.markOf(asked.seq);
  // An older entry may be forgotten here. Its number alone then has to do: the newest has been compared with the origin.
  return mark === undefined || asked.mark === null || mark === asked.mark ? 'reached' : 'other';
}

function behindTheEdge(): Fault {
  return new Fault('overloaded', 'This edge does not know yet what the edge behind it knows.', {
    headers: { 'retry-after': '1' },
  });
}

function notComparable(): Fault {
  return new Fault('misdirected', 'This worker has not applied the journal as far.');
}
