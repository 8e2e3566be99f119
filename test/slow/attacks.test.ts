/** The tables of attacks, each at the origin and in every way at an edge. */
import t from 'tap';
import { runAttacks } from '../attacks/run.js';

t.setTimeout(300_000);

void t.test('no attack of the tables gets more than its answer, in whatever way it comes', (t) => runAttacks(t, 'all'));
