/** The rules of the metadata store over tables in memory, where many histories are tried in little time. */
import t from 'tap';
import type { LmdbConfig } from '../../../origin/meta/config.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { createStore } from '../../../origin/meta/transactions.js';
import { createLog } from '../../../src/log.js';
import { ManualClock } from '../../kit/clock.js';
import { metaAgainContract } from '../../kit/origin/meta/again-contract.js';
import { announced, metaContract, T0 } from '../../kit/origin/meta/contract.js';
import { MemoryTables, memoryDatabase } from '../../kit/origin/meta/memory-tables.js';
import { metaOwnedContract } from '../../kit/origin/meta/owned-contract.js';

const config: LmdbConfig = {
  folder: '',
  dataMaxBytes: 1e9,
  reserveBytes: 0,
  commitMax: 64,
  queueMax: 1_000,
  scanMax: 5,
  usedStepMs: 10,
};

void t.test('the rules on any tables fulfil the contract of metadata stores', async (t) => {
  const opened = new Map<MetaStore, MemoryTables>();
  let names = 0;
  const open = async (tables: MemoryTables): Promise<MetaStore> => {
    const made = await createStore(memoryDatabase(tables), { format: 3, journal: 'the journal', madeAt: T0 }, config, {
      clock: new ManualClock(T0),
      log: createLog('test', { level: 'silent' }),
      randomName: () => {
        names += 1;
        return `name-${names}`;
      },
    });
    const store = announced(made);
    opened.set(store, tables);
    return store;
  };
  const kit = {
    usedStepMs: 10,
    histories: 60,
    fresh: () => open(new MemoryTables()),
    async again(store: MetaStore) {
      await store.close();
      return await open(opened.get(store) ?? new MemoryTables());
    },
  };
  await metaContract(t, kit);
  await metaAgainContract(t, kit);
  await metaOwnedContract(t, kit);
});
