/**
 * Responses of which only a part is here (RFC 9111 3.3, 3.4): keeps what came of
 * an answer to a range and of a transfer that broke off, and fetches what is
 * missing under If-Range, so that bytes of two representations never meet.
 * What is whole then is checked and moves to the tiers like any other.
 *
 * Leaves to others: where parts lie and how many (cache/parts.ts), and what a
 * caller is told (serve-incomplete.ts, fetch.ts).
 */
import { pipeline, type Readable, Transform } from 'node:stream';
import { isStrongEtag } from '../../src/http/etag.js';
import { type ByteSpan, parseContentRange, spanLength } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import type { Fill, IncompleteResponse, Tiers } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import { combinable, missingOf, rangeField } from '../rfc9111/spans.js';
import { freshen } from '../rfc9111/validate.js';
import type { Answered, UpstreamRequest } from '../upstream/request.js';
import type { Engine } from './engine.js';
import { entryOf } from './entry-of.js';
import type { Flight } from './flight.js';
import { fits } from './lookup.js';
import { type CacheRequest, partFields, selecting } from './origin-request.js';
import type { FetchResult } from './result.js';
import { applyRules, type RuleResult } from './rules.js';

/** What is held of the response that an errand is about. */
export function findPart({ cache }: Pick<Engine, 'cache'>, wanted: CacheRequest): IncompleteResponse | undefined {
  return cache.incomplete.find(wanted.target.primaryKey, (entry) => fits(entry, wanted));
}

/** A part that can be made whole: what is missing of it, at least one span. */
export interface Completable {
  readonly part: IncompleteResponse;
  readonly etag: string;
  readonly gaps: readonly [ByteSpan, ...ByteSpan[]];
}

export function completable(engine: Engine, wanted: CacheRequest): Completable | undefined {
  const part = findPart(engine, wanted);
  const etag = part === undefined ? undefined : headerOf(part.entry.headers, 'etag');
  if (part === undefined || etag === undefined || part.entry.sizeBytes > engine.policy().fill.objectMaxBytes) {
    return undefined;
  }
  const [first, ...others] = missingOf(part.spans, wholeOf(part.entry));
  return first === undefined ? undefined : { part, etag, gaps: [first, ...others] };
}

export function gapRequest(
  wanted: CacheRequest,
  { part, etag }: Completable,
  gap: ByteSpan,
  { identity }: Pick<Engine, 'identity'>,
): UpstreamRequest {
  const toTheEnd = gap.last === part.entry.sizeBytes - 1;
  const range = toTheEnd ? `bytes=${gap.first}-` : rangeField(gap);
  return { method: 'GET', target: wanted.target.originTarget, headers: partFields(wanted, range, etag, identity) };
}

/** Whether an answer is the very span that was missing. */
export function isGap(answered: Answered, { part }: Completable, gap: ByteSpan): boolean {
  if (answered.status !== 206) return false;
  const { headers } = answered;
  const range = parseContentRange(headerOf(headers, 'content-range'));
  if (range === undefined || range.span.first !== gap.first || range.span.last !== gap.last) return false;
  if (answered.sizeBytes !== null && answered.sizeBytes !== spanLength(gap)) return false;
  return combinable(part.entry, { headers, sizeBytes: range.sizeBytes });
}

/**
 * 3.4: the head of the whole, with the fields of the newer answer in the place
 * of those that were stored. Undefined where that forbids to keep it.
 */
export function combinedHead(
  engine: Engine,
  wanted: CacheRequest,
  { entry }: IncompleteResponse,
  answered: Answered,
): { readonly entry: Entry; readonly ruleResult: RuleResult } | undefined {
  const ruleResult = applyRules(engine.policy().rules, {
    pathKind: wanted.target.pathKind,
    contentType: headerOf(entry.headers, 'content-type'),
    sizeBytes: entry.sizeBytes,
  });
  const headers = answered.headers.filter(([name]) => !OF_ONE_PART.has(name));
  const verdict = freshen({
    entry,
    received: { ...answered, headers },
    request: { method: 'GET', header: selecting(wanted).header },
    now: engine.clock.now(),
    rules: engine.storing,
    override: ruleResult,
  });
  if (verdict.kind !== 'store') return undefined;
  const { key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 } = entry;
  return { entry: { ...verdict.head, key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 }, ruleResult };
}

const OF_ONE_PART: ReadonlySet<string> = new Set(['content-digest', 'content-length', 'content-md5', 'content-range']);

/** What an assembly fails with where the origin's answers do not fit together. */
export class Mismatch extends Error {
  override readonly name = 'Mismatch';
}

