/**
 * Keeps an origin from answering an edge that knows more than it does: what that edge has dropped would come back to it.
 * Over one database an origin is behind for a moment at most. One that hangs on a database which others have left is
 * behind for good, and answers no edge that follows them.
 */
import { Fault } from '../../src/errors.js';
import { readPosition, writePosition } from '../../src/journal/position-field.js';
import type { JournalSource } from '../../src/journal/source.js';
import { MEDIA_POSITION } from '../../src/wire.js';

export interface PositionFence {
  /** Rejects with the refusal. Undefined: go on at once. */
  admit(request: Asking): Promise<void> | undefined;
  /** The position, as an answer to an edge states it. What is looked up from now on is not older. */
  told(): string;
}

interface Asking {
  readonly sender: string;
  header(name: string): string | undefined;
}

type Known = Pick<JournalSource, 'name' | 'newest' | 'markOf' | 'refresh'>;

export function createPositionFence(journal: Known): PositionFence {
  let written = { seq: -1, text: '' };
  return {
    admit(request) {
      if (request.sender === 'client') return undefined;
      const asked = readPosition(request.header(MEDIA_POSITION) ?? '');
      // An edge that is in another journal hears of it by the stream, and has nothing of this one.
      if (asked?.journal !== journal.name) return undefined;
      const isKnown = (): boolean => {
        const mark = journal.markOf(asked.seq);
        return asked.seq <= journal.newest() && (mark === undefined || asked.mark === null || mark === asked.mark);
      };
      if (isKnown()) return undefined;
      return journal.refresh().then(() => {
        if (isKnown()) return;
        const headers = { 'retry-after': '1' };
        throw new Fault('overloaded', 'This origin does not know yet what the edge knows.', { headers });
      });
    },
    told() {
      const seq = journal.newest();
      if (written.seq !== seq) {
        written = { seq, text: writePosition({ journal: journal.name, seq, mark: journal.markOf(seq) ?? null }) };
      }
      return written.text;
    },
  };
}
