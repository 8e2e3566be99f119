/** What promises to be on the disk is synced, in this order, and says so only when every sync has ended. */
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import type { AuditAct } from '../../origin/audit.js';
import type { UnfinishedUpload } from '../../origin/ingest/resumable/upload-record.js';
import { Fault } from '../../src/errors.js';
import { createLog } from '../../src/log.js';
import { ManualClock } from '../kit/clock.js';
import { mediaKey, PLACE, thumbKey } from '../kit/origin/keys.js';
import { watchSyncs } from '../kit/syncs.js';
import { until } from '../kit/until.js';

const { openPositionFile } = await import('../../edge/journal/position.js');
const { openAuditLog } = await import('../../origin/audit.js');
const { openLocalStore } = await import('../../origin/blobs/local.js');
const { NO_LIMITS } = await import('../kit/origin/chunks.js');
const { openUploadsInFolder } = await import('../../origin/ingest/resumable/uploads-in-folder.js');
const { stage } = await import('../../origin/ingest/stage.js');
const { openStores, sha256Of } = await import('../kit/origin/stores.js');

const skip = process.platform === 'linux' ? false : 'only Linux tells which file is synced';
const SHA = sha256Of('bytes');
const OTHER = sha256Of('other');
const FACTS = { sizeBytes: 5, sha256: SHA };
const ID = 'a'.repeat(32);

const UPLOAD: UnfinishedUpload = {
  id: ID,
  owner: 'ada',
  sizeBytes: 100,
  metadata: '',
  role: { kind: 'whole' },
  expiresAt: 1,
  mediaId: null,
};

const ACT: AuditAct = {
  at: 0,
  by: 'eve',
  act: 'delete',
  target: SHA,
  outcome: 'done',
  seq: 1,
  reason: null,
  requestId: null,
  address: null,
};

/** A source of these chunks. */
function chunks(...given: readonly Buffer[]) {
  const left = [...given];
  return { next: async () => left.shift() };
}

const body = (bytes: Buffer, offset = 0) => ({
  source: chunks(bytes),
  offset,
  sizeMaxBytes: 100,
  beyond: () => new Fault('too_large', 'It is too long.'),
  checksum: undefined,
});

interface Durable {
  readonly what: string;
  /** Prepares the folder and returns the act. */
  readonly prepare: (folder: string) => Promise<() => Promise<unknown>>;
  readonly syncs: readonly string[];
  /** What must not exist yet while the first sync waits. */
  readonly notBefore?: string;
}

async function openBlobs(folder: string) {
  const blobs = await openLocalStore({ folder: join(folder, 'blobs'), stageFolder: join(folder, 'stage') });
  const staged = async (name: string): Promise<string> => {
    const path = join(folder, 'stage', name);
    await writeFile(path, 'bytes');
    return path;
  };
  return { blobs, staged };
}

const blobPath = `blobs/media/${SHA.slice(0, 2)}/${SHA}-${PLACE}`;

