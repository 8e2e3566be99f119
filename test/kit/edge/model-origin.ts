/**
 * An origin without sockets that remembers every answer it ever gave: for the
 * model of the cache. Each field that a cache may keep from one answer beside
 * the fields of another carries the number of the answer that it came with.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { UpstreamOutcome, UpstreamRequest } from '../../../edge/upstream/request.js';
import type { Upstream } from '../../../edge/upstream/upstream.js';
import { formatHttpDate, parseHttpDate } from '../../../src/http/date.js';
import type { HeaderList } from '../../../src/http/reply.js';
import type { ManualClock } from '../clock.js';

export interface Directives {
  readonly noStore?: boolean;
  readonly noCache?: boolean;
  readonly private?: boolean;
  readonly public?: boolean;
  readonly mustRevalidate?: boolean;
  readonly proxyRevalidate?: boolean;
  /** In seconds. */
  readonly maxAge?: number;
  readonly sMaxage?: number;
  readonly swr?: number;
  readonly sie?: number;
}

/** What a path's answers say until they are told to say something else. Times in seconds. */
export interface Sayings {
  readonly cc: Directives | null;
  readonly cdn: Directives | null;
  readonly expiresIn: number | null;
  readonly age: number;
  /** How far Date lies behind. */
  readonly dateBehind: number;
  readonly vary: boolean;
  readonly etag: 'strong' | 'weak' | 'none';
  readonly lastModified: boolean;
  readonly length: boolean;
  readonly missing: boolean;
  readonly sunsetIn: number | null;
}

/** `no_if_range`: it gives the range of what it has, whatever If-Range says. */
export type Trouble = 'connect' | 'error' | 'break' | 'no_ranges' | 'no_if_range';
const FAILURES: ReadonlySet<Trouble> = new Set(['connect', 'error', 'break']);

export interface OriginAnswer {
  readonly number: number;
  /** When the request for it came, among all that happens. */
  readonly seq: number;
  readonly path: string;
  readonly sent: ReadonlyMap<string, string>;
  readonly says: Sayings;
  readonly status: number;
  readonly version: number;
  readonly variant: string;
  readonly etag: string | null;
  readonly modifiedAt: number | null;
  readonly sunsetAt: number | null;
  readonly dateAt: number;
  readonly requestedAt: number;
  readonly receivedAt: number;
}

interface PathState {
  says: Sayings;
  version: number;
  changedAt: number;
  readonly troubles: Trouble[];
}

export class ModelOrigin {
  readonly answers: OriginAnswer[] = [];
  /** Failures by path: when, among all that happens. */
  readonly failures: { readonly path: string; readonly seq: number; readonly kind: Trouble }[] = [];
  seq = 0;
  readonly #clock: ManualClock;
  readonly #mode: 'media' | 'off';
  readonly #initial: Sayings;
  readonly #paths = new Map<string, PathState>();

  constructor(clock: ManualClock, mode: 'media' | 'off', initial: Sayings) {
    this.#clock = clock;
    this.#mode = mode;
    this.#initial = initial;
  }

  at(path: string): PathState {
    const found = this.#paths.get(path);
    if (found !== undefined) return found;
    const made = { says: this.#initial, version: 1, changedAt: this.#clock.now() - 100_000, troubles: [] };
    this.#paths.set(path, made);
    return made;
  }

  /** A second later than anything before, so that dates tell versions apart. */
  change(path: string): void {
    this.#clock.advance(1_000);
    const state = this.at(path);
    state.version += 1;
    state.changedAt = this.#clock.now();
  }

  /** Another kind of validator, or another choice of variants, is another version: one names one thing. */
  say(path: string, says: Sayings): void {
    const { etag, vary, missing } = this.at(path).says;
    if (etag !== says.etag || vary !== says.vary || missing !== says.missing) this.change(path);
    this.at(path).says = says;
  }

  upstream(): Upstream {
    return {
      fetch: (request, signal) => this.#fetch(request, signal),
      fetchOwn: () => Promise.reject(new Error('the model has no journal')),
      tlsTrouble: null,
      stats: () => ({ breaker: 'closed', inFlight: 0, requests: 0, failures: 0 }),
      close: async () => undefined,
    };
  }

  async #fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome> {
    this.seq += 1;
    const seq = this.seq;
    const path = request.target;
    const state = this.at(path);
    const requestedAt = this.#clock.now();
    const trouble = state.troubles.shift();
    await new Promise(setImmediate);
    if (signal.aborted) return { kind: 'failed', failure: 'left' };
    if (trouble !== undefined && FAILURES.has(trouble)) this.failures.push({ path, seq, kind: trouble });
    if (trouble === 'connect') return { kind: 'failed', failure: 'connect' };
    const answer = this.#answer(request, { path, state, seq, requestedAt, trouble });
    const body = bodyOf(request, answer, trouble === 'break');
    body.on('error', () => undefined);
    signal.addEventListener('abort', () => body.destroy(new Error('nobody waits for it')), { once: true });
    return { kind: 'answered', ...answer.head, body, requestedAt, receivedAt: answer.record.receivedAt };
  }

