/** Limits that several share: bytes of a budget, and slots that are given in the order in which they were asked for. */
import { getEventListeners } from 'node:events';
import t from 'tap';
import { Budget } from '../../src/budget.js';
import { createSlots } from '../../src/slots.js';

void t.test('nobody takes more bytes than are left, and what is given back can be taken again', async (t) => {
  const budget = new Budget(10);
  t.notOk(budget.tryTake(11));
  t.ok(budget.tryTake(4), 'a refusal takes nothing');
  t.notOk(budget.tryTake(7));
  t.ok(budget.tryTake(6), 'to the last byte');
  t.ok(budget.tryTake(0));
  t.notOk(budget.tryTake(1));
  budget.giveBack(3);
  t.notOk(budget.tryTake(4));
  t.ok(budget.tryTake(3));
});

void t.test('whoever finds no slot waits, first come first served, and a slot is given back once', async (t) => {
  const { signal } = new AbortController();
  const slots = createSlots(2);
  const order: string[] = [];
  const take = async (name: string): Promise<() => void> => {
    const release = await slots.take(signal);
    order.push(name);
    return release;
  };
  const [a, b] = [await take('a'), await take('b')];
  const waiting = ['c', 'd', 'e'].map(take);
  await Promise.resolve();
  t.strictSame(order, ['a', 'b']);
  a();
  const c = await waiting[0];
  a();
  a();
  await new Promise(setImmediate);
  t.strictSame(order, ['a', 'b', 'c'], 'a slot that is given back twice is one');
  b();
  c?.();
  for (const each of waiting.slice(1)) (await each)();
  t.strictSame(order, ['a', 'b', 'c', 'd', 'e']);
  t.equal(getEventListeners(signal, 'abort').length, 0);
  await Promise.all([take('f'), take('g')]);
  t.strictSame(order.slice(5), ['f', 'g'], 'both slots are free again');
});

void t.test('whoever leaves waits no longer and takes no slot', async (t) => {
  const slots = createSlots(1);
  const stays = new AbortController();
  const release = await slots.take(stays.signal);
  const leaving = new AbortController();
  const left = slots.take(leaving.signal);
  const next = slots.take(stays.signal);
  leaving.abort(new Error('left'));
  await t.rejects(left, { message: 'left' });
  await t.rejects(slots.take(leaving.signal), { message: 'left' });
  release();
  (await next)();
  await t.rejects(slots.take(leaving.signal), { message: 'left' }, 'also where a slot is free');
  (await slots.take(stays.signal))();
});
