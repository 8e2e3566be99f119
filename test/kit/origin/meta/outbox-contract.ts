/** What every metadata store must do with events for the chat server: which acts tell what, and how the outbox is worked off. */
import assert from 'node:assert/strict';
import type { Test } from 'tap';
import type { ThumbMade } from '../../../../origin/meta/media.js';
import { NO_FACTS } from '../../../../origin/meta/media.js';
import type { EventMaker } from '../../../../origin/meta/outbox/outbox.js';
import type { MetaStore, OwnerAct } from '../../../../origin/meta/store.js';
import type { MediaId, Sha256 } from '../../../../src/ids.js';
import { adminMark, T0, uploadOf } from './contract.js';

export interface OutboxUnderTest {
  /** Opens a new, empty store, whose events are made so. */
  fresh(eventMaker: EventMaker | undefined): Promise<MetaStore>;
  /** Closes the store and opens it again. */
  again(store: MetaStore, eventMaker: EventMaker): Promise<MetaStore>;
}

const [A, B] = ['a'.repeat(64), 'b'.repeat(64)] as [Sha256, Sha256];
const LATER = T0 + 1e12;
const HELD = { ...adminMark(T0, 'held'), by: 'scanner' };
const NO_THUMBS = { kind: 'none', reason: 'unsupported_type' } as const;
const THUMB: ThumbMade = {
  variant: 'small',
  format: 'webp',
  sha256: B,
  place: '0'.repeat(16) as ThumbMade['place'],
  sizeBytes: 1,
  width: 1,
  height: 1,
  animated: false,
};
const MADE = { kind: 'made', made: [THUMB], picture: { ...NO_FACTS, width: 7 } } as const;

export const EVENTS: EventMaker = {
  describe: ({ record, blob }) => ({ id: record.id, width: blob.picture.width, thumbs: blob.thumbs.kind }),
  waitsForThumbs: true,
};

type Told = readonly [type: string, id: MediaId, data: Readonly<Record<string, unknown>>];

/** Takes all that is due, as if it was sent: by ids, which have no order among each other, and in the order of each. */
async function taken({ outbox }: MetaStore, now = LATER): Promise<readonly Told[]> {
  const told: Told[] = [];
  for (;;) {
    const due = await outbox.due(now, 2);
    if (due.length === 0) return told.toSorted(([, one], [, other]) => (one < other ? -1 : one > other ? 1 : 0));
    for (const { name, type, id, data } of due) {
      const { id: within, ...rest } = JSON.parse(data) as Readonly<Record<string, unknown>>;
      assert.equal(within, id);
      told.push([type, id, rest]);
      await outbox.sent(name);
    }
  }
}

export async function outboxContract(t: Test, kit: OutboxUnderTest): Promise<void> {
  await actsContract(t, kit);
  await orderContract(t, kit);
}

