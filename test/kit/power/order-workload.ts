/**
 * The steps whose order alone decides what a power cut leaves: a folder is made, a metadata store is made, audit files
 * are rotated, a backup replaces another. Without a whole origin, so that it is quick.
 *
 * node order-workload.js FOLDER NOTES-FILE
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openAuditLog } from '../../../origin/audit.js';
import { openLocalStore } from '../../../origin/blobs/local.js';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaReader, openMetaStore } from '../../../origin/meta/lmdb.js';
import { backup } from '../../../origin/upkeep/backup.js';
import { keepAlive } from '../../../src/clock.js';
import { prepareSecrets } from '../../../src/dev/dev.js';
import { createLog } from '../../../src/log.js';
import { openPrivateFolder } from '../../../src/private-folder.js';
import { ManualClock } from '../clock.js';
import { configured } from '../deps.js';
import { openStores } from '../origin/stores.js';

const [folder = '', notesPath = ''] = process.argv.slice(2);
const alive = keepAlive();
const notes = openSync(notesPath, 'a');
const note = (what: string): void => void writeSync(notes, `${JSON.stringify(what)}\n`);
mkdirSync(folder);

await openPrivateFolder(join(folder, 'new', 'deep'));
note('new/deep');
await openPrivateFolder(join(folder, 'new', 'other'));
note('new/other');

await prepareSecrets(join(folder, 'data'));
note('data/secrets/edge');
note('data/secrets/link');

const log = createLog('order', { level: 'silent' });
const config = configured(metaSection, { folder: join(folder, 'meta'), reserveBytes: 65_536 });
const meta = await openMetaStore(config, { clock: new ManualClock(), log, randomName: randomUUID });
await meta.close();
note('meta/data.mdb');

const audit = await openAuditLog({ file: join(folder, 'audit.jsonl'), rotateBytes: 1 });
for (const at of [1, 2, 3]) {
  const none = { target: null, seq: null, reason: null, requestId: null, address: null };
  await audit.append({ at, by: `line ${at}`, act: 'scrub', outcome: 'done', ...none });
  note(`line ${at}`);
}
await audit.close();

const stores = await openStores(join(folder, 'stores'), new ManualClock(), { log });
const deps = { meta: stores.meta, blobs: stores.blobs, clock: stores.clock };
for (const nth of [1, 2]) {
  await stores.put(`words ${nth}`);
  await backup(
    {
      ...deps,
      openMeta: (path) =>
        openMetaReader({ ...config, folder: path }, { clock: stores.clock, log, randomName: randomUUID }),
      openBlobs: (path, stageFolder) => openLocalStore({ folder: path, stageFolder }),
    },
    {
      folder: join(folder, 'backup'),
      signal: new AbortController().signal,
      onFinding: ({ key }) => note(`${key} is missing`),
      onProgress: () => undefined,
    },
  );
  note('backup/meta/data.mdb');
}
await stores.close();
alive.release();
