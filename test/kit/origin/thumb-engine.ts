/**
 * An engine in a process of its own, to be killed: opens the fixture in the given
 * folder and works. Sends `due` once it has begun to record so many results; the
 * last may be half recorded, and further ones never are. Sends `drained` when no
 * job is left.
 */
import { sleep, systemClock } from '../../../src/clock.js';
import { openThumbFixture } from './thumb-fixture.js';

const [folder = '', config = '{}', script, endsMax = '1'] = process.argv.slice(2);
const fixture = await openThumbFixture(folder);
const finish = fixture.meta.finishThumbs.bind(fixture.meta);
let ends = 0;
fixture.meta.finishThumbs = async (...given) => {
  ends += 1;
  if (ends < Number(endsMax)) return finish(...given);
  if (ends === Number(endsMax)) {
    void finish(...given);
    process.send?.('due');
  }
  return new Promise(() => undefined);
};
await fixture.open(JSON.parse(config), script === undefined ? undefined : new URL(script));
for (;;) {
  const { waiting, leased } = await fixture.meta.jobs.counts();
  if (waiting + leased === 0 && ends < Number(endsMax)) break;
  await sleep(systemClock, 10);
}
process.send?.('drained');
