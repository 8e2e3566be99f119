/**
 * Records what requests come to, for `media-service simulate`. Keys are hashed
 * with a key of their own, and sampled by the hash, so that all requests of a
 * chosen response are recorded or none.
 *
 * Promises: a request waits for nothing; nothing is recorded that names media,
 * callers or edges; what cannot be written is dropped and counted.
 */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock, Timer } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import { routeOf } from '../../src/logs/route.js';
import type { Metrics } from '../../src/metrics.js';
import { createFile, openPrivateFolder } from '../../src/private-folder.js';
import type { CacheKey, Entry } from '../entry.js';
import { PATH_KINDS } from '../key.js';
import type { Traffic } from '../ops/traffic.js';
import type { EdgeRequest, Exchanged, Outcome } from '../request.js';
import type { FreshnessRules } from '../rfc9111/freshness.js';
import type { TraceConfig } from './config.js';
import { factsOf } from './facts.js';
import { nodeDisk, type TraceDisk, TraceFiles } from './files.js';
import {
  encodeHeader,
  encodeKey,
  encodeResponse,
  isSampled,
  KEY_BYTES,
  LISTS,
  RECORD_BYTES,
  type TracedResponse,
  type TraceEvent,
  writeEvent,
  writeRequest,
} from './format.js';

/** Takes each request when it has ended. */
type Noting = Pick<Traffic, 'note'>;

export interface Trace extends Noting {
  /** A stored response was removed for another reason than room, or all of them were. */
  dropped(key: CacheKey | 'all'): void;
  /** A body was stored that no request had asked for yet. */
  warmed(entry: Entry): void;
  /** Resolves when all that was recorded so far is written or dropped. */
  flushed(): Promise<void>;
  close(): Promise<void>;
}

export interface TraceDeps {
  readonly config: TraceConfig;
  readonly edgeName: string;
  readonly freshness: FreshnessRules;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly disk?: TraceDisk;
}

export async function openTrace(deps: TraceDeps): Promise<Trace> {
  const { folder } = deps.config;
  await openPrivateFolder(folder);
  const path = join(folder, 'trace.key');
  // Whoever comes first makes it: workers of an edge share it.
  await createFile(path, randomBytes(32));
  return new Recorder(deps, await readFile(path));
}

/** Records that are gathered before they are written. */
const CHUNK_RECORDS = 1_024;
const CHUNK_BYTES = CHUNK_RECORDS * RECORD_BYTES;

/** By outcome: whether the cache had a part in it. */
const RECORDED: Readonly<Record<Outcome, boolean>> = {
  hit_memory: true,
  hit_disk: true,
  hit_filling: true,
  stale: true,
  revalidated: true,
  miss: true,
  failed: true,
  pass: false,
  refused: false,
  own: false,
};

const NOT_CACHEABLE: Omit<TracedResponse, 'path'> = {
  cacheable: false,
  type: '',
  sizeBytes: 0,
  memoryHeadBytes: 0,
  diskHeadBytes: 0,
  content: 0,
  ageMs: 0,
  stated: {
    lifetimeMs: 0,
    staleWhileRevalidateMs: null,
    staleIfErrorMs: null,
    provisional: false,
    neverFresh: false,
    forbidsStale: false,
  },
};

class Recorder implements Trace {
  readonly #deps: TraceDeps;
  readonly #key: Buffer;
  readonly #files: TraceFiles;
  /** The facts of responses that were recorded before; null: it is not sampled. */
  readonly #facts = new WeakMap<Entry, Buffer | null>();
  #chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  #used = 0;
  #timer: Timer | undefined;
  #recorded = 0;
  #lost = 0;

