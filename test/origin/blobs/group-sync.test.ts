import t from 'tap';
import { createGroupSync } from '../../../origin/blobs/group-sync.js';

interface Begun {
  readonly folder: string;
  end(): void;
  fail(): void;
}

/** A sync whose ends the test decides, and all that were begun. */
function watched() {
  const begun: Begun[] = [];
  const groupSync = createGroupSync(
    (folder) =>
      new Promise((resolve, reject) => {
        begun.push({ folder, end: resolve, fail: () => reject(new Error(`${folder} was not synced`)) });
      }),
  );
  return { begun, groupSync };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Whether it is answered by now, and how. */
async function stateOf(waiting: Promise<void>): Promise<string> {
  const pending = turn().then(() => 'waiting');
  const answered = waiting.then(
    () => 'synced',
    (thrown: Error) => thrown.message,
  );
  return await Promise.race([answered, pending]);
}

void t.test('a sync begins at once where none is under way', async (t) => {
  const { begun, groupSync } = watched();
  const waiting = groupSync('a');
  t.equal(begun.length, 1);
  begun[0]?.end();
  await waiting;
  void groupSync('a');
  t.equal(begun.length, 2, 'what ended covers nobody who asks later');
});

void t.test('nobody is answered by a sync that began before the asking', async (t) => {
  const { begun, groupSync } = watched();
  const first = groupSync('a');
  const second = groupSync('a');
  begun[0]?.end();
  t.equal(await stateOf(first), 'synced');
  t.equal(await stateOf(second), 'waiting');
  const third = groupSync('a');
  t.equal(begun.length, 2);
  begun[1]?.end();
  t.equal(await stateOf(second), 'synced');
  t.equal(await stateOf(third), 'waiting', 'who came while the second ran waits for another');
  begun[2]?.end();
  t.equal(await stateOf(third), 'synced');
  t.equal(begun.length, 3);
});

void t.test('all who come while a sync is under way share the next', async (t) => {
  const { begun, groupSync } = watched();
  const first = groupSync('a');
  const others = Array.from({ length: 20 }, () => groupSync('a'));
  begun[0]?.end();
  await first;
  await turn();
  t.equal(begun.length, 2);
  begun[1]?.end();
  await Promise.all(others);
  t.equal(begun.length, 2);
});

void t.test('a shared sync that fails fails all who waited for it, and nobody else', async (t) => {
  const { begun, groupSync } = watched();
  const first = groupSync('a');
  const [second, third] = [groupSync('a'), groupSync('a')];
  begun[0]?.end();
  t.equal(await stateOf(first), 'synced');
  begun[1]?.fail();
  t.equal(await stateOf(second), 'a was not synced');
  t.equal(await stateOf(third), 'a was not synced');
  const fourth = groupSync('a');
  begun[2]?.end();
  t.equal(await stateOf(fourth), 'synced', 'the next one begins anew');
});

void t.test('a sync that fails does not stand for the one that waits behind it', async (t) => {
  const { begun, groupSync } = watched();
  const [first, second] = [groupSync('a'), groupSync('a')];
  begun[0]?.fail();
  t.equal(await stateOf(first), 'a was not synced');
  begun[1]?.end();
  t.equal(await stateOf(second), 'synced');
});

void t.test('folders do not wait for each other', async (t) => {
  const { begun, groupSync } = watched();
  const [first, other] = [groupSync('a'), groupSync('b')];
  t.same(
    begun.map(({ folder }) => folder),
    ['a', 'b'],
  );
  begun[1]?.end();
  t.equal(await stateOf(other), 'synced');
  t.equal(await stateOf(first), 'waiting');
});
