/** The order in which several origins are asked for one key. */
import * as fc from 'fast-check';
import t from 'tap';
import { inOrderFor } from '../../../edge/upstream/spread.js';

const ORIGINS = ['http://a:9000', 'http://b:9000', 'http://c:9000', 'http://d:9000'].map((url) => ({ url }));
const urlsOf = (origins: readonly { readonly url: string }[]): readonly string[] => origins.map(({ url }) => url);

void t.test('each key has an order of all origins, which does not depend on how they are listed', (t) => {
  fc.assert(
    fc.property(fc.string(), fc.shuffledSubarray(ORIGINS, { minLength: 4 }), (key, listed) => {
      const order = urlsOf(inOrderFor(key, listed));
      return (
        JSON.stringify([...order].sort()) === JSON.stringify(urlsOf(ORIGINS)) &&
        JSON.stringify(order) === JSON.stringify(urlsOf(inOrderFor(key, ORIGINS)))
      );
    }),
  );
  t.end();
});

void t.test('an origin that leaves moves only the keys that were first at it', (t) => {
  fc.assert(
    fc.property(fc.string(), fc.constantFrom(...ORIGINS), (key, gone) => {
      const rest = ORIGINS.filter((each) => each !== gone);
      const expected = urlsOf(inOrderFor(key, ORIGINS)).filter((url) => url !== gone.url);
      return JSON.stringify(urlsOf(inOrderFor(key, rest))) === JSON.stringify(expected);
    }),
  );
  t.end();
});

void t.test('keys that differ in little are spread evenly', (t) => {
  const counts = new Map<string, number>();
  for (let number = 0; number < 4_000; number += 1) {
    const first = inOrderFor(`192.0.${number >> 8}.${number & 255}`, ORIGINS)[0]?.url ?? '';
    counts.set(first, (counts.get(first) ?? 0) + 1);
  }
  for (const [url, count] of counts) t.ok(count > 850 && count < 1_150, `${url}: ${count} of 4,000`);
  t.equal(counts.size, 4);
  t.end();
});
