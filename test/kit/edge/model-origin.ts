/**
 * The origin of the model test: without sockets, and it remembers every response.
 * A cache may combine the fields of two responses, so each such field is sent
 * with the number of its response (`x-of-…`).
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

/** The settings of a path's responses, until they are changed. Times in seconds. */
export interface ResponseSettings {
  readonly cc: Directives | null;
  readonly cdn: Directives | null;
  readonly expiresIn: number | null;
  readonly age: number;
  /** How far Date is behind. */
  readonly dateBehind: number;
  readonly vary: boolean;
  readonly etag: 'strong' | 'weak' | 'none';
  readonly lastModified: boolean;
  readonly length: boolean;
  readonly missing: boolean;
  readonly sunsetIn: number | null;
}

/** `no_if_range`: the origin ignores If-Range and sends the range of its current version. */
export type Trouble = 'connect' | 'error' | 'break' | 'no_ranges' | 'no_if_range';
const FAILURES: ReadonlySet<Trouble> = new Set(['connect', 'error', 'break']);

export interface OriginResponse {
  readonly number: number;
  /** The number of its request in the sequence of all requests. */
  readonly seq: number;
  readonly path: string;
  readonly sent: ReadonlyMap<string, string>;
  readonly settings: ResponseSettings;
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
  settings: ResponseSettings;
  version: number;
  changedAt: number;
  readonly troubles: Trouble[];
}

export class ModelOrigin {
  readonly responses: OriginResponse[] = [];
  /** Failures, with their number in the sequence of all requests. */
  readonly failures: { readonly path: string; readonly seq: number; readonly kind: Trouble }[] = [];
  seq = 0;
  readonly #clock: ManualClock;
  readonly #mode: 'media' | 'off';
  readonly #initial: ResponseSettings;
  readonly #paths = new Map<string, PathState>();

  constructor(clock: ManualClock, mode: 'media' | 'off', initial: ResponseSettings) {
    this.#clock = clock;
    this.#mode = mode;
    this.#initial = initial;
  }

