/** The outbox of the embedded store, on its own tables and over tables in memory. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import t from 'tap';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaStore } from '../../../origin/meta/lmdb.js';
import type { EventMaker } from '../../../origin/meta/outbox/outbox.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { createStore, type MetaDeps } from '../../../origin/meta/transactions.js';
import { createLog } from '../../../src/log.js';
import { ManualClock } from '../../kit/clock.js';
import { configured } from '../../kit/deps.js';
import { announced, findingsOf, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { MemoryTables, memoryDatabase } from '../../kit/origin/meta/memory-tables.js';
import { EVENTS, outboxContract } from '../../kit/origin/meta/outbox-contract.js';

const log = createLog('test', { level: 'silent' });
const depsOf = (eventMaker: EventMaker | undefined): MetaDeps => ({
  clock: new ManualClock(T0),
  log,
  randomName: randomUUID,
  eventMaker,
});

void t.test('the outbox on LMDB fulfils the contract', async (t) => {
  const folder = t.testdir();
  let stores = 0;
  const folders = new Map<MetaStore, string>();
  const open = async (path: string, eventMaker: EventMaker | undefined): Promise<MetaStore> => {
    const config = configured(metaSection, { folder: path, reserveBytes: 65_536 });
    const store = announced(await openMetaStore(config, depsOf(eventMaker)));
    folders.set(store, path);
    return store;
  };
  await outboxContract(t, {
    fresh(eventMaker) {
      stores += 1;
      return open(join(folder, String(stores)), eventMaker);
    },
    async again(store, eventMaker) {
      await store.close();
      return open(folders.get(store) ?? '', eventMaker);
    },
  });
});

void t.test('the outbox over tables in memory fulfils the contract, and fsck finds nothing wrong', async (t) => {
  const opened = new Map<MetaStore, MemoryTables>();
  const config = { ...configured(metaSection), folder: '' };
  const open = async (tables: MemoryTables, eventMaker: EventMaker | undefined): Promise<MetaStore> => {
    const stamp = { format: 5, journal: 'the journal', madeAt: T0 };
    const store = announced(await createStore(memoryDatabase(tables), stamp, config, depsOf(eventMaker)));
    opened.set(store, tables);
    return store;
  };
  await outboxContract(t, {
    fresh: (eventMaker) => open(new MemoryTables(), eventMaker),
    async again(store, eventMaker) {
      await store.close();
      return open(opened.get(store) ?? new MemoryTables(), eventMaker);
    },
  });

  const store = await open(new MemoryTables(), EVENTS);
  const upload = uploadOf('a'.repeat(64) as never, { thumbs: { kind: 'none', reason: 'unsupported_type' } });
  await store.commitUpload(upload);
  await store.remove(upload.id, 'eve', T0);
  await store.outbox.bury((await store.outbox.due(T0, 1))[0]?.name ?? '', 'why', T0);
  t.same(await findingsOf(store), []);
});
