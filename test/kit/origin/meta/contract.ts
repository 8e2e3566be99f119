/** The behaviour that every implementation of MetaStore must have. */
import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import type { Test } from 'tap';
import { mediaKey, type Place, thumbKey } from '../../../../origin/blobs/blob-store.js';
import type { Job } from '../../../../origin/meta/jobs.js';
import { keysOf, NO_FACTS, type Quarantine, type ThumbMade } from '../../../../origin/meta/media.js';
import type { MetaStore, NewMedia, OwnerAct, UploadBytes } from '../../../../origin/meta/store.js';
import type { EpochMs } from '../../../../src/clock.js';
import { createIdSource, type MediaId, type Sha256 } from '../../../../src/ids.js';
import type { JournalEntry } from '../../../../src/journal/entry.js';
import { MetaModel } from './model.js';

export interface MetaUnderTest {
  /** Opens a new, empty store. */
  fresh(): Promise<MetaStore>;
  /** Closes the store and opens it again. */
  again(store: MetaStore): Promise<MetaStore>;
  /** Uses within this time count as one. */
  readonly usedStepMs: number;
  /** How many random histories to compare with the model. */
  readonly histories: number;
}

export const T0: EpochMs = Date.UTC(2026, 0, 1);
const newId = createIdSource({ now: () => T0 });
const BYTES = ['a', 'b', 'c'].map((digit) => digit.repeat(64) as Sha256);
const [A = '' as Sha256, B = '' as Sha256, C = '' as Sha256] = BYTES;

let uploads = 0;

/** An upload that stored its bytes in a place of its own. */
export function uploadOf(sha256: Sha256, given: Partial<NewMedia> = {}): NewMedia {
  uploads += 1;
  return {
    id: newId(),
    sha256,
    bytes: { kind: 'stored', place: placeOf(uploads), damaged: null },
    sizeBytes: 1_000,
    mime: 'image/png',
    public: false,
    owner: 'ada',
    filename: 'Bild ☂.png',
    expiresAt: null,
    picture: NO_FACTS,
    thumbs: { kind: 'queue' },
    now: T0,
    ...given,
  };
}

function placeOf(n: number): Place {
  return n.toString(16).padStart(16, '0') as Place;
}

/** The store, to which intents are told as uploads and jobs do. */
export function announced(store: MetaStore): MetaStore {
  return {
    ...store,
    async commitUpload(upload) {
      const { sha256, bytes } = upload;
      const keys = bytes.kind === 'stored' ? [mediaKey({ sha256, place: bytes.place })] : [];
      await store.intend(keys);
      const outcome = await store.commitUpload(upload);
      await store.withdraw(keys);
      return outcome;
    },
    async finishThumbs(sha256, outcome, leaseholder) {
      const keys = outcome.kind === 'made' ? outcome.made.map((thumb) => thumbKey(sha256, thumb)) : [];
      await store.intend(keys);
      const finished = await store.finishThumbs(sha256, outcome, leaseholder);
      await store.withdraw(keys);
      return finished;
    },
  };
}

export function adminMark(at: EpochMs, cause: Quarantine['cause'] = 'admin'): Quarantine {
  return { at, by: 'eve', reason: null, cause };
}

