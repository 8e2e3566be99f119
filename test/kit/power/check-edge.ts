/**
 * What must hold of the folders of an edge after any power cut: it starts, serves no wrong byte, and shows nothing that
 * was taken down before the journal entry from which it goes on. Throws at the first thing that does not hold.
 */
import { join } from 'node:path';
import type { EdgeCache } from '../../../edge/cache/cache.js';
import { openPositionFile } from '../../../edge/journal/position.js';
import { whereToStart } from '../../../edge/journal/start.js';
import { openAuthService } from '../auth-service.js';
import { ManualClock } from '../clock.js';
import { cacheConfig, keyOf, mediaIdOf, NEVER, openTestCache, put, readAll } from '../edge/cache.js';
import { startEdge } from '../edge/media-edge.js';
import { sendRequest } from '../http/request.js';
import { until } from '../until.js';
import { cacheEntryOf, contentOf, type EdgeNote, type StoredMedia } from './edge-note.js';

/** It is stored after the cut. */
const NEXT: StoredMedia = { media: 99, seed: 99, sizeBytes: 10_000 };

export async function checkEdge(folder: string, notes: readonly EdgeNote[]): Promise<void> {
  const { cache } = await openTestCache(cacheConfig(join(folder, 'cache')));
  try {
    await checkJournal(cache, folder, notes);
    await checkBodies(cache, notes);
    await until('recovery', () => cache.recovered);
    const outcome = await put(cache, cacheEntryOf(NEXT), contentOf(NEXT), { memory: false, disk: true });
    if (outcome.kind !== 'stored') throw new Error(`a fill after the cut is ${outcome.kind}`);
    await checkBodies(cache, [...notes, { will: 'store', stored: NEXT }]);
    if (cache.peek(keyOf(`/${NEXT.media}`)) === undefined) throw new Error('a fill after the cut is lost');
  } finally {
    await cache.close();
  }
}

/** A whole edge starts on the folder, without its origin. */
export async function checkWholeEdge(folder: string): Promise<void> {
  const auth = await openAuthService(new ManualClock());
  const edge = await startEdge(folder, { url: 'http://127.0.0.1:9', auth });
  try {
    const { status } = await sendRequest(`${edge.url}/healthz`);
    if (status !== 200) throw new Error(`the edge is ${status}`);
  } finally {
    await edge.close();
    await auth.close();
  }
}

/** The next session applies every entry behind its start, or empties the cache. What came before must be applied. */
async function checkJournal(cache: EdgeCache, folder: string, notes: readonly EdgeNote[]): Promise<void> {
  const file = await openPositionFile(join(folder, 'cache-journal'), () => undefined);
  const start = whereToStart(await file.read(), cache.appliedBefore);
  if (start.kind === 'empty_cache') return;
  const { seq } = start.position;
  const entries = notes.filter((note) => 'did' in note);
  if (seq > entries.length) throw new Error(`it starts at entry ${seq} of ${entries.length}`);
  for (const { seq: taken, ids } of entries) {
    for (const { media } of storesIn(notes)) {
      if (taken <= seq && ids.includes(mediaIdOf(media)) && cache.peek(keyOf(`/${media}`)) !== undefined) {
        throw new Error(
          `media ${media} were taken down with entry ${taken}, and the edge starts at ${seq} and has them`,
        );
      }
    }
  }
}

/** A body is one that was stored under its key, or is noticed to be lost. */
async function checkBodies(cache: EdgeCache, notes: readonly EdgeNote[]): Promise<void> {
  const stores = storesIn(notes);
  for (const media of new Set(stores.map((each) => each.media))) {
    const found = cache.peek(keyOf(`/${media}`));
    if (found === undefined || (await found.body.ensure(NEVER)) === 'lost') continue;
    const bytes = await readAll(found.body.open(undefined, NEVER));
    if (!stores.some((each) => each.media === media && contentOf(each).equals(bytes))) {
      throw new Error(`media ${media} are served with bytes that nobody stored`);
    }
  }
}

function storesIn(notes: readonly EdgeNote[]): readonly StoredMedia[] {
  return notes.flatMap((note) => ('stored' in note ? [note.stored] : []));
}
