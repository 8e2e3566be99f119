/** What an origin answers an edge that has applied more of the journal than it knows. */
import t from 'tap';
import { createPositionFence } from '../../../origin/edges/position-fence.js';
import { readPosition, writePosition } from '../../../src/journal/position-field.js';
import { MemoryJournal, mediaId } from '../../kit/origin/journal.js';

function setUp() {
  const journal = new MemoryJournal('j');
  journal.add('delete', [mediaId(1)]);
  const fence = createPositionFence(journal);
  const ask = (field: string | undefined, sender: 'edge' | 'client' = 'edge') =>
    fence.admit({ sender, header: () => field });
  const at = (seq: number, mark: string | null = null, name = 'j') => writePosition({ journal: name, seq, mark });
  return { journal, fence, ask, at };
}

void t.test('an edge that knows no more than the origin is not held up', async (t) => {
  const { journal, ask, at } = setUp();
  const mark = journal.markOf(1) ?? null;
  for (const field of [undefined, 'nonsense', at(0), at(1), at(1, mark), at(9, null, 'another journal')]) {
    t.equal(ask(field), undefined, field ?? 'none');
  }
  t.equal(ask(at(9), 'client'), undefined, 'whoever is no edge has no say');
});

void t.test('an origin that is behind looks once, and refuses what it still does not know', async (t) => {
  const { journal, ask, at } = setUp();
  let looks = 0;
  journal.elsewhere = () => {
    looks += 1;
  };
  const refusal = { code: 'overloaded', headers: { 'retry-after': '1' } };
  await t.rejects(ask(at(2)) ?? Promise.resolve(), refusal);
  t.equal(looks, 1);
  await t.rejects(ask(at(1, 'of another history')) ?? Promise.resolve(), refusal);
  journal.elsewhere = () => journal.add('delete', [mediaId(2)]);
  await ask(at(2));
  t.equal(journal.newest(), 2);
});

void t.test('an answer states what the origin knew when it looked', async (t) => {
  const { journal, fence } = setUp();
  t.same(readPosition(fence.told()), { journal: 'j', seq: 1, mark: journal.markOf(1) });
  journal.add('delete', [mediaId(2)]);
  t.same(readPosition(fence.told()), { journal: 'j', seq: 2, mark: journal.markOf(2) });
});
