/**
 * Incomplete responses (RFC 9111 3.3, 3.4): stores the bytes of a range and of a
 * transfer that broke off, and fetches the missing ranges under If-Range, so that
 * bytes of two representations are never joined. A response that has become
 * complete is verified and stored like any other.
 *
 * Leaves to others: where the bytes are stored, and how many (cache/incomplete.ts),
 * and the answer to the caller (answers.ts).
 */
import { pipeline, type Readable, Transform } from 'node:stream';
import { isStrongEtag } from '../../src/http/etag.js';
import { type ByteSpan, parseContentRange, spanLength } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import type { Fill, IncompleteResponse, Tiers } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import { combinable, missingOf, rangeField } from '../rfc9111/spans.js';
import type { Answered, UpstreamRequest } from '../upstream/request.js';
import type { CacheRequest } from './cache-request.js';
import type { Engine } from './engine.js';
import { entryOf } from './entry-of.js';
import type { Flight } from './flight.js';
import { fits } from './lookup.js';
import { type Identity, rangeRequest } from './origin-request.js';
import type { FetchResult } from './result.js';
import { freshenEntry } from './revalidate.js';
import type { RuleResult } from './rules.js';

/** The incomplete response that a request selects. */
export function findIncomplete({ cache }: Engine, wanted: CacheRequest): IncompleteResponse | undefined {
  return cache.incomplete.find(wanted.target.primaryKey, (entry) => fits(entry, wanted));
}

/** An incomplete response that can be completed, and the ranges that it lacks. */
export interface Completable {
  readonly incomplete: IncompleteResponse;
  readonly etag: string;
  readonly gaps: readonly [ByteSpan, ...ByteSpan[]];
}

export function completable(engine: Engine, wanted: CacheRequest): Completable | undefined {
  const incomplete = findIncomplete(engine, wanted);
  if (incomplete === undefined || incomplete.entry.sizeBytes > engine.policy().fill.objectMaxBytes) return undefined;
  const etag = headerOf(incomplete.entry.headers, 'etag');
  const [first, ...others] = missingOf(incomplete.spans, wholeOf(incomplete.entry));
  return etag === undefined || first === undefined ? undefined : { incomplete, etag, gaps: [first, ...others] };
}

export function gapRequest(
  wanted: CacheRequest,
  { incomplete, etag }: Completable,
  gap: ByteSpan,
  identity: Identity,
): UpstreamRequest {
  const toTheEnd = gap.last === incomplete.entry.sizeBytes - 1;
  return rangeRequest(wanted, toTheEnd ? `bytes=${gap.first}-` : rangeField(gap), etag, identity);
}

/** Whether a response is exactly the missing range. */
export function isGap(answered: Answered, { incomplete }: Completable, gap: ByteSpan): boolean {
  if (answered.status !== 206) return false;
  const { headers } = answered;
  const range = parseContentRange(headerOf(headers, 'content-range'));
  if (range === undefined || range.span.first !== gap.first || range.span.last !== gap.last) return false;
  if (answered.sizeBytes !== null && answered.sizeBytes !== spanLength(gap)) return false;
  return combinable(incomplete.entry, { headers, sizeBytes: range.sizeBytes });
}

/** RFC 9111 3.4: the entry of the whole, with the fields of the newer response. Undefined if these forbid storing. */
export function combinedEntry(
  engine: Engine,
  wanted: CacheRequest,
  { entry }: IncompleteResponse,
  answered: Answered,
): { readonly entry: Entry; readonly ruleResult: RuleResult } | undefined {
  const headers = answered.headers.filter(([name]) => !OF_ONE_RANGE.has(name));
  return freshenEntry(engine, wanted, entry, { ...answered, headers });
}

/** Fields that describe the range in the message, not the whole. */
const OF_ONE_RANGE: ReadonlySet<string> = new Set(['content-digest', 'content-length', 'content-md5', 'content-range']);

/** The origin's responses do not fit together. */
export class Mismatch extends Error {
  override readonly name = 'Mismatch';
}

/** The bytes of the whole in order, stored and fetched ones. `first` is the body of the first missing range. */
export async function* assembled(
  engine: Engine,
  wanted: CacheRequest,
  completing: Completable,
  first: Readable,
  flight: Flight<FetchResult>,
): AsyncGenerator<Buffer> {
  const { incomplete, gaps } = completing;
  const writer = engine.cache.incomplete.open(incomplete.entry);
  let at = 0;
  for (const [index, gap] of gaps.entries()) {
    if (at < gap.first) yield* incomplete.read({ first: at, last: gap.first - 1 });
    at = gap.first;
    const body = index === 0 ? first : await fetchGap(engine, wanted, completing, gap, flight);
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (at + chunk.length > gap.last + 1) throw new Mismatch('the origin sent more than it was asked for');
      writer?.write(at, chunk);
      at += chunk.length;
      yield chunk;
    }
    if (at <= gap.last) throw new Mismatch('the origin sent less than it announced');
  }
  if (at < incomplete.entry.sizeBytes) yield* incomplete.read({ first: at, last: incomplete.entry.sizeBytes - 1 });
}

