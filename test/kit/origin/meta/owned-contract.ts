/** What every implementation of MetaStore must do with all media of an owner. */
import type { Test } from 'tap';
import { SCANNER } from '../../../../origin/meta/media.js';
import type { MetaStore, NewMedia, OwnedOutcome, OwnerAct } from '../../../../origin/meta/store.js';
import type { MediaId, Sha256 } from '../../../../src/ids.js';
import { adminMark, findingsOf, type MetaUnderTest, T0, uploadOf } from './contract.js';

const hashOf = (n: number): Sha256 => n.toString(16).padStart(64, '0') as Sha256;
const DELETE: OwnerAct = { kind: 'delete', by: 'eve' };
const QUARANTINE: OwnerAct = { kind: 'quarantine', mark: adminMark(T0 + 5) };
const RESTORE: OwnerAct = { kind: 'restore' };

async function put(store: MetaStore, n: number, given: Partial<NewMedia> = {}): Promise<MediaId> {
  const outcome = await store.commitUpload(uploadOf(hashOf(n), given));
  if (outcome.kind !== 'created') throw new Error(outcome.kind);
  return outcome.media.record.id;
}

/** The whole walk. `steps` are how many media each one of it would change. */
async function takeDown(store: MetaStore, owner: string, act: OwnerAct, limit = 100, now = T0 + 5) {
  const done = { media: 0, others: 0, steps: [] as number[] };
  let after: MediaId | null = null;
  do {
    const page = await store.owned({ owner, act: act.kind, after, limit, now });
    done.steps.push(page.ids.length);
    const step: OwnedOutcome = await store.takeDownOwned(owner, page.ids, act, now);
    done.media += step.media;
    done.others += step.others;
    after = page.next;
  } while (after !== null);
  return done;
}

const stateOf = async (store: MetaStore, id: MediaId): Promise<string> => (await store.find(id, T0 + 6)).kind;
const entriesOf = async (store: MetaStore): Promise<readonly unknown[]> =>
  (await store.journal.read(0, 100)).map(({ cause, ids }) => [cause, ids.length]);