  constructor(deps: TraceDeps, key: Buffer) {
    this.#deps = deps;
    this.#key = key;
    const { config, edgeName, clock, log, metrics, disk = nodeDisk } = deps;
    const keyId = createHash('sha256').update('key id').update(key).digest('hex').slice(0, 12);
    this.#files = new TraceFiles({
      ...config,
      name: edgeName,
      header: encodeHeader({ keyId, sampleShare: config.sampleShare, lists: LISTS }),
      clock,
      log,
      disk,
      onLost: (bytes) => this.#lose(bytes),
    });
    metrics.totals('edge_trace_records_total', 'Records of the trace, by whether they were dropped.', () => [
      { labels: { dropped: 'no' }, value: this.#recorded - this.#lost },
      { labels: { dropped: 'yes' }, value: this.#lost },
    ]);
  }

  note(request: Pick<EdgeRequest, 'method' | 'path'>, ended: Exchanged): void {
    const { outcome, answer, sentBytes, tookMs } = ended;
    if (!RECORDED[outcome]) return;
    const reply = answer?.kind === 'reply' ? answer : undefined;
    const facts = reply?.entry === undefined ? this.#unknown(request.path) : this.#known(reply.entry, sentBytes);
    if (facts === null) return;
    const at = this.#place(facts);
    writeRequest(this.#chunk, at, this.#startedAt(tookMs), {
      outcome,
      head: request.method === 'HEAD',
      demanded: reply?.reason === 'request',
      sentBytes,
    });
    this.#placed();
  }

  dropped(key: CacheKey | 'all'): void {
    if (key === 'all') {
      this.#event('emptied', Buffer.alloc(RECORD_BYTES));
      return;
    }
    const hash = this.#hashOf(key);
    if (this.#isSampled(hash)) this.#event('dropped', encodeKey(hash));
  }

  warmed(entry: Entry): void {
    const facts = this.#known(entry, 0);
    if (facts !== null) this.#event('warmed', facts);
  }

  async flushed(): Promise<void> {
    this.#flush();
    await this.#files.written();
  }

  async close(): Promise<void> {
    this.#flush();
    await this.#files.close();
  }

  /** While a body arrives, its size may be unknown: then it is what was sent of it. */
  #known(entry: Entry, sentBytes: number): Buffer | null {
    const known = this.#facts.get(entry);
    if (known !== undefined) return known;
    const hash = this.#hashOf(entry.key);
    const facts = this.#isSampled(hash) ? encodeResponse(hash, this.#factsOf(entry, sentBytes)) : null;
    if (entry.sizeBytes !== null) this.#facts.set(entry, facts);
    return facts;
  }

  #factsOf(entry: Entry, sentBytes: number): TracedResponse {
    const sized = { ...entry, sizeBytes: entry.sizeBytes ?? sentBytes };
    return factsOf(sized, this.#deps.freshness, (text) => this.#hashOf(text).readUInt32LE(4));
  }

  /** Of a response that is not stored, its path alone is known. */
  #unknown(path: string): Buffer | null {
    const hash = this.#hashOf(path);
    if (!this.#isSampled(hash)) return null;
    const route = routeOf(path);
    return encodeResponse(hash, { ...NOT_CACHEABLE, path: PATH_KINDS.find((kind) => kind === route) ?? 'other' });
  }

  #isSampled(hash: Buffer): boolean {
    return isSampled(hash, this.#deps.config.sampleShare);
  }

  #hashOf(text: string): Buffer {
    return createHmac('sha256', this.#key).update(text).digest().subarray(0, KEY_BYTES);
  }

  /**
   * When the cache was asked. A request that took no time is placed by its end, which is more exact: the
   * clock shows whole milliseconds.
   */
  #startedAt(tookMs: number): number {
    const now = this.#deps.clock.now();
    return tookMs < 1 ? Math.floor(now) : Math.ceil(now - tookMs);
  }

  #event(event: TraceEvent, facts: Buffer): void {
    const at = this.#place(facts);
    writeEvent(this.#chunk, at, Math.floor(this.#deps.clock.now()), event);
    this.#placed();
  }

  #place(facts: Buffer): number {
    const at = this.#used;
    this.#chunk.set(facts, at);
    return at;
  }

  #placed(): void {
    this.#recorded += 1;
    this.#used += RECORD_BYTES;
    if (this.#used === CHUNK_BYTES) this.#flush();
    else this.#timer ??= this.#deps.clock.after(this.#deps.config.writeWithinMs, () => this.#flush());
  }

  #flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#used === 0) return;
    const full = this.#used === CHUNK_BYTES;
    // What is not full is copied, and its memory is used again.
    const bytes = full ? this.#chunk : Buffer.from(this.#chunk.subarray(0, this.#used));
    if (!this.#files.write(bytes)) this.#lose(bytes.length);
    else if (full) this.#chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    this.#used = 0;
  }

  #lose(bytes: number): void {
    this.#lost += bytes / RECORD_BYTES;
  }
}

/** Counts and records. */
export function traced(traffic: Noting, trace: Noting | null): Noting {
  if (trace === null) return traffic;
  return {
    note(request, ended) {
      traffic.note(request, ended);
      trace.note(request, ended);
    },
  };
}
