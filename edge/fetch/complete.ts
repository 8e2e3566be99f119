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
import { judge } from './entry-of.js';
import type { Flight } from './flight.js';
import { fits } from './lookup.js';
import { type Errand, partFields, selecting } from './origin-request.js';
import type { Landing } from './result.js';
import { type Treatment, treatmentOf } from './rules.js';

/** What is held of the response that an errand is about. */
export function findPart({ cache }: Pick<Engine, 'cache'>, errand: Errand): IncompleteResponse | undefined {
  return cache.incomplete.find(errand.place.primaryKey, (entry) => fits(entry, errand));
}

/** A part that can be made whole: what is missing of it, at least one span. */
export interface Completable {
  readonly part: IncompleteResponse;
  readonly etag: string;
  readonly gaps: readonly [ByteSpan, ...ByteSpan[]];
}

export function completable(parts: Engine, errand: Errand): Completable | undefined {
  const part = findPart(parts, errand);
  const etag = part === undefined ? undefined : headerOf(part.entry.headers, 'etag');
  if (part === undefined || etag === undefined || part.entry.sizeBytes > parts.policy().fill.objectMaxBytes) {
    return undefined;
  }
  const [first, ...others] = missingOf(part.spans, wholeOf(part.entry));
  return first === undefined ? undefined : { part, etag, gaps: [first, ...others] };
}

export function gapRequest(
  errand: Errand,
  { part, etag }: Completable,
  gap: ByteSpan,
  { identity }: Pick<Engine, 'identity'>,
): UpstreamRequest {
  const toTheEnd = gap.last === part.entry.sizeBytes - 1;
  const range = toTheEnd ? `bytes=${gap.first}-` : rangeField(gap);
  return { method: 'GET', target: errand.place.target, headers: partFields(errand, range, etag, identity) };
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
  parts: Engine,
  errand: Errand,
  { entry }: IncompleteResponse,
  answered: Answered,
): { readonly entry: Entry; readonly treatment: Treatment } | undefined {
  const treatment = treatmentOf(parts.policy().rules, {
    pathKind: errand.place.pathKind,
    contentType: headerOf(entry.headers, 'content-type'),
    sizeBytes: entry.sizeBytes,
  });
  const headers = answered.headers.filter(([name]) => !OF_ONE_PART.has(name));
  const verdict = freshen({
    entry,
    received: { ...answered, headers },
    request: { method: 'GET', header: selecting(errand).header },
    now: parts.clock.now(),
    rules: parts.storing,
    override: treatment,
  });
  if (verdict.kind !== 'store') return undefined;
  const { key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 } = entry;
  return { entry: { ...verdict.head, key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 }, treatment };
}

const OF_ONE_PART: ReadonlySet<string> = new Set(['content-digest', 'content-length', 'content-md5', 'content-range']);

/** What an assembly fails with where the origin's answers do not fit together. */
export class Mismatch extends Error {
  override readonly name = 'Mismatch';
}