export async function metaOwnedContract(t: Test, kit: MetaUnderTest): Promise<void> {
  await t.test('a delete of all media of an owner leaves those of others, and names 64 in an entry', async (t) => {
    let store = await kit.fresh();
    const own: MediaId[] = [];
    for (let n = 0; n < 70; n += 1) own.push(await put(store, n));
    const theirs = await put(store, 0, { owner: 'bob', public: true });
    await store.remove(own[3] as MediaId, 'mallory', T0 + 1);
    t.same(await takeDown(store, 'ada', DELETE), { media: 69, others: 0, steps: [69] });
    t.same(await entriesOf(store), [
      ['delete', 1],
      ['delete', 64],
      ['delete', 5],
    ]);
    t.same(await takeDown(store, 'ada', DELETE), { media: 0, others: 0, steps: [0] }, 'again');
    t.equal(store.journal.newest(), 3);
    store = await kit.again(store);
    t.match(await store.find(own[69] as MediaId, T0 + 6), {
      record: { state: { kind: 'deleted', at: T0 + 5, by: 'eve' } },
    });
    t.match(await store.find(own[3] as MediaId, T0 + 6), { record: { state: { by: 'mallory' } } });
    t.equal(await store.takedownSeqOf(own[69] as MediaId), 3);
    t.equal(await stateOf(store, theirs), 'live');
    t.equal(await store.isUnreferenced(hashOf(0)), false);
    t.equal(await store.isUnreferenced(hashOf(1)), true, 'the bytes may be swept');
    t.same(await findingsOf(store), []);
    await store.close();
  });

  await t.test('a walk in steps does the same, and each step looks at no more than its limit', async (t) => {
    const store = await kit.fresh();
    for (let n = 0; n < 7; n += 1) await put(store, n);
    t.same(await takeDown(store, 'ada', DELETE, 3), { media: 7, others: 0, steps: [3, 3, 1] });
    t.same(await takeDown(store, 'ada', DELETE, 3), { media: 0, others: 0, steps: [0, 0, 0] });
    t.same(await takeDown(store, 'nobody', DELETE), { media: 0, others: 0, steps: [0] });
    await store.close();
  });

  await t.test('a quarantine covers the bytes under the ids of others, and counts each media once', async (t) => {
    const store = await kit.fresh();
    const one = await put(store, 1);
    const open = await put(store, 1, { public: true });
    const two = await put(store, 2);
    const theirs = await put(store, 2, { owner: 'bob', public: true });
    const apart = await put(store, 3, { owner: 'bob' });
    const gone = await put(store, 4, { expiresAt: T0 + 5 });
    t.same(await takeDown(store, 'ada', QUARANTINE, 1), { media: 3, others: 1, steps: [1, 0, 1, 0, 0] });
    for (const id of [one, open, two, theirs]) t.equal(await stateOf(store, id), 'quarantined');
    t.equal(await stateOf(store, apart), 'live');
    t.equal(await stateOf(store, gone), 'expired');
    t.match(await store.findBlob(hashOf(2)), { quarantine: adminMark(T0 + 5) });
    t.same(await entriesOf(store), [
      ['quarantine', 2],
      ['quarantine', 2],
    ]);
    t.equal((await store.commitUpload(uploadOf(hashOf(1), { owner: 'bob' }))).kind, 'quarantined');
    t.same(await takeDown(store, 'ada', QUARANTINE), { media: 0, others: 0, steps: [0] }, 'again');

    t.same(await takeDown(store, 'ada', RESTORE), { media: 3, others: 1, steps: [3] });
    for (const id of [one, open, two, theirs]) t.equal(await stateOf(store, id), 'live');
    t.same((await entriesOf(store)).slice(2), [['restore', 4]], 'those of several blobs in one entry');
    t.same(await takeDown(store, 'ada', RESTORE), { media: 0, others: 0, steps: [0] }, 'again');
    t.same(await findingsOf(store), []);
    await store.close();
  });

  await t.test('a restore lifts what admins have withheld, and leaves what scanner and damage withhold', async (t) => {
    const store = await kit.fresh();
    const marks = [
      adminMark(T0 + 1),
      { ...adminMark(T0 + 1), by: SCANNER },
      adminMark(T0 + 1, 'rot'),
      adminMark(T0 + 1, 'held'),
    ];
    const ids: MediaId[] = [];
    for (const [n, mark] of marks.entries()) {
      ids.push(await put(store, n));
      await store.quarantine(hashOf(n), mark);
    }
    t.same(await takeDown(store, 'ada', RESTORE), { media: 1, others: 0, steps: [1] });
    t.same(await Promise.all(ids.map((id) => stateOf(store, id))), [
      'live',
      'quarantined',
      'quarantined',
      'quarantined',
    ]);
    t.same(await takeDown(store, 'ada', QUARANTINE), { media: 3, others: 0, steps: [3] }, 'all but the scanner’s');
    t.match(await store.findBlob(hashOf(1)), { quarantine: { by: SCANNER, at: T0 + 1 } });
    await store.close();
  });

  await t.test('what changed between look and act is left as it is', async (t) => {
    const store = await kit.fresh();
    const [first, second] = [await put(store, 1), await put(store, 2)];
    const theirs = await put(store, 3, { owner: 'bob' });
    await store.remove(first, 'mallory', T0 + 1);
    const unknown = uploadOf(hashOf(9)).id;
    const ids = [first, second, theirs, unknown];
    t.same(await store.takeDownOwned('ada', ids, DELETE, T0 + 5), { media: 1, others: 0 });
    t.match(await store.find(first, T0 + 6), { record: { state: { by: 'mallory' } } });
    t.equal(await stateOf(store, theirs), 'live', 'nobody takes down what belongs to another');
    t.same(await store.takeDownOwned('ada', ids, QUARANTINE, T0 + 5), { media: 0, others: 0 });
    t.equal(store.journal.newest(), 2);
    await store.close();
  });

  await t.test('steps of two walks at once change everything once', async (t) => {
    const store = await kit.fresh();
    for (let n = 0; n < 9; n += 1) await put(store, n);
    const walks = await Promise.all([1, 2, 3].map(() => takeDown(store, 'ada', DELETE, 4)));
    t.equal(
      walks.reduce((sum, { media }) => sum + media, 0),
      9,
    );
    const named = (await store.journal.read(0, 100)).flatMap(({ ids }) => ids);
    t.equal(named.length, 9);
    t.equal(new Set(named).size, 9);
    t.same(await findingsOf(store), []);
    await store.close();
  });
}
