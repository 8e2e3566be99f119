/**
 * An engine in a process of its own, to be killed at any moment: opens the
 * house in the folder it is given, works, and tells how many jobs are left
 * whenever that changes.
 */
import { sleep, systemClock } from '../../src/clock.js';
import { openThumbHouse } from './thumb-house.js';

const [folder = '', config = '{}', script] = process.argv.slice(2);
const house = await openThumbHouse(folder);
const thumbs = await house.open(JSON.parse(config), script === undefined ? undefined : new URL(script));
for (let told = -1; told !== 0; await sleep(systemClock, 10)) {
  const { waiting, leased } = await thumbs.status();
  const left = waiting + leased;
  if (left !== told) process.send?.(left);
  told = left;
}
