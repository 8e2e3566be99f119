/** Room for uploads: how it is measured, what is refused without it, and how it is made. */
import { randomUUID } from 'node:crypto';
import { readdir, rm, stat, statfs, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { mediaKey } from '../../../origin/blobs/blob-store.js';
import { uploadSection } from '../../../origin/ingest/config.js';
import { type IngestDeps, ingest } from '../../../origin/ingest/ingest.js';
import { createRoom, type RoomState } from '../../../origin/ingest/room.js';
import { stage } from '../../../origin/ingest/stage.js';
import { openReserve } from '../../../origin/meta/lmdb/reserve.js';
import type { RecordsRoom } from '../../../origin/meta/store.js';
import { retentionSection } from '../../../origin/retention-rules.js';
import { Fault } from '../../../src/errors.js';
import { createIdSource } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { json, member } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';
import { openStores } from '../../kit/origin/stores.js';

const STILL = { thumbs: { enabled: false, video: { enabled: false } } };

const GONE = '/no/such/folder';

interface RoomRow {
  readonly when: string;
  readonly blobs?: number | null;
  readonly meta?: number | null;
  readonly records?: RecordsRoom;
  readonly arriving?: number;
  readonly takes: boolean;
  readonly state?: RoomState;
}

const ROOM: readonly RoomRow[] = [
  { when: 'every disk has more than enough', blobs: 200, meta: 200, takes: true, state: 'enough' },
  { when: 'every disk has just enough', blobs: 100, meta: 100, takes: true, state: 'enough' },
  { when: 'the disk of the blobs is short', blobs: 99, takes: false, state: 'disk_full' },
  { when: 'the disk of the blobs would be short', blobs: 150, arriving: 51, takes: false, state: 'enough' },
  { when: 'the disk of the metadata is short', meta: 99, takes: false, state: 'disk_full' },
  { when: 'bodies do not go to the disk of the metadata', meta: 100, arriving: 51, takes: true, state: 'enough' },
  { when: 'no storage has a limit', blobs: null, meta: null, takes: true, state: 'enough' },
  { when: 'the records are at their limit', records: 'data_max', takes: false, state: 'records_full' },
  { when: 'the reserve of the metadata is used', records: 'no_reserve', takes: false, state: 'disk_full' },
];

for (const row of ROOM) {
  void t.test(`room for uploads when ${row.when}`, async (t) => {
    const { blobs = null, meta = null, records = 'enough', arriving = 0 } = row;
    const room = createRoom({
      config: { freeMinBytes: 100 },
      blobs: { freeBytes: async () => blobs, stageFolder: GONE },
      meta: { freeBytes: async () => meta, room: async () => records },
      folders: [GONE],
      clock: new ManualClock(),
    });
    t.equal(await room.takes(arriving), row.takes);
    t.equal(await room.state(), row.state);
    if (row.state === 'enough') await room.require();
    else await t.rejects(room.require());
  });
}

void t.test(
  'room is measured anew before an upload is refused, and a write that failed counts for a minute',
  async (t) => {
    const clock = new ManualClock();
    let freeBytes = 100;
    let measured = 0;
    const room = createRoom({
      config: { freeMinBytes: 100 },
      blobs: {
        async freeBytes() {
          measured += 1;
          return freeBytes;
        },
        stageFolder: GONE,
      },
      meta: { freeBytes: async () => null, room: async () => 'enough' },
      folders: [],
      clock,
    });
    for (let n = 0; n < 3; n += 1) t.equal(await room.takes(0), true);
    t.equal(measured, 1);
    freeBytes = 101;
    t.equal(await room.takes(1), true, 'a body more than the last measurement allows');
    freeBytes = 0;
    clock.advance(500);
    t.equal(await room.takes(0), false);
    freeBytes = 100;
    t.equal(await room.takes(0), true);
    room.noteFull();
    t.equal(await room.state(), 'disk_full');
    t.equal(await room.takes(0), true, 'the next upload shows whether it is so');
    clock.advance(60_000);
    t.equal(await room.state(), 'enough');
  },
);

void t.test('the other folders count too', async (t) => {
  const folder = t.testdir({});
  const { bavail, bsize } = await statfs(folder);
  const room = (folders: readonly string[]) =>
    createRoom({
      config: { freeMinBytes: 2 * bavail * bsize },
      blobs: { freeBytes: async () => null, stageFolder: GONE },
      meta: { freeBytes: async () => null, room: async () => 'enough' },
      folders,
      clock: new ManualClock(),
    });
  t.equal(await room([GONE]).takes(0), true);
  t.equal(await room([folder]).takes(0), false);
});

void t.test('a reserve gives its room back in parts, takes it again, and is found by the next run', async (t) => {
  const path = join(t.testdir({}), 'reserve');
  const size = async (): Promise<number> => (await stat(path)).size;
  const reserve = await openReserve(path, 80_000);
  t.equal(reserve.whole, false);
  t.equal(await reserve.giveBack(), false, 'nothing is kept yet');
  t.equal(await reserve.refill(), true);
  t.equal(await size(), 80_000);
  t.equal(await reserve.giveBack(), true);
  t.equal(await size(), 70_000);
  t.equal(reserve.whole, false);
  const next = await openReserve(path, 80_000);
  t.equal(next.whole, false);
  t.equal(await next.refill(), true);
  for (let parts = 0; parts < 8; parts += 1) t.equal(await next.giveBack(), true);
  t.equal(await next.giveBack(), false, 'all is given back');
  t.equal(await next.refill(), true);
  await truncate(path, 5_000);
  t.equal(await next.giveBack(), true, 'somebody else cut it');
  t.equal(await size(), 0);
  await rm(path);
  t.equal(await next.giveBack(), false);
  t.equal(await next.refill(), true);
  t.equal(await size(), 80_000);
  const none = await openReserve(join(GONE, 'reserve'), 10);
  t.equal(await none.refill(), false, 'a folder that is gone');
});

void t.test('resumable uploads are not begun without room either', async (t) => {
  const origin = await startOrigin(t.testdir(), { upload: { free_min: '900TB' }, ...STILL });
  t.teardown(() => origin.close());
  const create = (headers: Readonly<Record<string, string>>) =>
    origin.as('alice', '/v1/uploads', { method: 'POST', headers: { 'tus-resumable': '1.0.0', ...headers } });
  for (const headers of [
    { 'upload-length': '10' },
    { 'upload-defer-length': '1' },
    { 'upload-length': '10', 'upload-concat': 'partial' },
    { 'upload-length': '0', 'upload-concat': 'partial' },
  ]) {
    const answer = await create(headers);
    t.equal(`${answer.status} ${member(answer, 'code')}`, '507 storage_full', JSON.stringify(headers));
  }
  t.match(json(await origin.send('/readyz')), { failed: ['disk'] });
  t.same(await readdir(join(origin.folder, 'stage', 'resumable')), []);
});

void t.test('an upload that cannot be recorded leaves no blob', async (t) => {
  const { log } = testDeps();
  const stores = await openStores(t.testdir(), new ManualClock(), { log });
  t.teardown(() => stores.close());
  const { blobs, clock } = stores;
  let fails = true;
  const config = { upload: configured(uploadSection), retention: configured(retentionSection) };
  const deps: IngestDeps = {
    clock,
    ids: createIdSource(clock),
    meta: {
      findBlob: (sha256) => stores.meta.findBlob(sha256),
      findBlobBySent: (sha256) => stores.meta.findBlobBySent(sha256),
      intend: (keys) => stores.meta.intend(keys),
      withdraw: (keys) => stores.meta.withdraw(keys),
      async commitUpload(upload) {
        if (fails) throw new Fault('storage_full', 'The metadata store has no room left.');
        return await stores.meta.commitUpload(upload);
      },
    },
    blobs,
    thumbs: { accepts: () => false },
    quotas: { retryAfterMs: () => 0 },
    scanner: { scan: async () => ({ kind: 'admit' }) },
    config,
  };
  const signal = new AbortController().signal;
  const send = async (bytes: Buffer) => {
    const options = { public: false, expiresInSeconds: undefined, filename: undefined };
    const chunks = [bytes];
    const source = { next: async () => chunks.shift() };
    const path = join(blobs.stageFolder, randomUUID());
    const staged = await stage(source, path, { sizeMaxBytes: 1e6, sync: true });
    return { staged, declaredType: undefined, owner: 'ada', options, quota: undefined };
  };
  const upload = await send(png(1));
  const { sha256 } = upload.staged;
  const stored = async (): Promise<readonly string[]> => {
    const keys: string[] = [];
    for await (const { key } of blobs.list(`media/${sha256}`)) keys.push(key);
    return keys;
  };
  await t.rejects(ingest(deps, upload, signal), { code: 'storage_full' });
  t.same(await stored(), []);

  fails = false;
  const { media, duplicate } = await ingest(deps, await send(png(1)), signal);
  t.equal(duplicate, false);
  fails = true;
  await t.rejects(ingest(deps, await send(png(1)), signal), { code: 'storage_full' });
  t.same(await stored(), [mediaKey(media.blob)], 'bytes that have a record stay');
});
