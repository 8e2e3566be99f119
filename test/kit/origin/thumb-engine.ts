/**
 * An engine in a process of its own, to be killed: opens the house in the
 * folder it is given and works. Says `due` once it has begun to write down so
 * many results, of which the last may be half written and none is answered any
 * more, or `drained` when no job is left.
 */
import { sleep, systemClock } from '../../../src/clock.js';
import { openThumbHouse } from './thumb-fixture.js';

const [folder = '', config = '{}', script, endsMax = '1'] = process.argv.slice(2);
const house = await openThumbHouse(folder);
const finish = house.meta.finishThumbs.bind(house.meta);
let ends = 0;
house.meta.finishThumbs = async (...given) => {
  ends += 1;
  if (ends < Number(endsMax)) return finish(...given);
  if (ends === Number(endsMax)) {
    void finish(...given);
    process.send?.('due');
  }
  return new Promise(() => undefined);
};
const thumbs = await house.open(JSON.parse(config), script === undefined ? undefined : new URL(script));
for (;;) {
  const { waiting, leased } = await thumbs.status();
  if (waiting + leased === 0 && ends < Number(endsMax)) break;
  await sleep(systemClock, 10);
}
process.send?.('drained');
