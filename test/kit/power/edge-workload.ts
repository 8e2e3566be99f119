/**
 * The cache of an edge that follows a journal, used in every way that changes its disk: first start, fills of several
 * sizes, equal contents, replaced ones, takedowns, a purge of everything, a second start. It notes what it stores, what
 * was taken down, and what it confirms.
 *
 * node edge-workload.js FOLDER NOTES-FILE
 */
import { mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { EdgeCache } from '../../../edge/cache/cache.js';
import { createAppliedJournal } from '../../../edge/journal/applied-journal.js';
import { journalSection, type OpenOrigin } from '../../../edge/journal/config.js';
import { type Follower, followJournal } from '../../../edge/journal/follow.js';
import { keepAlive } from '../../../src/clock.js';
import { NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import { CONFIRM_PATH } from '../../../src/journal/entry.js';
import { ManualClock } from '../clock.js';
import { configured, testDeps } from '../deps.js';
import { cacheConfig, mediaIdOf, openTestCache, put } from '../edge/cache.js';
import { JournalOrigin, openHttp, PROOF } from '../origin/journal-origin.js';
import { until } from '../until.js';
import { cacheEntryOf, contentOf, type EdgeNote, type StoredMedia } from './edge-note.js';

const [folder = '', notesPath = ''] = process.argv.slice(2);
const ON_DISK = { memory: false, disk: true };
const SMALL_BYTES = 900;
const MIDDLE_BYTES = 50_000;
/** So large that it arrives in a file. */
const LARGE_BYTES = 2_300_000;

const alive = keepAlive();
const notes = openSync(notesPath, 'a');
mkdirSync(folder);
const clock = new ManualClock();
const origin = new JournalOrigin(clock);
await origin.start();
const confirming = openHttp(() => origin.port);
let edge = await start();

await store({ media: 1, seed: 1, sizeBytes: SMALL_BYTES });
await store({ media: 2, seed: 2, sizeBytes: MIDDLE_BYTES });
await store({ media: 3, seed: 3, sizeBytes: LARGE_BYTES });
await store({ media: 4, seed: 2, sizeBytes: MIDDLE_BYTES });
await takeDown(1);
await takeDown(2);
await store({ media: 4, seed: 5, sizeBytes: MIDDLE_BYTES });
await Promise.all([6, 7, 8].map((media) => store({ media, seed: media, sizeBytes: SMALL_BYTES })));
await takeDown(6, 7);
await edge.close();

edge = await start();
await store({ media: 9, seed: 9, sizeBytes: SMALL_BYTES });
await takeDown(3);
await edge.cache.purge({ all: true });
await store({ media: 10, seed: 10, sizeBytes: MIDDLE_BYTES });
await takeDown(10);
await edge.close();
await origin.stop();
alive.release();

async function start(): Promise<{ cache: EdgeCache; follower: Follower; close(): Promise<void> }> {
  const { cache } = await openTestCache(cacheConfig(join(folder, 'cache')), undefined, clock);
  const { log, metrics } = testDeps();
  const open: OpenOrigin = (request, signal) => {
    if (request.target === CONFIRM_PATH) {
      note({ will: 'confirm', seq: (JSON.parse(String(request.body)) as { readonly seq: number }).seq });
    }
    return confirming(request, signal);
  };
  const follower = await followJournal({
    config: configured(journalSection),
    edgeName: 'edge',
    instance: `run at ${performance.now()}`,
    open,
    proof: () => PROOF,
    cache,
    onTakedown: () => undefined,
    onPurgeAll: () => undefined,
    onUseReportsWanted: () => undefined,
    behind: () => NOBODY_BEHIND,
    applied: createAppliedJournal(100, () => undefined),
    folder: join(folder, 'cache-journal'),
    clock,
    random: () => 1,
    log,
    metrics,
  });
  await until('everything missed is applied', () => follower.lease.state().kind !== 'new');
  return {
    cache,
    follower,
    async close() {
      await follower.close();
      await cache.close();
    },
  };
}

async function store(stored: StoredMedia): Promise<void> {
  note({ will: 'store', stored });
  const outcome = await put(edge.cache, cacheEntryOf(stored), contentOf(stored), ON_DISK);
  if (outcome.kind !== 'stored') throw new Error(`media ${stored.media} are ${outcome.kind}`);
}

async function takeDown(...media: readonly number[]): Promise<void> {
  const ids = media.map(mediaIdOf);
  note({ did: 'entry', seq: origin.journal.newest() + 1, ids });
  const { seq } = origin.journal.add('delete', ids);
  await until('the takedown', () => edge.follower.state().applied === seq);
}

function note(line: EdgeNote): void {
  writeSync(notes, `${JSON.stringify(line)}\n`);
}