  #answer(
    request: UpstreamRequest,
    asked: {
      readonly path: string;
      readonly state: PathState;
      readonly seq: number;
      readonly requestedAt: number;
      readonly trouble: Trouble | undefined;
    },
  ): Answering {
    const { path, state, seq, requestedAt, trouble } = asked;
    // An error says nothing but that it is one.
    const says = trouble === 'error' ? SILENT : state.says;
    const { version } = state;
    const sent = new Map(request.headers);
    const receivedAt = this.#clock.now();
    const variant = says.vary ? (sent.get('x-kind') ?? '') : 'any';
    const bytes = representation(path, version, variant);
    const etag = says.etag === 'none' || says.missing ? null : etagOf(says.etag, bytes, this.#mode);
    const modifiedAt = says.lastModified && !says.missing ? Math.floor(state.changedAt / 1_000) * 1_000 : null;
    const status = trouble === 'error' ? 503 : says.missing ? 404 : statusOf(sent, etag, modifiedAt);
    const holds = trouble === 'no_if_range' || conditionHolds(sent, says, etag);
    const span = status === 200 && trouble !== 'no_ranges' && holds ? spanOf(sent, bytes.length) : undefined;
    const record: OriginAnswer = {
      number: this.answers.length,
      seq,
      path,
      sent,
      says,
      status: span === undefined ? status : 206,
      version,
      variant,
      etag,
      modifiedAt,
      sunsetAt: says.sunsetIn === null ? null : Math.floor(receivedAt / 1_000 + says.sunsetIn) * 1_000,
      dateAt: Math.floor(receivedAt / 1_000 - says.dateBehind) * 1_000,
      requestedAt,
      receivedAt,
    };
    this.answers.push(record);
    const content =
      status === 304 ? Buffer.alloc(0) : bytes.subarray(span?.first ?? 0, (span?.last ?? bytes.length) + 1);
    const told = says.length || span !== undefined;
    const headers: (readonly [string, string])[] = [...fieldsOf(record)];
    if (span !== undefined) headers.push(['content-range', `bytes ${span.first}-${span.last}/${bytes.length}`]);
    if (told && status !== 304) headers.push(['content-length', String(content.length)]);
    const sizeBytes = status === 304 ? 0 : told ? content.length : null;
    return { record, content, head: { status: record.status, headers, sizeBytes } };
  }
}

const SILENT: Sayings = {
  cc: null,
  cdn: null,
  expiresIn: null,
  age: 0,
  dateBehind: 0,
  vary: false,
  etag: 'none',
  lastModified: false,
  length: true,
  missing: false,
  sunsetIn: null,
};

interface Answering {
  readonly record: OriginAnswer;
  readonly content: Buffer;
  readonly head: { readonly status: number; readonly headers: HeaderList; readonly sizeBytes: number | null };
}

/** Different for each version and variant, and of another length than the versions around. */
export function representation(path: string, version: number, variant: string): Buffer {
  return Buffer.from(`${path} v${version} ${variant}. `.repeat(12)).subarray(0, 120 + ((version * 37) % 101));
}

