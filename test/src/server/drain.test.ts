/** The rest of a body that nobody needs: read within limits of size, time and silence, and nothing stays behind. */
import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import t from 'tap';
import { type DrainLimits, drain } from '../../../src/server/drain.js';
import { ManualClock } from '../../kit/clock.js';

const LIMITS: DrainLimits = { sizeMaxBytes: 10, withinMs: 1_000, idleMs: 300 };

function draining(limits: DrainLimits = LIMITS) {
  const clock = new ManualClock();
  const request = Object.assign(new PassThrough(), { complete: false });
  const listenersBefore = request.eventNames().map((name) => request.listenerCount(name));
  let over = false;
  void drain(request as unknown as IncomingMessage, limits, clock).then(() => {
    over = true;
  });
  return {
    clock,
    request,
    isOver: async (): Promise<boolean> => {
      await new Promise(setImmediate);
      return over;
    },
    arrives: async (bytes: number): Promise<void> => {
      request.write(Buffer.alloc(bytes));
      await new Promise(setImmediate);
    },
    leftovers: () => [
      clock.pending,
      request.eventNames().map((name) => request.listenerCount(name)).length - listenersBefore.length,
      request.listenerCount('data'),
    ],
  };
}

void t.test('it is over with the body, and with a client that leaves', async (t) => {
  const whole = draining();
  await whole.arrives(3);
  t.notOk(await whole.isOver());
  whole.request.end();
  await new Promise(setImmediate);
  t.ok(await whole.isOver());
  t.strictSame(whole.leftovers(), [0, 0, 0]);
  const left = draining();
  left.request.destroy();
  t.ok(await left.isOver());
  t.equal(left.clock.pending, 0);
});

void t.test('a body that has arrived or been given up already needs no time', async (t) => {
  for (const state of ['complete', 'readableEnded', 'destroyed'] as const) {
    const clock = new ManualClock();
    const request = { complete: false, readableEnded: false, destroyed: false, [state]: true };
    await drain(request as unknown as IncomingMessage, LIMITS, clock);
    t.equal(clock.pending, 0, state);
  }
});

void t.test('as many bytes as allowed are read, and no more', async (t) => {
  const { arrives, isOver, leftovers } = draining();
  await arrives(4);
  await arrives(6);
  t.notOk(await isOver());
  await arrives(1);
  t.ok(await isOver());
  t.strictSame(leftovers(), [0, 0, 0]);
});

void t.test('a client that sends nothing for a while, or sends for too long, is waited for no longer', async (t) => {
  const silent = draining();
  silent.clock.advance(299);
  t.notOk(await silent.isOver());
  silent.clock.advance(1);
  t.ok(await silent.isOver());
  t.equal(silent.clock.pending, 0);

  const dripping = draining();
  for (let at = 0; at < 4; at += 1) {
    dripping.clock.advance(249);
    await dripping.arrives(1);
  }
  t.notOk(await dripping.isOver(), 'each byte begins the wait anew');
  dripping.clock.advance(3);
  t.notOk(await dripping.isOver());
  dripping.clock.advance(1);
  t.ok(await dripping.isOver(), 'but not the whole time');
  t.equal(dripping.clock.pending, 0);

  const patient = draining({ sizeMaxBytes: 10, withinMs: 1_000 });
  patient.clock.advance(999);
  t.notOk(await patient.isOver(), 'without a limit on silence, the whole time counts');
  patient.clock.advance(1);
  t.ok(await patient.isOver());
});