/** The bytes of the whole in order: what is held, and between it what is fetched, `first` being the first of that. */
export async function* assembled(
  parts: Engine,
  errand: Errand,
  whole: Completable,
  first: Readable,
  flight: Flight<Landing>,
): AsyncGenerator<Buffer> {
  const { part, gaps } = whole;
  const writer = parts.cache.incomplete.open(part.entry);
  let at = 0;
  for (const [index, gap] of gaps.entries()) {
    if (at < gap.first) yield* part.read({ first: at, last: gap.first - 1 });
    at = gap.first;
    const body = index === 0 ? first : await fetchGap(parts, errand, whole, gap, flight);
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
  parts: Engine,
  errand: Errand,
  whole: Completable,
  gap: ByteSpan,
  flight: Flight<Landing>,
): Promise<Readable> {
  const outcome = await parts.upstream.fetch(gapRequest(errand, whole, gap, parts), flight.signal);
  if (outcome.kind === 'failed') throw new Error(`the origin gave no answer: ${outcome.failure}`);
  if (isGap(outcome, whole, gap)) return outcome.body;
  outcome.body.destroy();
  throw new Mismatch('the origin has another by now');
}

/** What came of a whole body whose transfer broke off: its beginning. The readers of the fill are not told before it lies here. */
export async function keepBeginning(parts: Engine, filling: Fill): Promise<void> {
  const { entry, receivedBytes } = filling;
  const { sizeBytes } = entry;
  const etag = headerOf(entry.headers, 'etag');
  if (entry.status !== 200 || sizeBytes === null || etag === undefined || !isStrongEtag(etag)) return;
  const keptBytes = Math.min(receivedBytes, sizeBytes - 1);
  if (keptBytes <= 0 || filling.failed || filling.passing || parts.cache.peek(entry.key) !== undefined) return;
  const writer = parts.cache.incomplete.open(entry);
  if (writer === undefined) return;
  let at = 0;
  try {
    const beginning = filling.open({ first: 0, last: keptBytes - 1 }, new AbortController().signal);
    for await (const chunk of beginning as AsyncIterable<Buffer>) {
      if (!writer.write(at, chunk)) break;
      at += chunk.length;
    }
  } catch {
    // Taken down or lost on the way: what lies here by now is right all the same, or gone with the rest.
  }
}

/** An answer to one caller's range, kept on its way past where that may be. */
export function keepingPart(parts: Engine, errand: Errand, answered: Answered): Answered {
  if (answered.status !== 206) return answered;
  const judged = judge(parts, errand, 'GET', answered);
  if (judged.kind !== 'store_part' || parts.cache.peek(judged.entry.key) !== undefined) return answered;
  const { entry, treatment, span } = judged;
  const { placement } = treatment;
  if (!placement.memory && !placement.disk) return answered;
  const writer = parts.cache.incomplete.open(entry);
  if (writer === undefined) return answered;
  let at = span.first;
  const tap = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      // What is not as long as it says lies nobody knows where.
      if (at + chunk.length > span.last + 1) parts.cache.incomplete.drop(entry.key, 'corrupt');
      else writer.write(at, chunk);
      at += chunk.length;
      done(null, chunk);
    },
    flush(done) {
      if (at <= span.last) parts.cache.incomplete.drop(entry.key, 'corrupt');
      else void promote(parts, errand, entry, placement);
      done();
    },
  });
  // Whoever reads it hears of a failure all the same.
  pipeline(answered.body, tap, () => undefined).on('error', () => undefined);
  return { ...answered, body: tap };
}

/** A part that has become whole goes to the tiers, unless something newer is there or on its way. */
async function promote(parts: Engine, errand: Errand, { key }: Entry, placement: Tiers): Promise<void> {
  const { cache } = parts;
  const part = cache.incomplete.find(errand.place.primaryKey, (entry) => entry.key === key);
  if (part === undefined || missingOf(part.spans, wholeOf(part.entry)).length > 0) return;
  if (part.entry.sizeBytes > parts.policy().fill.objectMaxBytes) return;
  const filling = cache.fill(part.entry, placement);
  for (const bytes of part.read(wholeOf(part.entry))) await filling.write(bytes);
  const current = cache.incomplete.find(errand.place.primaryKey, (entry) => entry.key === key);
  if (current !== part) {
    filling.abort(new Mismatch('another has taken its place'));
    return;
  }
  const outcome = await filling.end();
  parts.counters.fills.add(1, { outcome: outcome.kind });
  if (outcome.kind === 'corrupt') {
    parts.log.warn({ key: errand.place.primaryKey, what: outcome.what }, 'parts came to another whole than was said');
    cache.incomplete.drop(key, 'corrupt');
  }
}

function wholeOf({ sizeBytes }: IncompleteResponse['entry']): ByteSpan {
  return { first: 0, last: sizeBytes - 1 };
}