function etagOf(kind: 'strong' | 'weak', bytes: Buffer, mode: 'media' | 'off'): string {
  const hash = createHash('sha256').update(bytes).digest('hex');
  const tag = mode === 'media' ? `"sha256:${hash}"` : `"${hash.slice(0, 8)}"`;
  return kind === 'strong' ? tag : `W/${tag}`;
}

/** RFC 9110 13.2.2, as far as edges ask. */
function statusOf(sent: ReadonlyMap<string, string>, etag: string | null, modifiedAt: number | null): number {
  const tags = sent.get('if-none-match');
  if (tags !== undefined) {
    const same = etag !== null && tags.split(/,\s*/).some((tag) => tag === '*' || opaque(tag) === opaque(etag));
    return same ? 304 : 200;
  }
  const since = sent.get('if-modified-since');
  const sinceAt = since === undefined ? undefined : parseHttpDate(since);
  return sinceAt !== undefined && modifiedAt !== null && modifiedAt <= sinceAt ? 304 : 200;
}

export function opaque(etag: string): string {
  return etag.replace(/^W\//, '');
}

/** RFC 9110 13.1.5. */
function conditionHolds(sent: ReadonlyMap<string, string>, says: Sayings, etag: string | null): boolean {
  const condition = sent.get('if-range');
  return condition === undefined || (condition === etag && says.etag === 'strong');
}

function spanOf(
  sent: ReadonlyMap<string, string>,
  sizeBytes: number,
): { readonly first: number; readonly last: number } | undefined {
  const match = /^bytes=(\d+)-(\d*)$/.exec(sent.get('range') ?? '');
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = match[2] === '' ? sizeBytes - 1 : Math.min(Number(match[2]), sizeBytes - 1);
  return first <= last ? { first, last } : undefined;
}

function fieldsOf({ number, says, etag, modifiedAt, dateAt, receivedAt, sunsetAt }: OriginAnswer): HeaderList {
  const fields: (readonly [string, string])[] = [
    ['x-answer', String(number)],
    ['content-type', 'text/plain'],
    ['date', formatHttpDate(dateAt)],
  ];
  const add = (name: string, value: string): void => void fields.push([name, value], [`x-of-${name}`, String(number)]);
  if (says.cc !== null) add('cache-control', directivesText(says.cc));
  if (says.cdn !== null) add('cdn-cache-control', directivesText(says.cdn));
  if (says.expiresIn !== null) add('expires', formatHttpDate(receivedAt + says.expiresIn * 1_000));
  if (says.vary) add('vary', 'X-Kind');
  if (sunsetAt !== null) add('sunset', formatHttpDate(sunsetAt));
  if (says.age > 0) fields.push(['age', String(says.age)]);
  if (etag !== null) fields.push(['etag', etag]);
  if (modifiedAt !== null) add('last-modified', formatHttpDate(modifiedAt));
  return fields;
}

export function directivesText(said: Directives): string {
  const members: string[] = [];
  if (said.noStore === true) members.push('no-store');
  if (said.noCache === true) members.push('no-cache');
  if (said.private === true) members.push('private');
  if (said.public === true) members.push('public');
  if (said.mustRevalidate === true) members.push('must-revalidate');
  if (said.proxyRevalidate === true) members.push('proxy-revalidate');
  if (said.maxAge !== undefined) members.push(`max-age=${said.maxAge}`);
  if (said.sMaxage !== undefined) members.push(`s-maxage=${said.sMaxage}`);
  if (said.swr !== undefined) members.push(`stale-while-revalidate=${said.swr}`);
  if (said.sie !== undefined) members.push(`stale-if-error=${said.sie}`);
  return members.join(', ');
}

function bodyOf(request: UpstreamRequest, { content }: Answering, breaks: boolean): Readable {
  if (request.method === 'HEAD') return Readable.from([]);
  const end = breaks ? Math.floor(content.length * 0.6) : content.length;
  async function* chunks(): AsyncGenerator<Buffer> {
    for (let at = 0; at < end; at += 60) {
      yield content.subarray(at, Math.min(at + 60, end));
      await new Promise(setImmediate);
    }
    if (breaks) throw new Error('the connection broke');
  }
  return Readable.from(chunks(), { objectMode: false });
}
