/**
 * Lets a request of another worker through once this worker has applied the takedown journal as far as that one.
 * Promises: what is answered after that holds nothing that the asking worker has dropped.
 */
import { waitFor } from '../../src/abort.js';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import { MEDIA_POSITION } from '../../src/wire.js';
import type { AppliedJournal } from '../journal/applied-journal.js';
import type { EdgeRequest } from '../request.js';
import { readPosition } from './position-field.js';

/** Workers apply an entry within milliseconds of one another. Beyond this, the asking worker asks the origin. */
const CATCH_UP_MS = 500;

export type Applied = Pick<AppliedJournal, 'name' | 'newest' | 'markOf' | 'subscribe'>;

/** `applied`: null in generic mode. Undefined: go on at once. Rejects with the refusal. */
export function fence(
  applied: Applied | null,
  request: Pick<EdgeRequest, 'header'>,
  clock: Clock,
  signal: () => AbortSignal,
): Promise<void> | undefined {
  if (applied === null) return undefined;
  const asked = readPosition(request.header(MEDIA_POSITION) ?? '');
  if (asked === undefined) throw new Fault('misdirected', 'A worker says how far it is in the journal.');
  const state = stateOf(applied, asked);
  if (state === 'reached') return undefined;
  if (state === 'other') throw notComparable();
  return catchUp(applied, asked, clock, signal());
}

async function catchUp(applied: Applied, asked: JournalPosition, clock: Clock, signal: AbortSignal): Promise<void> {
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
  if (stateOf(applied, asked) !== 'reached') throw notComparable();
}

function stateOf(applied: Applied, asked: JournalPosition): 'reached' | 'behind' | 'other' {
  if (applied.name !== asked.journal) return 'other';
  if (applied.newest() < asked.seq) return 'behind';
  const mark = applied.markOf(asked.seq);
  // An older entry may be forgotten here. Its number alone then has to do: the newest has been compared with the origin.
  return mark === undefined || asked.mark === null || mark === asked.mark ? 'reached' : 'other';
}

function notComparable(): Fault {
  return new Fault('misdirected', 'This worker has not applied the journal as far.');
}