async function actsContract(t: Test, kit: OutboxUnderTest): Promise<void> {
  const open = async (t: Test, eventMaker: EventMaker | null = EVENTS): Promise<MetaStore> => {
    const store = await kit.fresh(eventMaker ?? undefined);
    t.teardown(() => store.close());
    return store;
  };
  const ready = (thumbs: string, width: number | null = null) => ({ width, thumbs });

  await t.test('media are ready at once if nothing is awaited, and a duplicate tells nothing', async (t) => {
    const store = await open(t);
    const [first, open_] = [uploadOf(A, { thumbs: NO_THUMBS }), uploadOf(A, { thumbs: NO_THUMBS, public: true })];
    for (const upload of [first, uploadOf(A), open_]) await store.commitUpload(upload);
    t.same(await taken(store), [
      ['media.ready', first.id, ready('none')],
      ['media.ready', open_.id, ready('none')],
    ]);
    t.same(await store.outbox.counts(), { waiting: 0, dead: 0, oldestSince: null });
  });

  await t.test('media with thumbnails are ready when these are made, each id once', async (t) => {
    const store = await open(t);
    const [one, other] = [uploadOf(A), uploadOf(A, { public: true })];
    await store.commitUpload(one);
    await store.commitUpload(other);
    t.same(await taken(store), []);
    t.ok(await store.finishThumbs(A, MADE));
    t.same(await taken(store), [
      ['media.ready', one.id, ready('ready', 7)],
      ['media.ready', other.id, ready('ready', 7)],
    ]);
    await store.redoThumbs(A, 'backfill', T0);
    await store.remove(other.id, 'eve', T0);
    await taken(store);
    const late = uploadOf(A, { public: true });
    await store.commitUpload(late);
    t.same(await taken(store), [['media.ready', late.id, ready('pending', 7)]], 'a second rendering is not awaited');
    t.ok(await store.finishThumbs(A, MADE));
    t.same(await taken(store), [], 'nor told');
  });

  await t.test('where no thumbnails are rendered nobody waits for them', async (t) => {
    const store = await open(t, { ...EVENTS, waitsForThumbs: false });
    const upload = uploadOf(A);
    await store.commitUpload(upload);
    t.same(await taken(store), [['media.ready', upload.id, ready('pending')]]);
  });

  await t.test(
    'thumbnails that cannot be made are a refusal with its reason, also when a job is given up',
    async (t) => {
      const store = await open(t);
      const [broken, given] = [uploadOf(A), uploadOf(B)];
      await store.commitUpload(broken);
      await store.finishThumbs(A, { kind: 'refused', reason: 'broken_image', picture: NO_FACTS });
      await store.commitUpload(given);
      await store.jobs.bury(B, 'why', T0);
      t.same(await taken(store), [
        ['media.refused', broken.id, { ...ready('none'), reason: 'broken_image' }],
        ['media.refused', given.id, { ...ready('none'), reason: 'failed' }],
      ]);
    },
  );

  await t.test('what awaits the scanner is ready when it is released, or refused', async (t) => {
    const store = await open(t);
    const [plain, picture] = [uploadOf(A, { thumbs: NO_THUMBS, quarantine: HELD }), uploadOf(B, { quarantine: HELD })];
    await store.commitUpload(plain);
    await store.commitUpload(picture);
    t.same(await taken(store), []);
    await store.resolveScan(A, null, T0);
    t.same(await taken(store), [['media.ready', plain.id, ready('none')]]);
    await store.finishThumbs(B, MADE);
    t.same(await taken(store), [], 'not yet visible');
    await store.resolveScan(B, null, T0);
    t.same(await taken(store), [['media.ready', picture.id, ready('ready', 7)]]);
  });

  await t.test('what the scanner finds bad is refused, and before it is visible nobody hears of its id', async (t) => {
    const store = await open(t);
    const [later, known, atOnce] = [
      uploadOf(A, { thumbs: NO_THUMBS, quarantine: HELD }),
      uploadOf(B, { thumbs: NO_THUMBS }),
      uploadOf(B, { thumbs: NO_THUMBS, public: true, quarantine: adminMark(T0) }),
    ];
    await store.commitUpload(later);
    await store.resolveScan(A, adminMark(T0), T0);
    await store.commitUpload(known);
    t.match(await store.commitUpload(atOnce), { kind: 'quarantined' });
    t.same(await taken(store), [
      ['media.refused', later.id, { reason: 'quarantined' }],
      ['media.ready', known.id, ready('none')],
      ['media.quarantined', known.id, { reason: 'quarantined' }],
    ]);
  });

  await t.test('takedowns and restores are told, one event for each id, and nothing is told twice', async (t) => {
    const store = await open(t);
    const [one, other, brief] = [
      uploadOf(A, { thumbs: NO_THUMBS }),
      uploadOf(A, { thumbs: NO_THUMBS, public: true }),
      uploadOf(B, { thumbs: NO_THUMBS, expiresAt: T0 + 5 }),
    ];
    for (const upload of [one, other, brief]) await store.commitUpload(upload);
    t.equal((await taken(store)).length, 3);
    await store.quarantine(one.id, adminMark(T0));
    await store.quarantine(one.id, adminMark(T0));
    t.same(await taken(store), [
      ['media.quarantined', one.id, { reason: 'quarantined' }],
      ['media.quarantined', other.id, { reason: 'quarantined' }],
    ]);
    await store.restore(one.id, T0);
    t.same(await taken(store), [
      ['media.restored', one.id, ready('none')],
      ['media.restored', other.id, ready('none')],
    ]);
    await store.remove(one.id, 'eve', T0);
    await store.remove(one.id, 'eve', T0);
    await store.expireDue(T0 + 5, 9);
    await store.quarantine(A, adminMark(T0, 'rot'));
    t.same(await taken(store), [
      ['media.deleted', one.id, {}],
      ['media.quarantined', other.id, { reason: 'damaged' }],
      ['media.expired', brief.id, {}],
    ]);
  });

  await t.test('acts on all media of an owner tell each id, those of others that share bytes too', async (t) => {
    const store = await open(t);
    const own = [
      uploadOf(A, { thumbs: NO_THUMBS, owner: 'alice' }),
      uploadOf(B, { thumbs: NO_THUMBS, owner: 'alice' }),
    ];
    const shared = uploadOf(A, { thumbs: NO_THUMBS, owner: 'bob', public: true });
    for (const upload of [...own, shared]) await store.commitUpload(upload);
    await taken(store);
    const ids = own.map(({ id }) => id);
    const typesAfter = async (act: OwnerAct): Promise<readonly (readonly [string, MediaId])[]> => {
      await store.takeDownOwned('alice', ids, act, T0);
      return (await taken(store)).map(([type, id]) => [type, id]);
    };
    const all = [...ids, shared.id].toSorted();
    const mark = adminMark(T0, 'admin');
    t.same(
      await typesAfter({ kind: 'quarantine', mark }),
      all.map((id) => ['media.quarantined', id]),
    );
    t.same(await typesAfter({ kind: 'quarantine', mark }), [], 'once');
    t.same(
      await typesAfter({ kind: 'restore' }),
      all.map((id) => ['media.restored', id]),
    );
    t.same(
      await typesAfter({ kind: 'delete', by: 'mo' }),
      ids.toSorted().map((id) => ['media.deleted', id]),
    );
  });

  await t.test('a store without webhooks keeps nothing', async (t) => {
    const store = await open(t, null);
    const upload = uploadOf(A, { thumbs: NO_THUMBS });
    await store.commitUpload(upload);
    await store.remove(upload.id, 'eve', T0);
    t.same(await store.outbox.counts(), { waiting: 0, dead: 0, oldestSince: null });
  });
}