/** The bytes of the whole in order: what is held, and between it what is fetched, `first` being the first of that. */
export async function* assembled(
  engine: Engine,
  wanted: CacheRequest,
  whole: Completable,
  first: Readable,
  flight: Flight<FetchResult>,
): AsyncGenerator<Buffer> {
  const { part, gaps } = whole;
  const writer = engine.cache.incomplete.open(part.entry);
  let at = 0;
  for (const [index, gap] of gaps.entries()) {
    if (at < gap.first) yield* part.read({ first: at, last: gap.first - 1 });
    at = gap.first;
    const body = index === 0 ? first : await fetchGap(engine, wanted, whole, gap, flight);
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (at + chunk.length > gap.last + 1) throw new Mismatch('the origin sent more than it was asked for');
      writer?.write(at, chunk);
      at += chunk.length;
      yield chunk;
    }
    if (at <= gap.last) throw new Mismatch('the origin sent less than it said');
  }
  if (at < part.entry.sizeBytes) yield* part.read({ first: at, last: part.entry.sizeBytes - 1 });
}

async function fetchGap(
  engine: Engine,
  wanted: CacheRequest,
  whole: Completable,
  gap: ByteSpan,
  flight: Flight<FetchResult>,
): Promise<Readable> {
  const outcome = await engine.upstream.fetch(gapRequest(wanted, whole, gap, engine), flight.signal);
  if (outcome.kind === 'failed') throw new Error(`the origin gave no answer: ${outcome.failure}`);
  if (isGap(outcome, whole, gap)) return outcome.body;
  outcome.body.destroy();
  throw new Mismatch('the origin has another by now');
}

/** What came of a whole body whose transfer broke off: its beginning. The readers of the fill are not told before it lies here. */
export async function keepBeginning(engine: Engine, fill: Fill): Promise<void> {
  const { entry, receivedBytes } = fill;
  const { sizeBytes } = entry;
  const etag = headerOf(entry.headers, 'etag');
  if (entry.status !== 200 || sizeBytes === null || etag === undefined || !isStrongEtag(etag)) return;
  const keptBytes = Math.min(receivedBytes, sizeBytes - 1);
  if (keptBytes <= 0 || fill.failed || fill.passing || engine.cache.peek(entry.key) !== undefined) return;
  const writer = engine.cache.incomplete.open(entry);
  if (writer === undefined) return;
  let at = 0;
  try {
    const beginning = fill.open({ first: 0, last: keptBytes - 1 }, new AbortController().signal);
    for await (const chunk of beginning as AsyncIterable<Buffer>) {
      if (!writer.write(at, chunk)) break;
      at += chunk.length;
    }
  } catch {
    // Taken down or lost on the way: what lies here by now is right all the same, or gone with the rest.
  }
}

/** An answer to one caller's range, kept on its way past where that may be. */
export function keepingPart(engine: Engine, wanted: CacheRequest, answered: Answered): Answered {
  if (answered.status !== 206) return answered;
  const decision = entryOf(engine, wanted, 'GET', answered);
  if (decision.kind !== 'store_part' || engine.cache.peek(decision.entry.key) !== undefined) return answered;
  const { entry, ruleResult, span } = decision;
  const { tiers } = ruleResult;
  if (!tiers.memory && !tiers.disk) return answered;
  const writer = engine.cache.incomplete.open(entry);
  if (writer === undefined) return answered;
  let at = span.first;
  const tap = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      // What is not as long as it says lies nobody knows where.
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
  // Whoever reads it hears of a failure all the same.
  pipeline(answered.body, tap, () => undefined).on('error', () => undefined);
  return { ...answered, body: tap };
}

/** A part that has become whole goes to the tiers, unless something newer is there or on its way. */
async function promote(engine: Engine, wanted: CacheRequest, { key }: Entry, tiers: Tiers): Promise<void> {
  const { cache } = engine;
  const part = cache.incomplete.find(wanted.target.primaryKey, (entry) => entry.key === key);
  if (part === undefined || missingOf(part.spans, wholeOf(part.entry)).length > 0) return;
  if (part.entry.sizeBytes > engine.policy().fill.objectMaxBytes) return;
  const fill = cache.fill(part.entry, tiers);
  for (const bytes of part.read(wholeOf(part.entry))) await fill.write(bytes);
  const current = cache.incomplete.find(wanted.target.primaryKey, (entry) => entry.key === key);
  if (current !== part) {
    fill.abort(new Mismatch('another has taken its place'));
    return;
  }
  const outcome = await fill.end();
  engine.counters.fills.add(1, { outcome: outcome.kind });
  if (outcome.kind === 'corrupt') {
    engine.log.warn({ key: wanted.target.primaryKey, what: outcome.what }, 'parts came to another whole than was said');
    cache.incomplete.drop(key, 'corrupt');
  }
}

function wholeOf({ sizeBytes }: IncompleteResponse['entry']): ByteSpan {
  return { first: 0, last: sizeBytes - 1 };
}
