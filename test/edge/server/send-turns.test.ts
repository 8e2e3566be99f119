/** What streamed bodies of all connections send in one turn of the event loop. */
import t from 'tap';
import { createSendTurns } from '../../../edge/server/fastlane/send-turns.js';

function manual() {
  const scheduled: (() => void)[] = [];
  const turns = createSendTurns({ bytesMax: 100, bytesMaxBesideNew: 20 }, (run) => scheduled.push(run));
  const sent: string[] = [];
  return {
    turns,
    sent,
    scheduled,
    /** Takes for a piece, and notes when it is sent. */
    take: (name: string, bytes: number): void => {
      const wait = turns.take(bytes);
      if (wait === undefined) sent.push(name);
      else void wait.then(() => sent.push(name));
    },
    turn: async (): Promise<string> => {
      scheduled.shift()?.();
      await new Promise(setImmediate);
      return sent.splice(0).join('');
    },
  };
}

void t.test('pieces beyond the limit of a turn are sent in the next ones, in their order', async (t) => {
  const { take, turn, sent, scheduled } = manual();
  for (const name of 'abc') take(name, 40);
  t.equal(sent.splice(0).join(''), 'abc');
  for (const name of 'defg') take(name, 60);
  t.equal(sent.length, 0);
  t.equal(await turn(), 'de');
  take('h', 1_000);
  take('i', 1);
  t.equal(await turn(), 'fg');
  t.equal(await turn(), 'h', 'each turn sends at least one');
  t.equal(await turn(), 'i');
  await turn();
  t.equal(scheduled.length, 0, 'it rests when nothing is sent');
  take('j', 1);
  t.equal(sent.join(''), 'j');
});

void t.test('what is sent in any case counts', async (t) => {
  const { turns, take, turn, sent } = manual();
  turns.count(100);
  take('a', 1);
  t.equal(sent.length, 0);
  t.equal(await turn(), 'a');
});

void t.test('less is sent beside new connections', async (t) => {
  const { turns, take, turn, sent } = manual();
  take('a', 10);
  take('b', 10);
  turns.onConnection();
  for (const name of 'cdefgh') take(name, 10);
  t.equal(sent.splice(0).join(''), 'ab');
  t.equal(await turn(), 'cd', 'in the turn after it');
  t.equal(await turn(), 'efgh', 'and not for longer');
});
