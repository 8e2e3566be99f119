/** Extents of bytes, compared with sets of single bytes. */
import * as fc from 'fast-check';
import t from 'tap';
import { type Extent, indexAfter, joined, put, without, zeros } from '../../../../origin/ingest/strip/overwrites.js';

const extent = fc.tuple(fc.nat(30), fc.nat(30)).map(([from, to]) => ({ from, to }));

function bytesOf(extents: readonly Extent[]): ReadonlySet<number> {
  return new Set(
    extents.flatMap(({ from, to }) => Array.from({ length: Math.max(0, to - from) }, (_, at) => from + at)),
  );
}

/** The fewest extents that hold these bytes, in order. */
function extentsOf(bytes: ReadonlySet<number>): readonly Extent[] {
  const found: { from: number; to: number }[] = [];
  for (const at of [...bytes].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last?.to === at) last.to = at + 1;
    else found.push({ from: at, to: at + 1 });
  }
  return found;
}

void t.test('joined extents hold the same bytes, in as few extents as can be', async (t) => {
  fc.assert(
    fc.property(fc.array(extent, { maxLength: 8 }), (extents) => {
      t.same(joined(extents), extentsOf(bytesOf(extents)));
    }),
    { numRuns: 300 },
  );
});

void t.test('what is left without some extents are the other bytes', async (t) => {
  fc.assert(
    fc.property(extent, fc.array(extent, { maxLength: 8 }), (whole, others) => {
      const taken = joined(others);
      const takenBytes = bytesOf(taken);
      const left = new Set([...bytesOf([whole])].filter((at) => !takenBytes.has(at)));
      t.same(without(whole, taken), extentsOf(left));
    }),
    { numRuns: 300 },
  );
});

void t.test('the first extent behind a place is found', async (t) => {
  fc.assert(
    fc.property(fc.array(extent, { maxLength: 8 }), fc.nat(31), (extents, at) => {
      const inOrder = extents.toSorted((a, b) => a.from - b.from);
      const found = inOrder.findIndex(({ from }) => from > at);
      t.equal(indexAfter(inOrder, at), found === -1 ? inOrder.length : found);
    }),
    { numRuns: 300 },
  );
});

void t.test('an overwrite is of bytes or of zeros, and never of less than nothing', async (t) => {
  t.same(zeros({ from: 3, to: 8 }), { at: 3, bytes: undefined, length: 5 });
  t.same(zeros({ from: 8, to: 3 }), { at: 8, bytes: undefined, length: 0 });
  t.same(put(4, Buffer.from('free')), { at: 4, bytes: Buffer.from('free'), length: 4 });
});