export async function metaContract(t: Test, kit: MetaUnderTest): Promise<void> {
  await t.test('an upload is found with all its facts, and the same bytes again get the same id', async (t) => {
    const store = await kit.fresh();
    const first = uploadOf(A);
    t.match(await store.commitUpload(first), { kind: 'created', media: { record: { id: first.id } } });
    t.match(await store.commitUpload(uploadOf(A)), { kind: 'duplicate', media: { record: { id: first.id } } });
    const open = await store.commitUpload(uploadOf(A, { public: true }));
    t.equal(open.kind, 'created', 'the same bytes as public media get an id of their own');
    t.same(await store.idsOfBlob(A), open.kind === 'created' ? [first.id, open.media.record.id] : []);
    t.match(await store.commitUpload(uploadOf(A)), {
      kind: 'duplicate',
      media: { record: { id: first.id }, blob: { sha256: A } },
    });
    t.match(await store.findBlobBySent(A), { sha256: A });
    t.equal(await store.findBlobBySent(B), undefined);
    t.same(await store.jobs.counts(), { waiting: 1, leased: 0, dead: 0 }, 'one job for one blob');

    const reopened = await kit.again(store);
    t.match(await reopened.find(first.id, T0), { kind: 'live', media: { record: { filename: 'Bild ☂.png' } } });
    t.same(await reopened.find(newId(), T0), { kind: 'unknown' });
    await reopened.close();
  });

  await t.test('simultaneous uploads of the same bytes are one record with the latest expiry', async (t) => {
    const store = await kit.fresh();
    const outcomes = await Promise.all(
      [5, 90, 40].map((inMs) => store.commitUpload(uploadOf(A, { expiresAt: T0 + inMs }))),
    );
    t.same(outcomes.map(({ kind }) => kind).sort(), ['created', 'duplicate', 'duplicate']);
    const [id] = await store.idsOfBlob(A);
    t.equal((await store.idsOfBlob(A)).length, 1);
    t.match(await store.find(id as MediaId, T0), { kind: 'live', media: { record: { expiresAt: T0 + 90 } } });
    await store.commitUpload(uploadOf(A, { expiresAt: null }));
    t.match(
      await store.find(id as MediaId, T0 + 1e12),
      { media: { record: { expiresAt: null } } },
      'no expiry is later than any',
    );
    await store.close();
  });

  await t.test('an upload link is used once, by whatever is recorded first', async (t) => {
    const store = await kit.fresh();
    const once = { link: 'a'.repeat(32), until: T0 + 1_000 };
    const put = async (sha256: Sha256, link = once): Promise<string> =>
      (await store.commitUpload(uploadOf(sha256, { once: link }))).kind;
    const kinds = await Promise.all([put(A), put(B), put(C)]);
    t.same(kinds.sort(), ['created', 'link_used', 'link_used']);
    t.equal(await put(A), 'link_used');
    const other = { ...once, link: 'b'.repeat(32) };
    const [known = A] = (await store.blobsAfter(null, 1)).blobs.map(({ sha256 }) => sha256);
    t.equal(await put(known, other), 'duplicate');
    t.equal(await put(known, other), 'link_used', 'a duplicate is a use too');
    await store.close();
  });

  await t.test('quotas count only what is stored', async (t) => {
    const store = await kit.fresh();
    const quota = { periodStartAt: T0, bytesMax: 1_500, filesMax: 2 };
    const put = async (sha256: Sha256, given: Partial<NewMedia> = {}): Promise<string> =>
      (await store.commitUpload(uploadOf(sha256, { quota, ...given }))).kind;
    t.equal(await put(A), 'created');
    t.equal(await put(A), 'duplicate');
    t.same(await store.usage('ada', T0), { bytes: 1_000, files: 1 });
    t.equal(await put(B), 'over_quota');
    t.equal(await put(A, { public: true }), 'created', 'a second id for stored bytes counts as a file of no bytes');
    t.equal(await put(C, { sizeBytes: 1 }), 'over_quota');
    t.same(await store.usage('ada', T0), { bytes: 1_000, files: 2 });
    t.equal(await put(C, { owner: 'bob' }), 'created', 'each subject has its own quota');
    t.equal(await put(B, { quota: { ...quota, periodStartAt: T0 + 9 } }), 'created', 'and each period');
    t.equal(await store.forgetUsage(T0 + 9), 2);
    t.same(await store.usage('ada', T0 + 9), { bytes: 1_000, files: 1 });
    await store.close();
  });

  await t.test('damaged bytes are withheld until they are uploaded again', async (t) => {
    const store = await kit.fresh();
    const first = uploadOf(A);
    await store.commitUpload(first);
    t.same(await store.quarantine(A, adminMark(T0 + 1, 'rot')), { kind: 'done', seq: 1 });
    t.equal((await store.find(first.id, T0 + 1)).kind, 'quarantined');
    t.match(await store.commitUpload(uploadOf(A, { now: T0 + 2 })), {
      kind: 'duplicate',
      media: { record: { id: first.id }, blob: { quarantine: null } },
    });
    t.equal((await store.find(first.id, T0 + 2)).kind, 'live');
    t.match(await store.journal.read(0, 9), [
      { cause: 'quarantine', ids: [first.id] },
      { cause: 'restore', ids: [first.id] },
    ]);
    t.match(await store.quarantine(A, adminMark(T0 + 3)), { kind: 'done' });
    t.same(await store.quarantine(A, adminMark(T0 + 4, 'rot')), { kind: 'already', seq: 3 }, 'the admin mark stays');
    t.same(await store.commitUpload(uploadOf(A, { public: true })), { kind: 'quarantined' });
    await store.close();
  });

  await t.test('the journal numbers without gaps, notifies in order, and keeps its newest when trimmed', async (t) => {
    let store = await kit.fresh();
    const notified: JournalEntry[] = [];
    const stop = store.journal.subscribe((entry) => {
      t.equal(store.journal.newest(), entry.seq);
      notified.push(entry);
    });
    t.same([store.journal.oldest(), store.journal.newest()], [1, 0]);
    t.same([store.journal.markOf(0), store.journal.markOf(1)], ['', undefined]);
    const ids: MediaId[] = [];
    for (let n = 0; n <= 20; n += 1) {
      const upload = uploadOf(n.toString(16).padStart(64, '0') as Sha256);
      await store.commitUpload(upload);
      ids.push(upload.id);
    }
    const last = ids.pop() ?? newId();
    await Promise.all(ids.map((id, n) => store.remove(id, 'eve', T0 + n)));
    t.same(
      notified.map(withoutMark),
      ids.map((id, n) => ({ seq: n + 1, at: T0 + n, cause: 'delete', ids: [id] })),
    );
    t.same(await store.journal.read(0, 100), notified);
    t.equal(new Set(notified.map(({ mark }) => mark)).size, 20, 'each entry has a mark of its own');
    for (const { seq, mark } of notified) t.equal(store.journal.markOf(seq), mark);
    t.same(await store.journal.read(17, 2), notified.slice(17, 19));
    t.equal(await store.journal.trim(T0 + 5), 4, 'the last one that is old enough stays');
    t.same([store.journal.oldest(), store.journal.newest()], [5, 20]);
    t.equal(await store.journal.trim(T0 + 1e9), 15);
    t.same([store.journal.oldest(), store.journal.newest()], [20, 20]);
    t.equal(store.journal.markOf(19), undefined);
    stop();
    const { name } = store.journal;
    store = await kit.again(store);
    t.equal(store.journal.name, name);
    t.equal(store.journal.markOf(20), notified.at(-1)?.mark, 'a mark stays over a restart');
    t.same(await store.remove(last, 'eve', T0), { kind: 'removed', seq: 21 });
    t.equal(notified.length, 20, 'a listener that unsubscribed is not called');
    await store.close();
  });

  await t.test('a listing filters by owner, type, state and time, and its pages miss nothing', async (t) => {
    const store = await kit.fresh();
    const uploads = Array.from({ length: 12 }, (_, n) =>
      uploadOf(n.toString(16).repeat(64) as Sha256, {
        owner: n % 3 === 0 ? 'ada' : 'bob',
        mime: n % 2 === 0 ? 'image/png' : 'video/mp4',
        now: T0 + n,
      }),
    );
    for (const upload of uploads) await store.commitUpload(upload);
    const ids = uploads.map(({ id }) => id);
    await store.remove(ids[3] ?? newId(), 'eve', T0 + 50);
    await store.quarantine(ids[4] ?? newId(), adminMark(T0 + 50));

    const list = async (query: object): Promise<readonly number[]> =>
      (await listAll(store, T0 + 99, query)).map((id) => ids.indexOf(id));
    t.same(await list({}), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    t.same(await list({ owner: 'ada' }), [0, 3, 6, 9]);
    t.same(await list({ owner: 'nobody' }), []);
    t.same(await list({ mime: 'video/mp4', owner: 'bob' }), [1, 5, 7, 11]);
    t.same(await list({ state: 'deleted' }), [3]);
    t.same(await list({ state: 'quarantined' }), [4]);
    t.same(await list({ state: 'live', createdFrom: T0 + 2, createdTo: T0 + 6 }), [2, 5, 6]);
    t.same(await list({ createdFrom: T0 + 1e9 }), []);
    await store.close();
  });

  await t.test('jobs are claimed by priority, return when their lease ends, and become dead letters', async (t) => {
    const store = await kit.fresh();
    const { jobs } = store;
    for (const sha256 of [A, B, C]) await store.commitUpload(uploadOf(sha256));
    await Promise.all([A, B, C].map((sha256) => jobs.drop(sha256)));
    let added = 0;
    const stop = jobs.onAdded(() => (added += 1));
    await jobs.add(A, 'backfill', T0);
    await jobs.add(B, 'upload', T0 + 2);
    await jobs.add(C, 'upload', T0 + 1);
    t.equal(added, 3);
    t.equal(await jobs.lift(A, 'asked'), true);
    t.equal(await jobs.lift('f'.repeat(64) as Sha256, 'asked'), false);
    t.equal(added, 4);
    const names = (claimed: readonly Job[]): string => claimed.map(({ sha256 }) => sha256[0]).join('');
    t.equal(await jobs.nextReadyAt(), T0);
    t.equal(names(await jobs.claim('w', 9, T0 + 2, 10)), 'abc');
    t.same(await jobs.claim('w', 9, T0 + 3, 10), []);
    t.equal(await jobs.nextReadyAt(), T0 + 12, 'the first lease to end');
    t.equal(await jobs.renew(A, 'w', T0 + 500), true);
    t.equal(await jobs.renew(A, 'other', T0 + 500), false);
    t.match(await jobs.claim('v', 9, T0 + 12, 10), [
      { sha256: B, attempts: 1, lease: { holder: 'v', until: T0 + 22 } },
      { sha256: C, attempts: 1 },
    ]);
    await jobs.retry(C, 'w', T0 + 700, null);
    t.same(await jobs.counts(), { waiting: 0, leased: 3, dead: 0 }, 'without its lease a worker changes nothing');
    await jobs.retry(C, 'v', T0 + 700, 'backfill');
    t.same(await jobs.claim('w', 9, T0 + 21, 10), [], 'a job that is not ready yet stays');
    t.equal(await jobs.nextReadyAt(), T0 + 22);
    await jobs.giveBack(B, 'v');
    t.match(await jobs.claim('u', 1, T0 + 21, 10), [{ sha256: B, attempts: 1 }], 'given back without an attempt');
    await jobs.bury(B, 'out of memory', T0 + 30);
    t.match(await jobs.dead(9), [{ sha256: B, attempts: 1, diedAt: T0 + 30, reason: 'out of memory' }]);
    t.match(await store.findBlob(B), { thumbs: { kind: 'none', reason: 'failed' } });
    t.equal(await jobs.revive(9, T0 + 40), 1);
    t.match(await store.findBlob(B), { thumbs: { kind: 'pending' } });
    t.match(await jobs.claim('u', 9, T0 + 40, 10), [{ sha256: B, attempts: 0 }]);
    stop();

    const reopened = await kit.again(store);
    t.same(await reopened.jobs.counts(), { waiting: 3, leased: 0, dead: 0 }, 'leases end with the process');
    t.match(await reopened.jobs.claim('w', 9, T0 + 1_000, 10), [
      { sha256: A, attempts: 1 },
      { sha256: B, attempts: 1 },
      { sha256: C, attempts: 2, priority: 'backfill' },
    ]);
    await reopened.close();
  });

  await t.test('owners take turns in the queue, over a restart too', async (t) => {
    const store = await kit.fresh();
    const hash = (name: string): Sha256 => Buffer.from(name.padEnd(32)).toString('hex') as Sha256;
    const nameOf = ({ sha256 }: Job): string => Buffer.from(sha256, 'hex').toString().trim();
    let at = T0;
    const put = async (...names: readonly string[]): Promise<void> => {
      for (const name of names) {
        at += 1;
        await store.commitUpload(uploadOf(hash(name), { owner: name.slice(0, 3), now: at }));
      }
    };
    const claim = async (from: MetaStore, count: number): Promise<string> =>
      (await from.jobs.claim('w', count, T0 + 1_000, 86_400_000)).map(nameOf).join(' ');

    await put('ann1', 'ann2', 'ann3', 'ann4', 'ann5', 'ann6', 'bob1', 'bob2');
    t.equal(await claim(store, 3), 'ann1 bob1 ann2', 'one who has queued many does not go first');
    await put('eve1', 'eve2', 'ann7');
    t.equal(await claim(store, 2), 'bob2 eve1', 'and who comes later waits for one job of each other');
    await store.jobs.lift(hash('ann6'), 'asked');
    await store.jobs.lift(hash('eve2'), 'asked');
    t.equal(await claim(store, 1), 'ann6');
    await store.jobs.retry(hash('bob1'), 'w', T0 + 500, null);
    await store.jobs.retry(hash('ann2'), 'w', T0 + 2, null);
    await store.jobs.giveBack(hash('ann1'), 'w');
    t.match(await store.jobs.counts(), { waiting: 8, leased: 3 });
    const reopened = await kit.again(store);
    t.equal((await reopened.jobs.counts()).waiting, 11, 'leases end');
    t.equal(
      await claim(reopened, 99),
      'ann6 eve2 ann1 ann2 bob2 eve1 ann3 ann4 ann5 ann7 bob1',
      'a job that waited after a failure goes before those that were queued after its wait',
    );
    await assertSound(reopened);
    await reopened.close();
  });

  await t.test('the outcome of a job ends it and keeps the facts that were known before', async (t) => {
    const store = await kit.fresh();
    await store.commitUpload(uploadOf(A, { picture: { ...NO_FACTS, width: 640, height: 480 } }));
    const made: ThumbMade = {
      variant: 'small',
      format: 'webp',
      sha256: B,
      place: placeOf(1),
      sizeBytes: 9,
      width: 64,
      height: 48,
      animated: false,
    };
    await store.finishThumbs(A, { kind: 'made', made: [made], picture: { ...NO_FACTS, thumbhash: 'xyz=' } });
    t.match(await store.findBlob(A), {
      thumbs: { kind: 'ready', made: [made] },
      picture: { width: 640, height: 480, thumbhash: 'xyz=' },
    });
    t.same(await store.jobs.counts(), { waiting: 0, leased: 0, dead: 0 });
    t.equal(await store.redoThumbs(A, 'backfill', T0), true);
    t.same(await store.jobs.counts(), { waiting: 1, leased: 0, dead: 0 });
    await store.finishThumbs(A, { kind: 'refused', reason: 'broken_image', picture: NO_FACTS });
    t.match(await store.findBlob(A), { thumbs: { reason: 'broken_image' }, picture: { width: 640 } });
    t.equal(await store.redoThumbs(B, 'backfill', T0), false);
    await store.finishThumbs(B, { kind: 'refused', reason: 'failed', picture: NO_FACTS });
    t.equal(await store.findBlob(B), undefined, 'a blob that is gone does not come back');
    await store.close();
  });

  await t.test('bytes that are stored in a changed form are found and refused by both hashes', async (t) => {
    const store = await kit.fresh();
    const first = uploadOf(A, { sentSha256: B });
    t.match(await store.commitUpload(first), { kind: 'created', media: { record: { sha256: A, sentSha256: B } } });
    t.match(await store.commitUpload(uploadOf(A, { sentSha256: B })), { media: { record: { id: first.id } } });
    t.match(await store.commitUpload(uploadOf(B)), { kind: 'duplicate', media: { record: { id: first.id } } });
    t.equal(await store.findBlob(B), undefined, 'bytes that are not stored have no blob record');
    t.match(await store.findBlobBySent(B), { sha256: A });
    const plain = await store.commitUpload(uploadOf(A));
    t.equal(plain.kind, 'created', 'the stored bytes, sent as they are, are another upload');
    t.equal((await store.commitUpload(uploadOf(A, { sentSha256: C }))).kind, 'created', 'and so is a third form');
    t.same(await store.quarantine(B, adminMark(T0)), { kind: 'done', seq: 1 });
    const [entry] = await store.journal.read(0, 1);
    t.equal(entry?.ids.length, 3, 'the bytes are withheld under every id, whichever hash names them');
    for (const [sha256, sentSha256] of [
      [A, A],
      [A, B],
      [B, B],
      [C, C],
    ] as const) {
      t.same(await store.commitUpload(uploadOf(sha256, { sentSha256 })), { kind: 'quarantined' });
    }
    await store.remove(first.id, 'eve', T0);
    t.equal(await store.forgetTombstones(T0 + 1, 9), 0, 'its tombstone is needed to refuse the sent bytes');
    await store.restore(A, T0);
    t.equal(await store.forgetTombstones(T0 + 1, 9), 1);
    t.equal((await store.commitUpload(uploadOf(B))).kind, 'created', 'after that the bytes are new');
    await store.close();
  });

  await t.test('bytes that await the scanner are recorded and withheld until its verdict', async (t) => {
    let store = await kit.fresh();
    const unscanned = { quarantine: adminMark(T0, 'held') };
    const first = uploadOf(A, unscanned);
    t.match(await store.commitUpload(first), { kind: 'created', media: { blob: { quarantine: { cause: 'held' } } } });
    t.match(await store.commitUpload(uploadOf(A, unscanned)), { kind: 'duplicate' });
    t.match(await store.find(first.id, T0), { kind: 'quarantined' });
    await store.commitUpload(uploadOf(B, { ...unscanned, now: T0 + 1 }));
    store = await kit.again(store);
    const [oldest] = await store.blobsAwaitingScan(null, 1);
    t.equal(oldest?.sha256, A, 'also after a restart');
    t.same(
      (await store.blobsAwaitingScan(oldest ?? null, 9)).map(({ sha256 }) => sha256),
      [B],
    );
    t.same((await store.list({ state: 'held', limit: 9, now: T0 })).found.length, 2);
    t.same((await store.list({ state: 'quarantined', limit: 9, now: T0 })).found.length, 0);
    t.equal(await store.resolveScan(A, null, T0), true);
    t.match(await store.find(first.id, T0), { kind: 'live' });
    t.equal(await store.resolveScan(A, null, T0), false);
    t.match(await store.commitUpload(uploadOf(A, { ...unscanned, public: true })), {
      media: { blob: { quarantine: null } },
    });
    t.match(await store.find(first.id, T0), { kind: 'live' }, 'visible bytes are not withheld again');
    t.equal(await store.resolveScan(B, adminMark(T0), T0), true);
    t.same(await store.blobsAwaitingScan(null, 9), []);
    t.same(await store.commitUpload(uploadOf(B)), { kind: 'quarantined' });
    await store.commitUpload(uploadOf(C, unscanned));
    t.match(
      await store.commitUpload(uploadOf(C)),
      { media: { blob: { quarantine: null } } },
      'an upload that was scanned lifts the mark',
    );
    await store.quarantine(C, adminMark(T0));
    t.equal(await store.resolveScan(C, null, T0), false, 'an admin has the last word');
    await store.close();
  });

  await t.test('after any history the store agrees with a naive model', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { minLength: 5, maxLength: 40, size: 'max' }), async (steps) => {
        await replay(kit, steps);
      }),
      { numRuns: kit.histories },
    );
  });
}

