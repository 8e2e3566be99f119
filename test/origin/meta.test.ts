import t from 'tap';
import type { MetaConfig } from '../../origin/meta/config.js';
import { openMetaStore } from '../../origin/meta/lmdb.js';
import type { MetaStore } from '../../origin/meta/store.js';
import { createLog } from '../../src/log.js';
import { ManualClock } from '../kit/clock.js';
import { metaContract } from '../kit/meta-contract.js';

const silent = createLog('test', { level: 'silent', requests: 'none' });
let names = 0;
const parts = {
  clock: new ManualClock(),
  log: silent,
  randomName: (): string => {
    names += 1;
    return `name-${names}`;
  },
};

function configOf(folder: string): MetaConfig {
  return { folder, dataMaxBytes: 1e9, commitMax: 64, queueMax: 1_000, scanMax: 5, usedStepMs: 10 };
}

void t.test('the store on LMDB keeps the contract of every metadata store', async (t) => {
  const root = t.testdir();
  const folders = new Map<MetaStore, string>();
  let made = 0;
  const open = async (folder: string): Promise<MetaStore> => {
    const store = await openMetaStore(configOf(folder), parts);
    folders.set(store, folder);
    return store;
  };
  await metaContract(t, {
    usedStepMs: 10,
    histories: 25,
    fresh() {
      made += 1;
      return open(`${root}/${made}`);
    },
    async again(store) {
      await store.close();
      return open(folders.get(store) ?? '');
    },
  });
});
