import fc from 'fast-check';
import t from 'tap';
import { FieldPool } from '../../../edge/cache/field-pool.js';
import type { HeaderList } from '../../../src/http/reply.js';

void t.test('fields that are equal become one object, and say the same in the same order', async (t) => {
  const list = fc.array(fc.tuple(fc.constantFrom('etag', 'vary', 'x'), fc.constantFrom('a', 'b', 'c')));
  fc.assert(
    fc.property(fc.array(list), (lists) => {
      const pool = new FieldPool();
      const objects = new Map<string, HeaderList[number]>();
      for (const each of lists) {
        const shared = pool.share(each);
        t.same(shared, each);
        for (const field of shared) {
          const name = field.join();
          if ((objects.get(name) ?? field) !== field) return false;
          objects.set(name, field);
        }
      }
      return true;
    }),
    { numRuns: 20 },
  );
});

void t.test('the pool stays small, whatever responses hold', async (t) => {
  const pool = new FieldPool();
  const twice = (name: string, value: string): boolean => {
    const [one] = pool.share([[name, value]]);
    const [other] = pool.share([[name, value]]);
    return one === other;
  };
  for (let n = 0; n < 64; n += 1) t.ok(twice('etag', String(n)), 'a name with few values');
  t.notOk(twice('etag', '64'), 'a name with many');
  t.ok(twice('etag', '63'), 'those before are still shared');
  pool.share([['long', 'short']]);
  t.ok(twice('long', 'x'.repeat(512)));
  t.notOk(twice('long', 'x'.repeat(513)), 'a long value');
  for (let n = 0; n < 300; n += 1) pool.share([[`name-${n}`, 'v']]);
  t.notOk(twice('one-name-more', 'v'));
});
