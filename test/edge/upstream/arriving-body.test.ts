/** A body of the origin that has arrived before anybody reads it. */
import { once } from 'node:events';
import t from 'tap';
import { ArrivingBody, GIVEN_UP } from '../../../edge/upstream/arriving-body.js';
import { Budget } from '../../../src/budget.js';

function arriving(
  budget = new Budget(1_000_000),
  aheadMaxBytes = 200_000,
): { readonly body: ArrivingBody; readonly aborted: () => readonly Error[]; readonly resumed: () => number } {
  const aborted: Error[] = [];
  let resumed = 0;
  const body = new ArrivingBody({
    budget,
    aheadMaxBytes,
    resume: () => {
      resumed += 1;
    },
    abort: (error) => void aborted.push(error),
  });
  return { body, aborted: () => aborted, resumed: () => resumed };
}

/** How much a budget has left. */
function leftOf(budget: Budget): number {
  let left = 0;
  for (let bytes = 2 ** 20; bytes >= 1; bytes /= 2) if (budget.tryTake(bytes)) left += bytes;
  budget.giveBack(left);
  return left;
}

const FREE = 65_536;

void t.test('a body is taken whole once its last byte has arrived', async (t) => {
  const budget = new Budget(100_000);
  const { body } = arriving(budget);
  body.receive(Buffer.from('one'));
  t.equal(body.takeWhole(), undefined, 'not before');
  body.receive(Buffer.from('two'));
  t.ok(body.complete());
  t.equal(body.takeWhole()?.toString(), 'onetwo');
  await once(body, 'close');
  t.ok(budget.tryTake(100_000), 'and its memory is given back');
});

void t.test('an empty body is taken whole too', async (t) => {
  const { body } = arriving();
  body.complete();
  t.equal(body.takeWhole()?.length, 0);
  await once(body, 'close');
});

void t.test('nothing is taken of a body that was given up or is read piece by piece', async (t) => {
  const { body } = arriving();
  body.receive(Buffer.from('one'));
  body.destroy();
  t.equal(body.takeWhole(), undefined);
  const other = arriving().body;
  other.receive(Buffer.from('three'));
  const pieces: string[] = [];
  for await (const piece of other) {
    pieces.push(String(piece));
    if (pieces.length === 1) other.complete();
  }
  t.same(pieces, ['three']);
});

void t.test('what arrives beyond 64 KiB is taken from the budget, up to the limit of the body', async (t) => {
  const budget = new Budget(100_000);
  const { body } = arriving(budget, 80_000);
  const receive = (bytes: number): readonly [goesOn: boolean, left: number] => [
    body.receive(Buffer.alloc(bytes)),
    leftOf(budget),
  ];
  t.strictSame(receive(FREE - 1), [true, 100_000]);
  t.strictSame(receive(1), [true, 100_000], 'what every body may have');
  t.strictSame(receive(50_000), [true, 50_000]);
  t.strictSame(receive(30_000), [true, 20_000]);
  t.strictSame(receive(1), [false, 20_000], 'no more of one body');
  const other = arriving(budget, 80_000).body;
  t.notOk(other.receive(Buffer.alloc(FREE + 20_001)), 'no more than all bodies may have');
  t.equal(leftOf(budget), 20_000);
  body.destroy();
  other.destroy();
  await Promise.all([once(body, 'close'), once(other, 'close')]);
  t.equal(leftOf(budget), 100_000);
});

void t.test('a body that has arrived is within the budget as a whole, or its owner is told', async (t) => {
  const budget = new Budget(100_000);
  const [fits, waits] = [arriving(budget).body, arriving(budget).body];
  fits.receive(Buffer.alloc(60_000));
  t.equal(leftOf(budget), 100_000);
  t.equal(fits.complete(), true);
  t.equal(leftOf(budget), 40_000);
  waits.receive(Buffer.alloc(40_001));
  t.equal(waits.complete(), false);
  t.equal(leftOf(budget), 40_000);
  for (const body of [fits, waits]) {
    body.resume();
    await once(body, 'close');
  }
  t.equal(leftOf(budget), 100_000, 'each byte is given back once');
});

void t.test('a reader that takes what waits gives the budget back and lets the origin go on', async (t) => {
  const budget = new Budget(100_000);
  const { body, resumed } = arriving(budget);
  body.receive(Buffer.alloc(FREE + 70_000));
  t.equal(leftOf(budget), 30_000);
  const before = resumed();
  body.read();
  t.equal(leftOf(budget), 100_000);
  t.ok(resumed() > before);
  body.receive(Buffer.alloc(FREE + 10));
  t.equal(leftOf(budget), 99_990);
  body.destroy();
  await once(body, 'close');
  t.equal(leftOf(budget), 100_000);
});

void t.test('a body that is destroyed ends the response, with the reason if there is one', async (t) => {
  const [given, broken] = [arriving(), arriving()];
  given.body.destroy();
  const reason = new Error('broken');
  broken.body.destroy(reason);
  await Promise.all([given, broken].map(({ body }) => new Promise((resolve) => body.once('close', resolve))));
  t.strictSame([given.aborted(), broken.aborted()], [[GIVEN_UP], [reason]]);
  const complete = arriving().body;
  complete.receive(Buffer.from('one'));
  complete.complete();
  complete.destroy();
  t.equal(complete.takeWhole(), undefined, 'nor is anything left of one that was complete');
});