async function fetchGap(
  engine: Engine,
  wanted: CacheRequest,
  completing: Completable,
  gap: ByteSpan,
  flight: Flight<FetchResult>,
): Promise<Readable> {
  const outcome = await engine.upstream.fetch(gapRequest(wanted, completing, gap, engine.identity), flight.signal);
  if (outcome.kind === 'failed') throw new Error(`the origin gave no answer: ${outcome.failure}`);
  if (isGap(outcome, completing, gap)) return outcome.body;
  outcome.body.destroy();
  throw new Mismatch('the origin has another representation by now');
}

/** Stores what arrived of a body whose transfer broke off. The fill fails after this, so that its readers find these bytes. */
export async function keepBeginning({ cache }: Pick<Engine, 'cache'>, fill: Fill): Promise<void> {
  const { entry, receivedBytes } = fill;
  const { sizeBytes } = entry;
  const etag = headerOf(entry.headers, 'etag');
  if (entry.status !== 200 || sizeBytes === null || etag === undefined || !isStrongEtag(etag)) return;
  const keptBytes = Math.min(receivedBytes, sizeBytes - 1);
  const mayBeStored = !fill.failed && !fill.invalidated && !fill.passing;
  if (keptBytes <= 0 || !mayBeStored || cache.peek(entry.key) !== undefined) return;
  const writer = cache.incomplete.open(entry);
  if (writer === undefined) return;
  let at = 0;
  try {
    const beginning = fill.open({ first: 0, last: keptBytes - 1 }, new AbortController().signal);
    for await (const chunk of beginning as AsyncIterable<Buffer>) {
      if (!writer.write(at, chunk)) break;
      at += chunk.length;
    }
  } catch {
    // Taken down or lost meanwhile: the bytes stored so far are right, or were dropped too.
  }
}

/** Stores the bytes of a range while they go to the caller, if that is allowed. */
export function keepingRange(engine: Engine, wanted: CacheRequest, answered: Answered): Answered {
  if (answered.status !== 206) return answered;
  const decision = entryOf(engine, wanted, 'GET', answered);
  if (decision.kind !== 'store_range' || engine.cache.peek(decision.entry.key) !== undefined) return answered;
  const { entry, ruleResult, span } = decision;
  const { tiers } = ruleResult;
  if (!tiers.memory && !tiers.disk) return answered;
  const writer = engine.cache.incomplete.open(entry);
  if (writer === undefined) return answered;
  let at = span.first;
  const tap = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      // With another length than announced, the offsets are wrong too.
      if (at + chunk.length > span.last + 1) engine.cache.incomplete.drop(entry.key, 'corrupt');
      else writer.write(at, chunk);
      at += chunk.length;
      done(null, chunk);
    },
    flush(done) {
      if (at <= span.last) engine.cache.incomplete.drop(entry.key, 'corrupt');
      else void promote(engine, wanted, entry, tiers);
      done();
    },
  });
  // The reader of the tap receives its errors; this listener is for a tap that nobody reads.
  pipeline(answered.body, tap, () => undefined).on('error', () => undefined);
  return { ...answered, body: tap };
}

/** Moves an incomplete response that has become complete to the tiers, unless another one has taken its place. */
async function promote(engine: Engine, wanted: CacheRequest, { key }: Entry, tiers: Tiers): Promise<void> {
  const { cache } = engine;
  const { primaryKey } = wanted.target;
  const find = (): IncompleteResponse | undefined => cache.incomplete.find(primaryKey, (entry) => entry.key === key);
  const found = find();
  if (found === undefined || missingOf(found.spans, wholeOf(found.entry)).length > 0) return;
  if (found.entry.sizeBytes > engine.policy().fill.objectMaxBytes) return;
  const fill = cache.fill(found.entry, tiers);
  for (const bytes of found.read(wholeOf(found.entry))) await fill.write(bytes);
  if (find() !== found) {
    fill.abort(new Mismatch('another response has taken its place'));
    return;
  }
  const outcome = await fill.end();
  engine.counters.fills.add(1, { outcome: outcome.kind });
  if (outcome.kind === 'corrupt') {
    engine.log.warn({ key: primaryKey, what: outcome.what }, 'ranges joined to another whole than was announced');
    cache.incomplete.drop(key, 'corrupt');
  }
}

function wholeOf({ sizeBytes }: IncompleteResponse['entry']): ByteSpan {
  return { first: 0, last: sizeBytes - 1 };
}
