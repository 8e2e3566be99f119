/** The tables of attacks. test/slow/attacks.test.ts sends each in every way. */
import t from 'tap';
import { runAttacks } from './run.js';

void t.test('no attack of the tables gets more than its answer', (t) => runAttacks(t, 'some'));
