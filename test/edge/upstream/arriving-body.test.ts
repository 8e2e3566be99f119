/** A body of the origin that has arrived before anybody reads it. */
import { once } from 'node:events';
import t from 'tap';
import { ArrivingBody } from '../../../edge/upstream/arriving-body.js';
import { Budget } from '../../../src/budget.js';

function arriving(budget = new Budget(1_000_000)): { readonly body: ArrivingBody; readonly aborted: () => number } {
  let aborted = 0;
  const body = new ArrivingBody({
    budget,
    aheadMaxBytes: 200_000,
    resume: () => undefined,
    abort: () => {
      aborted += 1;
    },
  });
  return { body, aborted: () => aborted };
}

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