  at(path: string): PathState {
    const found = this.#paths.get(path);
    if (found !== undefined) return found;
    const made = { settings: this.#initial, version: 1, changedAt: this.#clock.now() - 100_000, troubles: [] };
    this.#paths.set(path, made);
    return made;
  }

  /** Makes a new version, a second later than everything before, so that their dates differ. */
  change(path: string): void {
    this.#clock.advance(1_000);
    const state = this.at(path);
    state.version += 1;
    state.changedAt = this.#clock.now();
  }

  /** A change of the validator or of Vary makes a new version too, so that a validator has one meaning. */
  configure(path: string, settings: ResponseSettings): void {
    const { etag, vary, missing } = this.at(path).settings;
    if (etag !== settings.etag || vary !== settings.vary || missing !== settings.missing) this.change(path);
    this.at(path).settings = settings;
  }

  upstream(): Upstream {
    return {
      fetch: (request, signal) => this.#fetch(request, signal),
      fetchOwn: () => Promise.reject(new Error('the model has no journal')),
      tlsTrouble: null,
      askAll: async () => 'answered',
      moveOn: () => false,
      inOrder: () => [],
      stats: () => ({ breaker: 'closed', inFlight: 0, requests: 0, failures: 0, origins: [] }),
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
    const prepared = this.#prepare(request, { path, state, seq, requestedAt, trouble });
    const body = bodyOf(request, prepared, trouble === 'break');
    body.on('error', () => undefined);
    signal.addEventListener('abort', () => body.destroy(new Error('nobody waits for it')), { once: true });
    const received = new Promise<void>((resolve) => body.once('close', resolve));
    return { kind: 'answered', ...prepared.head, body, received, requestedAt, receivedAt: prepared.record.receivedAt };
  }

  #prepare(
    request: UpstreamRequest,
    context: {
      readonly path: string;
      readonly state: PathState;
      readonly seq: number;
      readonly requestedAt: number;
      readonly trouble: Trouble | undefined;
    },
  ): Prepared {
    const { path, state, seq, requestedAt, trouble } = context;
    // An error has no other fields.
    const settings = trouble === 'error' ? BARE : state.settings;
    const { version } = state;
    const sent = new Map(request.headers);
    const receivedAt = this.#clock.now();
    const variant = settings.vary ? (sent.get('x-kind') ?? '') : 'any';
    const bytes = representation(path, version, variant);
    const etag = settings.etag === 'none' || settings.missing ? null : etagOf(settings.etag, bytes, this.#mode);
    const modifiedAt = settings.lastModified && !settings.missing ? Math.floor(state.changedAt / 1_000) * 1_000 : null;
    const status = trouble === 'error' ? 503 : settings.missing ? 404 : statusOf(sent, etag, modifiedAt);
    const holds = trouble === 'no_if_range' || conditionHolds(sent, settings, etag);
    const span = status === 200 && trouble !== 'no_ranges' && holds ? spanOf(sent, bytes.length) : undefined;
    const record: OriginResponse = {
      number: this.responses.length,
      seq,
      path,
      sent,
      settings,
      status: span === undefined ? status : 206,
      version,
      variant,
      etag,
      modifiedAt,
      sunsetAt: settings.sunsetIn === null ? null : Math.floor(receivedAt / 1_000 + settings.sunsetIn) * 1_000,
      dateAt: Math.floor(receivedAt / 1_000 - settings.dateBehind) * 1_000,
      requestedAt,
      receivedAt,
    };
    this.responses.push(record);
    const content =
      status === 304 ? Buffer.alloc(0) : bytes.subarray(span?.first ?? 0, (span?.last ?? bytes.length) + 1);
    const hasLength = settings.length || span !== undefined;
    const headers: (readonly [string, string])[] = [...fieldsOf(record)];
    if (span !== undefined) headers.push(['content-range', `bytes ${span.first}-${span.last}/${bytes.length}`]);
    if (hasLength && status !== 304) headers.push(['content-length', String(content.length)]);
    const sizeBytes = status === 304 ? 0 : hasLength ? content.length : null;
    return { record, content, head: { status: record.status, headers, sizeBytes } };
  }
}

const BARE: ResponseSettings = {
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

interface Prepared {
  readonly record: OriginResponse;
  readonly content: Buffer;
  readonly head: { readonly status: number; readonly headers: HeaderList; readonly sizeBytes: number | null };
}

/** Different for each version and variant; neighbouring versions differ in length too. */
export function representation(path: string, version: number, variant: string): Buffer {
  return Buffer.from(`${path} v${version} ${variant}. `.repeat(12)).subarray(0, 120 + ((version * 37) % 101));
}

function etagOf(kind: 'strong' | 'weak', bytes: Buffer, mode: 'media' | 'off'): string {
  const hash = createHash('sha256').update(bytes).digest('hex');
  const tag = mode === 'media' ? `"sha256:${hash}"` : `"${hash.slice(0, 8)}"`;
  return kind === 'strong' ? tag : `W/${tag}`;
}

/** RFC 9110 13.2.2, for the conditions that the edge sends. */
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
function conditionHolds(sent: ReadonlyMap<string, string>, settings: ResponseSettings, etag: string | null): boolean {
  const condition = sent.get('if-range');
  return condition === undefined || (condition === etag && settings.etag === 'strong');
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

function fieldsOf({ number, settings, etag, modifiedAt, dateAt, receivedAt, sunsetAt }: OriginResponse): HeaderList {
  const fields: (readonly [string, string])[] = [
    ['x-response', String(number)],
    ['content-type', 'text/plain'],
    ['date', formatHttpDate(dateAt)],
  ];
  const add = (name: string, value: string): void => void fields.push([name, value], [`x-of-${name}`, String(number)]);
  if (settings.cc !== null) add('cache-control', directivesText(settings.cc));
  if (settings.cdn !== null) add('cdn-cache-control', directivesText(settings.cdn));
  if (settings.expiresIn !== null) add('expires', formatHttpDate(receivedAt + settings.expiresIn * 1_000));
  if (settings.vary) add('vary', 'X-Kind');
  if (sunsetAt !== null) add('sunset', formatHttpDate(sunsetAt));
  if (settings.age > 0) fields.push(['age', String(settings.age)]);
  if (etag !== null) fields.push(['etag', etag]);
  if (modifiedAt !== null) add('last-modified', formatHttpDate(modifiedAt));
  return fields;
}

export function directivesText(directives: Directives): string {
  const members: string[] = [];
  if (directives.noStore === true) members.push('no-store');
  if (directives.noCache === true) members.push('no-cache');
  if (directives.private === true) members.push('private');
  if (directives.public === true) members.push('public');
  if (directives.mustRevalidate === true) members.push('must-revalidate');
  if (directives.proxyRevalidate === true) members.push('proxy-revalidate');
  if (directives.maxAge !== undefined) members.push(`max-age=${directives.maxAge}`);
  if (directives.sMaxage !== undefined) members.push(`s-maxage=${directives.sMaxage}`);
  if (directives.swr !== undefined) members.push(`stale-while-revalidate=${directives.swr}`);
  if (directives.sie !== undefined) members.push(`stale-if-error=${directives.sie}`);
  return members.join(', ');
}

function bodyOf(request: UpstreamRequest, { content }: Prepared, breaks: boolean): Readable {
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
