/**
 * Writes one response into the cache: feeds the growing body, hashes its bytes,
 * and checks length and hash at the end. The caller decides where a correct body
 * is stored (`store`).
 *
 * A full disk does not end a fill: the body is still sent to everyone who reads
 * it, and is not stored (growing-body.ts, state `passing`; outcome `disk_full`).
 */
import { createHash, type Hash, hash } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import type { Entry, SizedEntry } from '../entry.js';
import { BodyLost, type Fill, type FillOutcome, type LossReason, type Tiers } from './cache.js';
import type { GrowingBody } from './growing-body.js';

/** A response that has arrived, complete and correct. */
export interface Arrived {
  readonly entry: SizedEntry;
  readonly sha256: string;
  readonly tiers: Tiers;
  readonly body: GrowingBody;
  /** False once it was taken down, purged, invalidated or aborted. */
  mayBeStored(): boolean;
}

export interface FillDeps {
  /** Whether a tier would take the body, as far as is known before its end. */
  wouldStore(): boolean;
  /** Whether the memory tier will take the body, if it is not invalidated. */
  goesToMemory(): boolean;
  store(arrived: Arrived): Promise<FillOutcome>;
  onCorrupt(): void;
  /** `end` has its outcome, or the fill has failed. The body may still have readers. */
  onEnded(): void;
}

export class FillWriter implements Fill {
  readonly entry: Entry;
  readonly #tiers: Tiers;
  readonly #body: GrowingBody;
  readonly #deps: FillDeps;
  #hash: Hash | undefined;
  /** Of a body that came in one piece. */
  #sha256: string | undefined;
  #corruption: 'length' | 'sha256' | undefined;
  #ending: Promise<FillOutcome> | undefined;
  #ended = false;
  #outcome: FillOutcome | undefined;
  #invalidated = false;

  constructor(entry: Entry, tiers: Tiers, body: GrowingBody, deps: FillDeps) {
    this.entry = entry;
    this.#tiers = tiers;
    this.#body = body;
    this.#deps = deps;
  }

  get sizeBytes(): number | null {
    return this.entry.sizeBytes;
  }

  get whole(): Buffer | undefined {
    return this.#body.whole;
  }

  get receivedBytes(): number {
    return this.#body.receivedBytes;
  }

  get passing(): boolean {
    return this.#body.passing;
  }

  get failed(): boolean {
    return this.#body.failure !== undefined;
  }

  get mayBeKept(): boolean {
    if (this.failed || this.#invalidated) return false;
    return this.#outcome === undefined ? this.#deps.wouldStore() : this.#outcome.kind === 'stored';
  }

  get invalidated(): boolean {
    return this.#invalidated;
  }

  /** The outcome of `end`, once that was called. */
  get ending(): Promise<FillOutcome> | undefined {
    return this.#ending;
  }

  async ensure(): Promise<'ready' | 'lost'> {
    return this.failed ? 'lost' : 'ready';
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    return this.#body.open(span, signal);
  }

  async write(chunk: Buffer): Promise<void> {
    if (this.failed || this.#ending !== undefined) return;
    const { sizeBytes } = this.entry;
    if (sizeBytes !== null && this.#body.receivedBytes + chunk.length > sizeBytes) {
      this.#failCorrupt('length');
      return;
    }
    this.#hash ??= createHash('sha256');
    this.#hash.update(chunk);
    await this.#body.append(chunk);
  }

  takeWhole(bytes: Buffer): boolean {
    const { sizeBytes, sha256 } = this.entry;
    if (this.failed || this.#invalidated || bytes.length !== sizeBytes) return false;
    if (this.#body.place !== 'memory' || !this.#deps.goesToMemory()) return false;
    const found = hash('sha256', bytes);
    if (sha256 !== null && found !== sha256) return false;
    this.#sha256 = found;
    // In memory, no chunk has to wait.
    void this.#body.append(bytes);
    return true;
  }

  end(): Promise<FillOutcome> {
    this.#ending ??= this.#end().finally(() => this.#finish());
    return this.#ending;
  }

  invalidate(): void {
    this.#invalidated = true;
  }

  abort(reason: Error): void {
    if (!this.#ended) this.fail('aborted', reason);
  }

  /** Ends all readers, also those who still read after `end`. */
  fail(reason: LossReason, cause?: unknown): void {
    this.#body.fail(new BodyLost(reason, cause));
    if (this.#ending === undefined) this.#finish();
  }

  async #end(): Promise<FillOutcome> {
    const { sizeBytes, sha256 } = this.entry;
    const received = this.#body.receivedBytes;
    const hashed = this.#sha256 ?? (this.#hash ?? createHash('sha256')).digest('hex');
    if (!this.failed && sizeBytes !== null && received !== sizeBytes) this.#failCorrupt('length');
    if (!this.failed && sha256 !== null && hashed !== sha256) this.#failCorrupt('sha256');
    if (this.failed) return this.#failureOutcome();
    this.#body.complete();
    const outcome = await this.#deps.store({
      entry: { ...this.entry, sizeBytes: received },
      sha256: hashed,
      tiers: this.#tiers,
      body: this.#body,
      mayBeStored: () => !this.failed && !this.#invalidated,
    });
    // The file must be complete before its owner may remove it: readers still follow it.
    await this.#body.flushed();
    if (this.failed) return this.#failureOutcome();
    this.#outcome = outcome;
    return this.#invalidated ? { kind: 'not_kept', reason: 'invalidated' } : outcome;
  }

  #failureOutcome(): FillOutcome {
    if (this.#corruption !== undefined) return { kind: 'corrupt', what: this.#corruption };
    const failure = this.#body.failure;
    const detail = failure?.cause instanceof Error ? `: ${failure.cause.message}` : '';
    return { kind: 'aborted', reason: `${failure?.reason ?? 'aborted'}${detail}` };
  }

  #failCorrupt(what: 'length' | 'sha256'): void {
    this.#corruption = what;
    this.#deps.onCorrupt();
    this.fail('corrupt');
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deps.onEnded();
    this.#body.release();
  }
}