async function orderContract(t: Test, kit: OutboxUnderTest): Promise<void> {
  /** Three events of one id, and one of another. */
  const setUp = async () => {
    const store = await kit.fresh(EVENTS);
    const [one, other] = [uploadOf(A, { thumbs: NO_THUMBS }), uploadOf(B, { thumbs: NO_THUMBS })];
    await store.commitUpload(one);
    await store.quarantine(one.id, adminMark(T0));
    await store.restore(one.id, T0);
    await store.commitUpload(other);
    const types = async (from: MetaStore, now = LATER): Promise<readonly string[]> =>
      (await from.outbox.due(now, 9))
        .map(({ type, id }) => `${id === one.id ? 'one' : 'other'} ${type.slice(6)}`)
        .sort();
    const first = async (from: MetaStore, id = one.id) => {
      const found = (await from.outbox.due(LATER, 9)).find((event) => event.id === id);
      assert.ok(found);
      return found;
    };
    return { store, types, first, one, other };
  };

  await t.test('of one id only the first event is due, also after a restart', async (t) => {
    const { store, types, first } = await setUp();
    t.same(await types(store), ['one ready', 'other ready']);
    t.equal((await store.outbox.due(LATER, 1)).length, 1, 'no more than asked for');
    await store.outbox.sent((await first(store)).name);
    const reopened = await kit.again(store, EVENTS);
    t.same(await types(reopened), ['one quarantined', 'other ready']);
    await reopened.outbox.sent('msg_unknown');
    t.match(await reopened.outbox.counts(), { waiting: 3, dead: 0 });
    await reopened.close();
  });

  await t.test('an event that failed waits, and those of its id behind it wait for it', async (t) => {
    const { store, types, first } = await setUp();
    const { name, readyAt, attempts, fault } = await first(store);
    t.same([attempts, fault], [0, null]);
    const retryAt = readyAt + 1e9;
    await store.outbox.failed(name, 'answered 500', retryAt);
    t.same(await types(store, retryAt - 1), ['other ready']);
    t.same(await types(store, retryAt), ['one ready', 'other ready']);
    t.match(await first(store), { name, attempts: 1, fault: 'answered 500' });
    await store.outbox.sent(name);
    t.same(await types(store, retryAt), ['one quarantined', 'other ready']);
    t.match(await first(store), { attempts: 0, fault: null }, 'which was not tried');
    await store.close();
  });

  await t.test('a dead letter holds up nothing, is sent again on request, and is forgotten in time', async (t) => {
    const { store, types, first, other } = await setUp();
    const [{ name, since }, second] = [await first(store), await first(store, other.id)];
    await store.outbox.bury(name, 'gone', T0 + 7);
    await store.outbox.bury(second.name, 'gone too', T0 + 8);
    await store.outbox.bury(second.name, 'again', T0 + 9);
    await store.outbox.failed(second.name, 'late', LATER);
    t.same(await types(store), ['one quarantined']);
    t.match(await store.outbox.dead(9), [
      { name: second.name, fault: 'gone too', attempts: 1, diedAt: T0 + 8 },
      { name, fault: 'gone', diedAt: T0 + 7 },
    ]);
    t.match(await store.outbox.dead(1), [{ name: second.name }]);
    t.same(await store.outbox.counts(), { waiting: 2, dead: 2, oldestSince: (await first(store)).since });
    t.equal(await store.outbox.revive(1, since + 50), 1, 'the oldest');
    t.same(await types(store), ['one ready'], 'in its turn again');
    t.match(await first(store), { name, attempts: 0, since: since + 50, readyAt: since + 50, diedAt: null });
    t.equal(await store.outbox.forget(T0 + 8, 9), 0);
    t.equal(await store.outbox.forget(T0 + 9, 9), 1);
    t.match(await store.outbox.counts(), { waiting: 3, dead: 0 });
    t.equal(await store.outbox.revive(9, T0), 0);
    await store.close();
  });
}
