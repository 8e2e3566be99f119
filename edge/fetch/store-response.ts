/**
 * A response on its way from the origin into the cache, read by all who wait
 * for it. A body whose length or hash is wrong is complete for nobody; what has
 * arrived of a transfer that broke off may be kept as an incomplete response.
 */
import { governingDirectives } from '../../src/http/cache-control.js';
import type { HeaderList } from '../../src/http/reply.js';
import { errorFields } from '../../src/log.js';
import type { Fill, FillOutcome } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import { keyOf } from '../key.js';
import type { Answered } from '../upstream/request.js';
import { keepBeginning, Mismatch } from './complete.js';
import type { FillConfig } from './config.js';
import type { Engine } from './engine.js';
import type { Flight } from './flight.js';
import type { FetchResult } from './result.js';
import type { RuleResult } from './rules.js';

/** A body that arrives, or one that has arrived. */
type Bytes = AsyncIterable<Buffer> | Buffer;

/**
 * Starts to store a response. Returns while its body arrives. One that has arrived, and is stored in memory, can be found
 * there at the return.
 */
export function storeResponse(
  engine: Engine,
  entry: Entry,
  { tiers }: RuleResult,
  { status, headers, bytes }: Pick<Answered, 'status' | 'headers'> & { readonly bytes: Bytes },
  flight: Flight<FetchResult>,
): FetchResult {
  engine.uncacheable.forget(entry.primaryKey);
  const fill = engine.cache.fill(entry, tiers);
  // The response without Vary would be found before this variant.
  if (Object.keys(entry.selectedBy).length > 0) engine.cache.drop(keyOf(entry.primaryKey, {}), 'replaced');
  flight.fill = fill;
  const marked = engine.warmMarks.takeMark(entry.key);
  flight.keepsGoing = () => flight.spec.background || marked || isNearlyComplete(fill, engine.policy().fill);
  void pump(engine, bytes, fill, flight);
  const unstoredFields = unstoredFieldsOf(engine, entry, headers);
  return { kind: 'arriving', fill, status, unstoredFields, isFinished: () => flight.isFinished };
}

const NONE: HeaderList = [];

/** RFC 9111 5.2.2.4, 5.2.2.7: the fields of a response that its entry was stored without. */
function unstoredFieldsOf({ storing }: Engine, entry: Entry, headers: HeaderList): HeaderList {
  const { directives } = governingDirectives(headers, storing.freshness.targetedFields);
  const scopes = [directives.noCache, directives.private];
  const named = new Set(scopes.flatMap((scope) => (typeof scope === 'string' ? [] : scope)));
  if (named.size === 0) return NONE;
  const stored = new Set(entry.headers.map(([name]) => name));
  return headers.filter(([name]) => named.has(name) && !stored.has(name));
}

function isNearlyComplete({ sizeBytes, receivedBytes, passing }: Fill, config: FillConfig): boolean {
  if (sizeBytes === null || passing) return false;
  return receivedBytes >= sizeBytes * config.finishShare || sizeBytes - receivedBytes <= config.finishBytes;
}

/** Writes the body to its end. Readers follow at their own pace. */
async function pump(engine: Engine, bytes: Bytes, fill: Fill, flight: Flight<FetchResult>): Promise<void> {
  let outcome: FillOutcome;
  try {
    if (!Buffer.isBuffer(bytes) || !fill.takeWhole(bytes)) {
      for await (const chunk of Buffer.isBuffer(bytes) ? inNextTurn(bytes) : bytes) {
        await fill.write(chunk);
        if (fill.failed) break;
      }
    }
    const ending = fill.end();
    flight.arrived();
    // It is found in memory now, while the disk is still being written: nobody needs to join the flight.
    if (isStored(engine, fill.entry)) flight.finish();
    outcome = await ending;
  } catch (thrown) {
    outcome = await breakOff(engine, fill, flight, thrown);
  }
  flight.finish();
  account(engine, fill.entry, outcome);
}

/** A body that nobody keeps ends with its last reader: those who asked for it open it before the next turn of the event loop. */
async function* inNextTurn(bytes: Buffer): AsyncIterable<Buffer> {
  await new Promise(setImmediate);
  yield bytes;
}

function isStored({ cache }: Engine, entry: Entry): boolean {
  return cache.peek(entry.key)?.entry.receivedAt === entry.receivedAt;
}

async function breakOff(
  engine: Engine,
  fill: Fill,
  flight: Flight<FetchResult>,
  thrown: unknown,
): Promise<FillOutcome> {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const reason = flight.ended ?? 'origin';
  // New callers start anew, with the bytes that are stored here.
  flight.close();
  if (error instanceof Mismatch) engine.cache.incomplete.drop(fill.entry.key, 'corrupt');
  else if (reason === 'origin' || reason === 'unwanted') await keepBeginning(engine, fill);
  fill.abort(error);
  if (reason === 'origin') engine.log.debug(errorFields(error), 'the origin broke off a body');
  return { kind: 'aborted', reason };
}

function account({ cache, counters, log }: Engine, entry: Entry, outcome: FillOutcome): void {
  counters.fills.add(1, { outcome: outcome.kind });
  if (outcome.kind === 'stored') for (const tier of outcome.tiers) counters.stored.add(1, { tier });
  if (outcome.kind === 'not_kept') counters.notStored.add(1, { reason: outcome.reason });
  if (outcome.kind !== 'corrupt') return;
  cache.incomplete.drop(entry.key, 'corrupt');
  log.warn({ key: entry.primaryKey, what: outcome.what }, 'the origin sent a body that is not what it said');
}
