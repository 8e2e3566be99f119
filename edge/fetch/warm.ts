/** Fetches the body behind a HEAD that missed, as warm-marks.ts decides. The answer to the HEAD does not wait for it. */
import { headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import { keyOf, thumbTarget } from '../key.js';
import type { CacheRequest } from './cache-request.js';
import type { Engine } from './engine.js';
import { fetchInBackground } from './join.js';
import type { RuleResult } from './rules.js';

export function warm(engine: Engine, wanted: CacheRequest, entry: Entry, ruleResult: RuleResult): void {
  const { warmMarks } = engine;
  switch (warmMarks.decide(entry, ruleResult)) {
    case 'off':
      break;
    case 'mark':
      warmMarks.mark(entry.key);
      break;
    case 'now':
      fetchBody(engine, wanted);
  }
  if (warmMarks.modeOf(ruleResult) !== 'now' || !warmMarks.hasRoom()) return;
  // A thumbnail is small even if its image is too large to be fetched.
  const thumb = thumbOf(engine, wanted, entry);
  if (thumb !== undefined) fetchBody(engine, thumb);
}

/** The default thumbnail of an image, in the format that this client takes; undefined if it is not wanted or is stored already. */
function thumbOf(engine: Engine, wanted: CacheRequest, entry: Entry): CacheRequest | undefined {
  const options = engine.thumbOptions();
  const { mediaId, pathKind } = wanted.target;
  if (!engine.policy().warm.thumbnail || options === undefined || mediaId === null || pathKind !== 'original') {
    return undefined;
  }
  if (headerOf(entry.headers, 'content-type')?.startsWith('image/') !== true) return undefined;
  const target = thumbTarget(mediaId, '', { accept: wanted.request.header('accept'), destination: 'image' }, options);
  return engine.cache.peek(keyOf(target.primaryKey, {})) === undefined ? { ...wanted, target } : undefined;
}

function fetchBody(engine: Engine, wanted: CacheRequest): void {
  const flight = fetchInBackground(engine, wanted);
  if (flight === undefined) return;
  const key = keyOf(wanted.target.primaryKey, {});
  engine.warmMarks.started(key);
  void flight.finished.then(() => {
    const stored = engine.cache.peek(key);
    engine.warmMarks.ended(key, stored !== undefined);
    if (stored !== undefined) engine.onWarmed?.(stored.entry);
  });
}
