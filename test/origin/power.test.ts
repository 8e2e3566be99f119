/** The order of effects on the disk, where only the order decides what a power cut leaves. */
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { record, whyNotTraced } from '../kit/power/record.js';
import { replay } from '../kit/power/replay.js';
import { cuts, type DiskState, stateAfter } from '../kit/power/states.js';
import { seeded } from '../kit/random.js';

const WORKLOAD = fileURLToPath(new URL('../kit/power/order-workload.js', import.meta.url));
/** LMDB's first two pages. */
const PAGE_BYTES = 4_096;
/** 32 bytes as base64url, and the end of the line. */
const SECRET_BYTES = 44;
const MAGIC = { at: 24, value: 0xbeef_c0de } as const;

void t.test(
  'a folder, a secret, a database, a full audit file and a backup survive a power cut in every step',
  {
    skip: whyNotTraced(),
  },
  async (t) => {
    const folder = t.testdir();
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const { calls, root, notesPath } = await record(WORKLOAD, folder);
    const random = seeded(1);
    const faults = new Set<string>();
    for (const { disk, notes, step } of replay<string>(calls, root, notesPath)) {
      for (const cut of cuts(disk, { drawn: 2, single: 3, random })) {
        for (const fault of faultsOf(stateAfter(disk, cut, random), notes)) faults.add(`${step}: ${fault}`);
      }
    }
    t.same([...faults], []);
  },
);

function* faultsOf(state: DiskState, notes: readonly string[]): Generator<string, void> {
  const audited = [...state].filter(([path]) => path.startsWith('audit.jsonl')).map(([, content]) => String(content));
  for (const note of notes) {
    const isThere = note.startsWith('line') ? audited.some((text) => text.includes(`"${note}"`)) : state.has(note);
    if (!isThere) yield `${note} is lost`;
  }
  for (const name of ['edge', 'link']) {
    const secret = state.get(`data/secrets/${name}`);
    if (secret instanceof Buffer && secret.length !== SECRET_BYTES) yield `the secret ${name} is cut`;
  }
  for (const path of ['meta/data.mdb', 'stores/meta/data.mdb', 'backup/meta/data.mdb']) {
    const database = state.get(path);
    if (database instanceof Buffer && !isDatabase(database)) yield `${path} is no database`;
  }
}

function isDatabase(bytes: Buffer): boolean {
  return [0, PAGE_BYTES].every(
    (page) => bytes.length > page + MAGIC.at + 4 && bytes.readUInt32LE(page + MAGIC.at) === MAGIC.value,
  );
}
