/**
 * A process that writes to the stores as fast as it can until it is killed: uploads, duplicates, deletes, quarantines,
 * thumbnails, expiry and sweeps at the same time. It writes what it is about to do, and what was acknowledged, to a file.
 *
 * node crash-writer.js FOLDER RECORD-FILE SEED
 */
import { openSync, writeSync } from 'node:fs';
import { newPlace } from '../../../origin/blobs/blob-store.js';
import { retentionSection } from '../../../origin/retention-rules.js';
import { openSweeper } from '../../../origin/upkeep/sweeper.js';
import type { MediaId } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import { ManualClock } from '../clock.js';
import { configured } from '../deps.js';
import { seeded } from '../random.js';
import type { CrashLine } from './crash-record.js';
import { openStores, sha256Of } from './stores.js';

const [folder = '', recordPath = '', seed = ''] = process.argv.slice(2);
const WRITERS = 12;
const never = new AbortController().signal;

const random = seeded(Number(seed));
const record = openSync(recordPath, 'a');
const log = createLog('crash', { level: 'silent' });
/** A day later in each run, so that grace periods end in some runs. */
const clock = new ManualClock(Date.UTC(2200, 0, 1) + Number(seed) * 86_400_000);
const stores = await openStores(folder, clock, { log });
const sweeper = openSweeper({
  config: configured(retentionSection, { stageMs: 1e15, sweepEveryMs: 1e12 }),
  quota: { periodMs: 86_400_000 },
  meta: stores.meta,
  blobs: stores.blobs,
  room: { state: async () => 'enough' },
  clock,
  log,
  metrics: createMetrics(''),
});
const alive: MediaId[] = [];
stores.meta.journal.subscribe(({ seq }) => note({ did: 'journal', seq }));
process.send?.('ready');
await Promise.all([...Array.from({ length: WRITERS }, write), sweep()]);

async function write(): Promise<void> {
  for (;;) {
    const choice = random();
    if (choice < 0.6 || alive.length === 0) await upload();
    else if (choice < 0.85) await removeOne();
    else if (choice < 0.95) await renderOne();
    else await withholdOne();
  }
}

async function upload(): Promise<void> {
  // Few enough texts that some are uploaded twice.
  const bytes = `bytes ${Math.floor(random() * 400)} `.repeat(1 + Math.floor(random() * 40));
  const expires = random() < 0.2;
  try {
    const given = { public: random() < 0.3, expiresAt: expires ? clock.now() + 1 : null };
    // As uploads do: no place is used twice, for what was there before may still be removed.
    const media = await stores.put(bytes, { ...given, thumbs: { kind: 'queue' } }, newPlace());
    const { id, sha256, expiresAt } = media.record;
    note({ did: 'upload', id, sha256, sizeBytes: Buffer.byteLength(bytes), mortal: expiresAt !== null });
    alive.push(id);
  } catch (thrown) {
    if (!String(thrown).includes('quarantined')) throw thrown;
  }
}

async function removeOne(): Promise<void> {
  const id = take();
  note({ will: 'remove', id });
  const outcome = await stores.meta.remove(id, 'eve', clock.now());
  if (outcome.kind === 'removed') note({ did: 'remove', id, seq: outcome.seq });
}

async function renderOne(): Promise<void> {
  const [job] = await stores.meta.jobs.claim('writer', 1, clock.now(), 1e12);
  if (job === undefined) return;
  await stores.thumb(job.sha256, `thumb of ${job.sha256} ${random()}`, newPlace());
}

async function withholdOne(): Promise<void> {
  const sha256 = sha256Of(`bytes ${Math.floor(random() * 400)} `);
  await stores.meta.quarantine(sha256, { at: clock.now(), by: 'eve', reason: null, cause: 'admin' });
  await stores.meta.restore(sha256, clock.now());
}

async function sweep(): Promise<void> {
  for (;;) {
    clock.advance(600_000);
    await sweeper.sweep(never);
  }
}

function take(): MediaId {
  const [id] = alive.splice(Math.floor(random() * alive.length), 1);
  if (id === undefined) throw new Error('nothing is alive');
  return id;
}

function note(line: CrashLine): void {
  writeSync(record, `${JSON.stringify(line)}\n`);
}
