/** What every implementation of MetaStore must do when the same act comes again, or when two acts meet. */
import type { Test } from 'tap';
import type { NewMedia } from '../../../../origin/meta/store.js';
import type { Sha256 } from '../../../../src/ids.js';
import { adminMark, findingsOf, type MetaUnderTest, T0, uploadOf } from './contract.js';

const A = 'a'.repeat(64) as Sha256;
const B = 'b'.repeat(64) as Sha256;

export async function metaAgainContract(t: Test, kit: MetaUnderTest): Promise<void> {
  await t.test('what is deleted stays deleted as it was: a second delete changes and journals nothing', async (t) => {
    const store = await kit.fresh();
    const upload = uploadOf(A);
    await store.commitUpload(upload);
    t.same(await store.remove(upload.id, 'eve', T0 + 1), { kind: 'removed', seq: 1 });
    t.same(await store.remove(upload.id, 'mallory', T0 + 2), { kind: 'already', seq: 1 });
    t.match(await store.find(upload.id, T0 + 2), { record: { state: { kind: 'deleted', at: T0 + 1, by: 'eve' } } });
    t.equal(store.journal.newest(), 1);
    t.same(await store.remove(uploadOf(A).id, 'eve', T0), { kind: 'unknown' }, 'an id that was never made');
    t.equal(store.journal.newest(), 1);
    await store.close();
  });

  await t.test('what has expired stays expired: a delete changes and journals nothing', async (t) => {
    const store = await kit.fresh();
    const upload = uploadOf(A, { expiresAt: T0 + 10 });
    await store.commitUpload(upload);
    t.same(await store.expireDue(T0 + 10, 9), [upload.id]);
    t.same(await store.expireDue(T0 + 11, 9), [], 'nor does it expire twice');
    t.same(await store.remove(upload.id, 'eve', T0 + 12), { kind: 'already', seq: 1 });
    t.match(await store.find(upload.id, T0 + 12), { kind: 'expired', record: { state: { at: T0 + 10 } } });
    t.equal(store.journal.newest(), 1);
    await store.close();
  });

  await t.test('a quarantine and its end may be repeated, and are journalled once', async (t) => {
    const store = await kit.fresh();
    const upload = uploadOf(A);
    await store.commitUpload(upload);
    t.same(await store.restore(A, T0), { kind: 'already', seq: 0 }, 'nothing to end');
    t.same(await store.quarantine(upload.id, adminMark(T0 + 1)), { kind: 'done', seq: 1 });
    t.same(await store.quarantine(A, { ...adminMark(T0 + 2), by: 'mallory' }), { kind: 'already', seq: 1 });
    t.match(await store.findBlob(A), { quarantine: { at: T0 + 1, by: 'eve' } }, 'the first one is on record');
    t.same(await store.restore(upload.id, T0 + 3), { kind: 'done', seq: 2 });
    t.same(await store.restore(A, T0 + 4), { kind: 'already', seq: 2 });
    t.equal(store.journal.newest(), 2);
    t.equal(await store.takedownSeqOf(upload.id), 2);
    await store.remove(upload.id, 'eve', T0 + 5);
    t.same(await store.quarantine(upload.id, adminMark(T0 + 6)), { kind: 'gone', state: 'deleted' });
    t.same(await store.restore(upload.id, T0 + 6), { kind: 'gone', state: 'deleted' });
    t.equal(await store.takedownSeqOf(upload.id), 3);
    await store.close();
  });

  await t.test('an id that is past its expiry is gone for an admin too, swept or not', async (t) => {
    const store = await kit.fresh();
    const upload = uploadOf(A, { expiresAt: T0 + 10 });
    await store.commitUpload(upload);
    t.match(await store.quarantine(upload.id, adminMark(T0 + 9)), { kind: 'done' });
    t.same(await store.restore(upload.id, T0 + 10), { kind: 'gone', state: 'expired' });
    await store.close();
  });

  await t.test('an upload of bytes whose id has expired ends that id first, and gets one of its own', async (t) => {
    const store = await kit.fresh();
    const old = uploadOf(A, { expiresAt: T0 + 10 });
    const later: NewMedia = uploadOf(A, { now: T0 + 10, expiresAt: T0 + 100 });
    await store.commitUpload(old);
    t.match(await store.commitUpload(later), { kind: 'created', media: { record: { id: later.id } } });
    t.match(await store.journal.read(0, 9), [{ seq: 1, cause: 'expire', ids: [old.id] }]);
    t.match(await store.find(old.id, T0 + 11), { kind: 'expired', record: { state: { at: T0 + 10 } } });
    t.same(await store.expireDue(T0 + 50, 9), [], 'the sweep finds nothing more to end');
    t.match(await store.find(later.id, T0 + 50), { kind: 'live' });
    t.equal(await store.isUnreferenced(A), false);
    t.match(await store.commitUpload(uploadOf(A, { now: T0 + 50 })), {
      kind: 'duplicate',
      media: { record: { id: later.id } },
    });
    t.same(await findingsOf(store), []);
    await store.close();
  });

  await t.test('bytes that are uploaded again are in use, and have a whole grace period afterwards', async (t) => {
    const store = await kit.fresh();
    const free = async (before: number) => (await store.unreferencedBlobs(before, 9)).map(({ sha256 }) => sha256);
    const first = uploadOf(A);
    await store.commitUpload(first);
    t.same(await free(T0 + 1_000), []);
    await store.remove(first.id, 'eve', T0 + 100);
    t.same(await free(T0 + 100), [], 'before its instant, not at it');
    t.same(await free(T0 + 101), [A]);
    const second = uploadOf(A, { now: T0 + 200 });
    await store.commitUpload(second);
    t.same(await free(T0 + 1_000), []);
    t.equal(await store.forgetBlob(A), undefined);
    await store.remove(second.id, 'eve', T0 + 300);
    t.same(await free(T0 + 300), []);
    t.same(await free(T0 + 301), [A]);
    const keys = await store.forgetBlob(A);
    t.equal(keys?.length, 1);
    t.equal(await store.forgetBlob(A), undefined, 'and once only');
    t.same(await store.trash(Number.MAX_SAFE_INTEGER, 9), keys, 'and its bytes are to be removed');
    t.same(await findingsOf(store), []);
    await store.close();
  });

  await t.test('bytes that an admin quarantined are freed by nobody', async (t) => {
    const store = await kit.fresh();
    for (const [sha256, cause] of [
      [A, 'admin'],
      [B, 'rot'],
    ] as const) {
      const upload = uploadOf(sha256);
      await store.commitUpload(upload);
      await store.quarantine(sha256, adminMark(T0 + 1, cause));
      await store.remove(upload.id, 'eve', T0 + 2);
    }
    t.equal(await store.isUnreferenced(A), false);
    t.equal(await store.forgetBlob(A), undefined);
    t.equal(await store.isUnreferenced(B), true, 'damaged bytes are of no use to anybody');
    t.same(
      (await store.unreferencedBlobs(T0 + 100, 9)).map(({ sha256 }) => sha256),
      [B],
    );
    await store.restore(A, T0 + 50);
    t.equal(await store.isUnreferenced(A), true);
    t.same(
      (await store.unreferencedBlobs(T0 + 50, 9)).map(({ sha256 }) => sha256),
      [B],
      'a grace period begins anew',
    );
    t.equal((await store.unreferencedBlobs(T0 + 51, 9)).length, 2);
    t.equal((await store.unreferencedBlobs(T0 + 51, 1)).length, 1, 'no more than asked for');
    await store.close();
  });

  await t.test('the job of bytes ends with their last id, and an upload of them has a new one', async (t) => {
    const store = await kit.fresh();
    const ended: string[] = [];
    const stop = store.jobs.onEnded((sha256) => ended.push(sha256));
    const [one, other] = [uploadOf(A), uploadOf(A, { public: true })];
    for (const upload of [one, other]) await store.commitUpload(upload);
    await store.jobs.claim('w', 1, T0, 1_000);
    await store.remove(one.id, 'eve', T0);
    t.same([await store.jobs.renew(A, 'w', T0 + 2_000), ended], [true, []], 'another id still needs it');
    await store.remove(other.id, 'eve', T0);
    await store.remove(other.id, 'eve', T0);
    t.same([await store.jobs.renew(A, 'w', T0 + 3_000), ended], [false, [A]]);
    await store.commitUpload(uploadOf(A));
    t.same(await store.jobs.counts(), { waiting: 1, leased: 0, dead: 0 });
    t.equal(await store.jobs.renew(A, 'w', T0 + 4_000), false, 'the old lease is none of it');
    stop();
    await store.close();
  });

  await t.test('the verdict of the scanner counts once', async (t) => {
    const store = await kit.fresh();
    const upload = uploadOf(A, { quarantine: adminMark(T0, 'held') });
    await store.commitUpload(upload);
    const before = store.journal.newest();
    t.equal(await store.resolveScan(A, adminMark(T0 + 1), T0 + 1), true);
    t.equal(await store.resolveScan(A, null, T0 + 2), false, 'a later verdict frees nothing');
    t.match(await store.find(upload.id, T0 + 2), { kind: 'quarantined' });
    t.equal(store.journal.newest(), before + 1);
    await store.close();
  });

  await t.test('a use that is older than the known one changes nothing', async (t) => {
    const store = await kit.fresh();
    const upload = uploadOf(A);
    await store.commitUpload(upload);
    await store.markUsed([upload.id, upload.id], T0 + 100);
    await store.markUsed([upload.id], T0 + 50);
    t.match(await store.find(upload.id, T0), { media: { record: { usedAt: T0 + 100 } } });
    t.same(await store.expireUnused(T0 + 100, T0 + 200, 9), []);
    t.same(await store.expireUnused(T0 + 101, T0 + 200, 9), [upload.id]);
    t.same(await store.expireUnused(T0 + 101, T0 + 201, 9), []);
    await store.markUsed([upload.id], T0 + 300);
    t.match(await store.find(upload.id, T0 + 300), { kind: 'expired' }, 'a late use brings nothing back');
    await store.close();
  });
}
