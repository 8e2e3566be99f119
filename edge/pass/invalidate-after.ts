/**
 * What must be forgotten, and what may not become known any more: copies that
 * are held, bodies on their way in, and answers on their way out.
 */
import { type MediaId, parseMediaId } from '../../src/ids.js';
import { errorFields } from '../../src/log.js';
import type { Engine } from '../fetch/engine.js';
import { keysUnder } from '../fetch/lookup.js';
import { invalidatedBy } from '../rfc9111/invalidate.js';
import type { UnsafeAnswer } from './config.js';

/**
 * A change that went through this edge is not waited for: what it touches is
 * forgotten before the client hears of it (RFC 9111 4.4). Never throws.
 */
export async function invalidate(engine: Engine, answer: UnsafeAnswer): Promise<void> {
  const { flights, log } = engine;
  const { cache, uncacheable } = engine;
  try {
    const id = engine.mode === 'media' ? removedMedia(answer) : undefined;
    if (id !== undefined) {
      flights.breakOff(id);
      await cache.takeDown(id);
      return;
    }
    for (const primaryKey of targetsOf(answer)) {
      flights.breakOffWhere((held) => held === primaryKey);
      for (const key of keysUnder(cache, primaryKey)) cache.drop(key, 'invalidated');
      uncacheable.forget(primaryKey);
    }
  } catch (thrown) {
    log.error(errorFields(thrown), 'what a change made worthless could not be dropped');
  }
}

/** DELETE of media, quarantine and its end: the journal will say so too, but not sooner. */
function removedMedia({ method, target, status }: UnsafeAnswer): MediaId | undefined {
  const match = /^\/v1\/media\/([^/?]+)(\/quarantine)?(?:\?|$)/.exec(target);
  const removes = method === 'DELETE' || (method === 'POST' && match?.[2] !== undefined);
  return removes && status < 300 ? parseMediaId(match?.[1] ?? '') : undefined;
}

/** Nothing leaves the one origin that is behind an edge, so any base will do. */
export const BASE = 'http://origin.invalid';

function targetsOf({ method, target, status, location, contentLocation }: UnsafeAnswer): readonly string[] {
  const uris = invalidatedBy({ method, uri: BASE + target, status, location, contentLocation });
  return uris.map((uri) => uri.slice(BASE.length));
}