const ACTS: readonly Durable[] = [
  {
    what: 'the name of a small blob, whose bytes each write syncs',
    async prepare(folder) {
      const { blobs } = await openBlobs(folder);
      await blobs.put?.(mediaKey(SHA), Buffer.from('bytes'));
      await blobs.remove(mediaKey(SHA));
      return async () => await blobs.put?.(mediaKey(SHA), Buffer.from('bytes'));
    },
    syncs: [dirname(blobPath)],
  },
  {
    what: 'a blob in a new folder',
    async prepare(folder) {
      const { blobs, staged } = await openBlobs(folder);
      const path = await staged('x');
      return () => blobs.adopt(path, mediaKey(SHA), FACTS);
    },
    syncs: ['stage/x', 'blobs', 'blobs/media', `blobs/media/${SHA.slice(0, 2)}`],
    notBefore: blobPath,
  },
  {
    what: 'a blob in a known folder, of a file that is synced already',
    async prepare(folder) {
      const { blobs, staged } = await openBlobs(folder);
      await blobs.adopt(await staged('x'), mediaKey(SHA), FACTS);
      const path = await staged('y');
      return () => blobs.adopt(path, mediaKey(SHA), { ...FACTS, synced: true });
    },
    syncs: [`blobs/media/${SHA.slice(0, 2)}`],
  },
  {
    what: 'the first thumbnail of a source',
    async prepare(folder) {
      const { blobs, staged } = await openBlobs(folder);
      const path = await staged('x');
      return () => blobs.adopt(path, thumbKey(OTHER, SHA), FACTS);
    },
    syncs: [
      'stage/x',
      'blobs',
      'blobs/thumb',
      `blobs/thumb/${OTHER.slice(0, 2)}`,
      `blobs/thumb/${OTHER.slice(0, 2)}/${OTHER}`,
    ],
  },
  {
    what: 'a body on the stage',
    async prepare(folder) {
      const large = Array.from({ length: 4 }, () => Buffer.alloc(262_144, 'x'));
      return async () => {
        const staged = await stage(chunks(...large), join(folder, 'x'), { sizeMaxBytes: 1e9, sync: true });
        t.equal(staged.synced, true);
      };
    },
    syncs: ['x'],
  },
  {
    what: 'the record of a new resumable upload',
    async prepare(folder) {
      const uploads = await openUploadsInFolder(folder);
      return () => uploads.create(UPLOAD, NO_LIMITS);
    },
    syncs: [`${ID}.json.new`, ''],
    notBefore: `${ID}.json`,
  },
  {
    what: 'bytes of a resumable upload',
    async prepare(folder) {
      const uploads = await openUploadsInFolder(folder);
      await uploads.create(UPLOAD, NO_LIMITS);
      return () => uploads.append(ID, body(Buffer.from('bytes')));
    },
    syncs: [ID],
  },
  {
    what: 'the end of a resumable upload',
    async prepare(folder) {
      const uploads = await openUploadsInFolder(folder);
      await uploads.create(UPLOAD, NO_LIMITS);
      return () => uploads.drop(ID);
    },
    syncs: [''],
  },
  {
    what: 'a line of the audit log',
    async prepare(folder) {
      const audit = await openAuditLog({ file: join(folder, 'audit', 'log'), rotateBytes: 1e6 });
      t.teardown(() => audit.close());
      return () => audit.append(ACT);
    },
    syncs: ['audit/log'],
  },
  {
    what: 'a line of the audit log that begins a new file',
    async prepare(folder) {
      const audit = await openAuditLog({ file: join(folder, 'audit', 'log'), rotateBytes: 1 });
      t.teardown(() => audit.close());
      await audit.append(ACT);
      return () => audit.append(ACT);
    },
    syncs: ['audit', 'audit', 'audit/log'],
  },
  {
    what: 'the position in the journal',
    async prepare(folder) {
      const file = await openPositionFile(folder, (thrown) => t.fail(String(thrown)));
      return () => {
        file.save({ journal: 'j', seq: 1, mark: null });
        return file.flush();
      };
    },
    syncs: ['journal-position.json.tmp', ''],
    notBefore: 'journal-position.json',
  },
  {
    what: 'a copy of the metadata',
    async prepare(folder) {
      const log = createLog('test', { level: 'silent' });
      const stores = await openStores(folder, new ManualClock(), { log });
      t.teardown(() => stores.close());
      await stores.put('bytes');
      return () => stores.meta.backup(join(folder, 'copy'));
    },
    syncs: ['', '', 'copy/data.mdb', 'copy'],
  },
];

void t.test('what is durable waits for each of its syncs', { skip }, async (t) => {
  const root = t.testdir({});
  const syncs = await watchSyncs(t, root);
  for (const [number, { what, prepare, syncs: expected, notBefore }] of ACTS.entries()) {
    const run = async (name: string): Promise<() => Promise<unknown>> => {
      const folder = join(root, `${number}-${name}`);
      await mkdir(folder);
      return prepare(folder);
    };
    const act = await run('whole');
    syncs.forget();
    await act();
    const own = syncs.paths.map((path) => path.split('/').slice(1).join('/'));
    t.same(own, expected, what);

    for (let after = 0; after < own.length; after += 1) {
      const again = await run(String(after));
      syncs.forget();
      const held = syncs.hold(after);
      let done = false;
      const acting = again().then(() => {
        done = true;
      });
      await until(`${what}: sync ${after + 1}`, held.isReached);
      for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
      t.equal(done, false, `${what}: waits for the sync of ${own[after]}`);
      if (after === 0 && notBefore !== undefined) {
        await t.rejects(stat(join(root, `${number}-${after}`, notBefore)), { code: 'ENOENT' }, `${what}: no name yet`);
      }
      held.letGo();
      await acting;
    }
  }
});

void t.test('a blob whose sync fails is not stored', { skip }, async (t) => {
  const root = t.testdir({});
  const { blobs, staged } = await openBlobs(root);
  const path = await staged('x');
  const syncs = await watchSyncs(t, root);
  syncs.fail(0);
  await t.rejects(blobs.adopt(path, mediaKey(SHA), FACTS), { code: 'storage_unavailable' });
  t.equal(await blobs.stat(mediaKey(SHA)), undefined);
  await t.rejects(stat(path), { code: 'ENOENT' }, 'nor is it left on the stage');
  syncs.forget();
  syncs.fail(2);
  await t.rejects(blobs.adopt(await staged('y'), mediaKey(SHA), FACTS), { code: 'storage_unavailable' });
  syncs.forget();
  await blobs.adopt(await staged('z'), mediaKey(SHA), FACTS);
  t.ok(syncs.paths.includes(`blobs/media/${SHA.slice(0, 2)}`), 'the name is synced by the next one');
});

void t.test('a sync of a body on the stage that fails refuses the body, however early it came', { skip }, async (t) => {
  const root = t.testdir({});
  const syncs = await watchSyncs(t, root);
  // A long body is synced while it arrives, a short one at its end.
  for (const count of [80, 4]) {
    const large = Array.from({ length: count }, () => Buffer.alloc(262_144, 'x'));
    const path = join(root, `x${count}`);
    syncs.forget();
    syncs.fail(0);
    await t.rejects(stage(chunks(...large), path, { sizeMaxBytes: 1e9, sync: true }), { code: 'EIO' });
    await t.rejects(stat(path), { code: 'ENOENT' });
  }
});
