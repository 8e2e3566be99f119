/** The slots of passed requests: shares, limits of one sender, and giving back. */
import t from 'tap';
import { passSection } from '../../../edge/pass/config.js';
import { createDrains, createPassSlots, type PassKind } from '../../../edge/pass/slots.js';
import { configured } from '../../kit/deps.js';

const claim = (kind: PassKind, clientAddress: string, subject?: string) => ({ kind, clientAddress, subject });

void t.test('uploads leave a share for requests without a body, and both leave one for admins', async (t) => {
  const slots = createPassSlots(configured(passSection, { concurrentMax: 8, reservedMax: 2, perClientMax: 0 }));
  const fill = (kind: PassKind): number => {
    const before = slots.active;
    for (;;) {
      try {
        slots.take(claim(kind, '192.0.2.1'));
      } catch {
        return slots.active - before;
      }
    }
  };
  t.same([fill('body'), fill('bodiless'), fill('admin')], [4, 2, 2]);
});

void t.test('one address and one subject have a limit within each kind, and admins have none', async (t) => {
  const slots = createPassSlots(configured(passSection, { perClientMax: 2 }));
  const first = slots.take(claim('body', '2001:db8::1', 'ann'));
  slots.take(claim('body', '2001:db8::2', 'bob'));
  const busy = { code: 'overloaded', headers: { 'retry-after': '1' } };
  t.throws(() => slots.take(claim('body', '2001:db8::3', 'cat')), busy, 'the same network');
  slots.take(claim('body', '192.0.2.1', 'ann'));
  t.throws(() => slots.take(claim('body', '192.0.2.2', 'ann')), busy, 'the same subject');
  for (const kind of ['bodiless', 'admin'] as const) slots.take(claim(kind, '2001:db8::4', 'ann'));
  first();
  first();
  t.equal(slots.active, 4, 'a slot is given back once');
  slots.take(claim('body', '2001:db8::3', 'ann'));
});

void t.test('refused bodies are dropped for a limited number of clients, and of one client', async (t) => {
  const drains = createDrains(configured(passSection, { drainsMax: 3, drainsPerClientMax: 2 }));
  const finish = drains.take('192.0.2.1');
  t.ok(drains.take('192.0.2.1'));
  t.notOk(drains.take('192.0.2.1'));
  t.ok(drains.take('192.0.2.2'));
  t.notOk(drains.take('192.0.2.3'));
  finish?.();
  t.ok(drains.take('192.0.2.1'));
});
