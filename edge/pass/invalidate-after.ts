/**
 * Invalidates stored responses after a change that passed through this edge
 * (RFC 9111 4.4), and ends the fetches that could bring the old state back.
 */
import { type MediaId, parseMediaId } from '../../src/ids.js';
import { errorFields } from '../../src/log.js';
import type { Engine } from '../fetch/engine.js';
import { keysUnder } from '../fetch/lookup.js';
import { invalidatedBy } from '../rfc9111/invalidate.js';
import type { UnsafeAnswer } from './config.js';

/** Resolves when no stored response shows the state before the change. Never rejects. */
export async function invalidate(engine: Engine, answer: UnsafeAnswer): Promise<void> {
  const { cache, flights, absences, uncacheable, log } = engine;
  try {
    const id = engine.mode === 'media' ? removedMedia(answer) : undefined;
    if (id !== undefined) {
      absences.forget(id);
      flights.breakOff(id);
      await cache.takeDown(id);
      return;
    }
    for (const primaryKey of targetsOf(answer)) {
      flights.breakOffWhere((key) => key === primaryKey);
      for (const key of keysUnder(cache, primaryKey)) cache.drop(key, 'invalidated');
      uncacheable.forget(primaryKey);
    }
  } catch (thrown) {
    log.error(errorFields(thrown), 'stored responses could not be invalidated after a change');
  }
}

/** The media of a DELETE, a quarantine or its end. The journal reports them too, but later. */
function removedMedia({ method, target, status }: UnsafeAnswer): MediaId | undefined {
  const match = /^\/v1\/media\/([^/?]+)(\/quarantine)?(?:\?|$)/.exec(target);
  const removes = method === 'DELETE' || (method === 'POST' && match?.[2] !== undefined);
  return removes && status < 300 ? parseMediaId(match?.[1] ?? '') : undefined;
}

/** Makes URIs of targets. An edge has one origin, so any base does. */
export const BASE = 'http://origin.invalid';

function targetsOf({ method, target, status, location, contentLocation }: UnsafeAnswer): readonly string[] {
  const uris = invalidatedBy({ method, uri: BASE + target, status, location, contentLocation });
  return uris.map((uri) => uri.slice(BASE.length));
}