const anyBytes = fc.constantFrom(...BYTES);
/** The index of an id made so far, or beyond them: then an id that was never made. */
const anyPlace = fc.nat({ max: 7 });
const anyTarget = fc.oneof(anyPlace, anyBytes);

const anyStep = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('upload' as const),
      sha256: anyBytes,
      sent: fc.option(anyBytes, { freq: 2 }),
      unscanned: fc.boolean(),
      owner: fc.constantFrom('ada', 'bob'),
      public: fc.boolean(),
      expiresInMs: fc.constantFrom(null, 1, 20, 100),
      quota: fc.constantFrom(null, 3),
      thumbs: fc.boolean(),
      bytes: fc.constantFrom('new', 'new', 'found', 'damaged'),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('remove' as const), place: anyPlace }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('quarantine' as const),
      target: anyTarget,
      cause: fc.constantFrom('admin', 'rot'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('restore' as const), target: anyTarget }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('scanned' as const), sha256: anyBytes, infected: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('owner' as const),
      owner: fc.constantFrom('ada', 'bob'),
      act: fc.constantFrom('delete', 'quarantine', 'restore'),
      limit: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('expire' as const), limit: fc.nat({ max: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('expireUnused' as const), ageMs: fc.nat({ max: 60 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('forget' as const), ageMs: fc.nat({ max: 60 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('sweep' as const), ageMs: fc.nat({ max: 30 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('use' as const), places: fc.array(anyPlace, { maxLength: 3 }) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat({ max: 40 }) }) },
);
type Step = typeof anyStep extends fc.Arbitrary<infer S> ? S : never;

async function replay(kit: MetaUnderTest, steps: readonly Step[]): Promise<void> {
  const model = new MetaModel();
  let store = await kit.fresh();
  const notified: JournalEntry[] = [];
  store.journal.subscribe((entry) => notified.push(entry));
  const ids: MediaId[] = [];
  let now = T0;
  const idAt = (place: number): MediaId => ids[place] ?? newId();
  const targetOf = (target: number | Sha256): MediaId | Sha256 => (typeof target === 'number' ? idAt(target) : target);

  for (const step of steps) {
    switch (step.do) {
      case 'wait':
        now += step.ms;
        break;
      case 'upload': {
        let upload = uploadOf(step.sha256, {
          public: step.public,
          owner: step.owner,
          expiresAt: step.expiresInMs === null ? null : now + step.expiresInMs,
          thumbs: step.thumbs ? { kind: 'queue' } : { kind: 'none', reason: 'unsupported_type' },
          now,
          ...(step.bytes === 'found' && { bytes: { kind: 'found' } }),
          ...(step.sent !== null && { sentSha256: step.sent }),
          ...(step.unscanned && { quarantine: adminMark(now, 'held') }),
          ...(step.quota !== null && {
            quota: { periodStartAt: T0, bytesMax: Number.POSITIVE_INFINITY, filesMax: step.quota },
          }),
        });
        if (step.bytes === 'damaged') {
          const damaged = (await store.findBlob(step.sha256))?.place ?? null;
          upload = { ...upload, bytes: { ...uploadOf(A).bytes, damaged } as UploadBytes };
        }
        ids.push(upload.id);
        assert.deepEqual(await store.commitUpload(upload), model.commitUpload(upload));
        break;
      }
      case 'remove': {
        const id = idAt(step.place);
        assert.deepEqual(await store.remove(id, 'eve', now), model.remove(id, 'eve', now));
        break;
      }
      case 'quarantine': {
        const target = targetOf(step.target);
        const mark = adminMark(now, step.cause);
        assert.deepEqual(await store.quarantine(target, mark), model.quarantine(target, mark));
        break;
      }
      case 'restore': {
        const target = targetOf(step.target);
        assert.deepEqual(await store.restore(target, now), model.restore(target, now));
        break;
      }
      case 'scanned': {
        const mark = step.infected ? adminMark(now) : null;
        assert.equal(await store.resolveScan(step.sha256, mark, now), model.resolveScan(step.sha256, mark, now));
        break;
      }
      case 'owner': {
        const act = actOf(step.act, now);
        const { ids } = await store.owned({ owner: step.owner, act: act.kind, after: null, limit: step.limit, now });
        assert.deepEqual(ids, model.owned(step.owner, act.kind, step.limit, now));
        const outcome = await store.takeDownOwned(step.owner, ids, act, now);
        assert.deepEqual(outcome, model.takeDownOwned(step.owner, ids, act, now));
        break;
      }
      case 'expire':
        assert.deepEqual(await store.expireDue(now, step.limit), model.expireDue(now, step.limit));
        break;
      case 'expireUnused': {
        const before = now - step.ageMs;
        assert.deepEqual(await store.expireUnused(before, now, 2), model.expireUnused(before, now, 2));
        break;
      }
      case 'forget':
        assert.equal(await store.forgetTombstones(now - step.ageMs, 2), model.forgetTombstones(now - step.ageMs, 2));
        break;
      case 'sweep': {
        const free = model.unreferencedBlobs(now - step.ageMs, 2);
        assert.deepEqual(await store.unreferencedBlobs(now - step.ageMs, 2), free);
        for (const sha256 of BYTES) {
          // Also tries blobs that must not be forgotten.
          const forget = free.some((blob) => blob.sha256 === sha256) || model.idsOfBlob(sha256).length > 0;
          if (forget) assert.deepEqual(await store.forgetBlob(sha256), model.forgetBlob(sha256));
        }
        // What was removed of the bytes.
        const some = model.trash.splice(0, step.ageMs % 3);
        await store.emptied(some);
        for (const { blob } of model.blobs) {
          assert.deepEqual(await store.leftBehind(keysOf(blob)), []);
        }
        break;
      }
      case 'use': {
        const used = step.places.map(idAt);
        await store.markUsed(used, now);
        model.markUsed(used, now, kit.usedStepMs);
        break;
      }
    }
  }
  await agree(store, model, ids, now);
  assert.deepEqual(notified.map(withoutMark), model.journal);
  await assertSound(store);
  store = await kit.again(store);
  await agree(store, model, ids, now);
  await store.close();
}

function actOf(kind: OwnerAct['kind'], now: EpochMs): OwnerAct {
  if (kind === 'quarantine') return { kind, mark: adminMark(now) };
  return kind === 'delete' ? { kind, by: 'eve' } : { kind };
}

function withoutMark(entry: JournalEntry): Omit<JournalEntry, 'mark'> {
  const { mark: _, ...rest } = entry;
  return rest;
}

async function agree(store: MetaStore, model: MetaModel, ids: readonly MediaId[], now: EpochMs): Promise<void> {
  for (const id of ids) assert.deepEqual(await store.find(id, now), model.find(id, now));
  assert.deepEqual((await store.journal.read(0, 1_000)).map(withoutMark), model.journal);
  assert.equal(store.journal.newest(), model.journal.length);
  for (const sha256 of BYTES) {
    assert.deepEqual(await store.idsOfBlob(sha256), model.idsOfBlob(sha256));
    const sent = await store.findBlobBySent(sha256);
    const known = model.blobsBySent(sha256);
    assert.equal(sent === undefined, known.length === 0);
    assert.ok(sent === undefined || known.some((blob) => blob.sha256 === sent.sha256));
    const refused = known.some(({ quarantine }) => quarantine?.cause === 'admin');
    assert.equal(sent?.quarantine?.cause === 'admin', refused, 'a refused blob is found before others');
    assert.equal(await store.isUnreferenced(sha256), model.isUnreferenced(sha256));
    assert.deepEqual(await store.findBlob(sha256), model.blobs.find((row) => row.blob.sha256 === sha256)?.blob);
  }
  assert.deepEqual([...(await store.trash(Number.MAX_SAFE_INTEGER, 1_000))].sort(), [...model.trash].sort());
  const unscanned = (await store.blobsAwaitingScan(null, 9)).map(({ sha256 }) => sha256);
  assert.deepEqual(unscanned, model.blobsAwaitingScan());
  assert.deepEqual(await store.unreferencedBlobs(now + 1, 9), model.unreferencedBlobs(now + 1, 9));
  assert.equal((await store.jobs.counts()).waiting, model.queued.size);
  assert.deepEqual(await listAll(store, now), model.rows.map(({ record }) => record.id).sort());
}

async function assertSound(store: MetaStore): Promise<void> {
  assert.deepEqual(await findingsOf(store), []);
}

/** The findings of a verification without repair. */
export async function findingsOf(store: MetaStore): Promise<readonly unknown[]> {
  const findings: unknown[] = [];
  await store.verify({
    repair: false,
    now: T0,
    signal: new AbortController().signal,
    onFinding: (finding) => findings.push(finding),
    onBlobUnknown: (record) => findings.push(record),
    onProgress: () => undefined,
  });
  return findings;
}

async function listAll(store: MetaStore, now: EpochMs, query: object = {}): Promise<readonly MediaId[]> {
  const seen: MediaId[] = [];
  for (let after: MediaId | null | undefined; after !== null; ) {
    const page = await store.list({ limit: 2, now, ...(after !== undefined && { after }), ...query });
    assert.ok(page.found.length <= 2);
    seen.push(...page.found.map((found) => ('media' in found ? found.media.record.id : found.record.id)));
    after = page.next;
  }
  return seen;
}
