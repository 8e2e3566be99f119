/** Sees to the body behind a HEAD that missed, as warm-marks.ts decides. Never waited for. */
import { headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import { keyOf, thumbTarget } from '../key.js';
import type { Engine } from './engine.js';
import type { FlightSpec } from './flight.js';
import type { CacheRequest } from './origin-request.js';
import type { FetchResult } from './result.js';
import type { RuleResult } from './rules.js';

/** `orderFor` makes the flight that brings an errand's body. */
export function warm(
  engine: Engine,
  wanted: CacheRequest,
  entry: Entry,
  ruleResult: RuleResult,
  specFor: (wanted: CacheRequest) => FlightSpec<FetchResult>,
): void {
  const { warmMarks: warming } = engine;
  switch (warming.decide(entry, ruleResult)) {
    case 'off':
      break;
    case 'mark':
      warming.mark(entry.key);
      break;
    case 'now':
      fetchBody(engine, specFor(wanted));
  }
  if (warming.modeOf(ruleResult) !== 'now' || !warming.hasRoom()) return;
  // Small whatever the image is: also where that is too large to be fetched itself.
  const thumb = thumbOf(engine, wanted, entry);
  if (thumb !== undefined) fetchBody(engine, specFor(thumb));
}

/** The default thumbnail of an image, in the format that this client takes; undefined where none is wanted or held already. */
function thumbOf(engine: Engine, wanted: CacheRequest, entry: Entry): CacheRequest | undefined {
  const options = engine.thumbOptions();
  const { mediaId, pathKind } = wanted.target;
  if (!engine.policy().warm.thumbnail || options === undefined || mediaId === null || pathKind !== 'original') {
    return undefined;
  }
  if (headerOf(entry.headers, 'content-type')?.startsWith('image/') !== true) return undefined;
  const target = thumbTarget(mediaId, '', wanted.request.header('accept'), options);
  const held = engine.cache.peek(keyOf(target.primaryKey, {}));
  return held === undefined ? { ...wanted, target } : undefined;
}

function fetchBody(engine: Engine, spec: FlightSpec<FetchResult>): void {
  const { warmMarks: warming, cache } = engine;
  const joining = engine.flights.joinOrStart(spec, undefined);
  if (joining.kind !== 'started') return;
  const { flight } = joining;
  const key = keyOf(spec.primaryKey, {});
  warming.started(key);
  void flight.result.then((result) => {
    if (result.kind === 'lone') result.take()?.body.destroy();
  });
  void flight.finished.then(() => warming.ended(key, cache.peek(key) !== undefined));
}
