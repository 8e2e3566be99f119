/**
 * A response that arrives: feeds the growing body, counts and hashes what
 * passes, and once all has come decides whether it is right. Where a right body
 * is kept is the cache's business, handed in as `keep`.
 */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import type { Entry } from '../entry.js';
import { BodyLost, type Fill, type FillOutcome, type LossReason, type Tiers } from './cache.js';
import type { GrowingBody } from './growing-body.js';

/** A body found whole and right. */
export interface Arrived {
  readonly entry: Entry & { readonly sizeBytes: number };
  readonly sha256: string;
  readonly placement: Tiers;
  readonly body: GrowingBody;
  /** False once it was taken down, purged, made invalid or aborted. */
  mayBeKept(): boolean;
}

export interface FillDeps {
  keep(arrived: Arrived): Promise<FillOutcome>;
  onCorrupt(fill: FillWriter, what: 'length' | 'sha256'): void;
  /** end() has its outcome, or the fill failed. The body may have readers yet. */
  onSettled(fill: FillWriter): void;
}

export class FillWriter implements Fill {
  readonly entry: Entry;
  readonly #placement: Tiers;
  readonly #body: GrowingBody;
  readonly #parts: FillDeps;
  readonly #hash = createHash('sha256');
  #corruption: 'length' | 'sha256' | undefined;
  #ending: Promise<FillOutcome> | undefined;
  #settled = false;
  #forgone = false;

  constructor(entry: Entry, placement: Tiers, body: GrowingBody, parts: FillDeps) {
    this.entry = entry;
    this.#placement = placement;
    this.#body = body;
    this.#parts = parts;
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

  get readers(): number {
    return this.#body.readers;
  }

  get passing(): boolean {
    return this.#body.passing;
  }

  get failed(): boolean {
    return this.#body.failure !== undefined;
  }

  get settled(): boolean {
    return this.#settled;
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
      this.#corrupt('length');
      return;
    }
    this.#hash.update(chunk);
    await this.#body.append(chunk);
  }

  end(): Promise<FillOutcome> {
    this.#ending ??= this.#end().finally(() => this.#settle());
    return this.#ending;
  }

  /** Readers go on, but the response is not kept: it was made invalid while it arrived. */
  forgo(): void {
    this.#forgone = true;
  }

  abort(reason: Error): void {
    if (!this.#settled) this.fail('aborted', reason);
  }

  /** Also breaks off those who still read after the end. */
  fail(reason: LossReason, cause?: unknown): void {
    this.#body.fail(new BodyLost(reason, cause));
    if (this.#ending === undefined) this.#settle();
  }

  async #end(): Promise<FillOutcome> {
    const { sizeBytes, sha256 } = this.entry;
    const received = this.#body.receivedBytes;
    const hash = this.#hash.digest('hex');
    if (!this.failed && sizeBytes !== null && received !== sizeBytes) this.#corrupt('length');
    if (!this.failed && sha256 !== null && hash !== sha256) this.#corrupt('sha256');
    if (!this.failed) {
      this.#body.complete();
      const outcome = await this.#parts.keep({
        entry: { ...this.entry, sizeBytes: received },
        sha256: hash,
        placement: this.#placement,
        body: this.#body,
        mayBeKept: () => !this.failed && !this.#forgone,
      });
      // The file takes what is left before anybody may remove it.
      await this.#body.flushed();
      if (this.#forgone && !this.failed) return { kind: 'not_kept', reason: 'invalidated' };
      if (!this.failed) return outcome;
    }
    return this.#failureOutcome();
  }

  #failureOutcome(): FillOutcome {
    if (this.#corruption !== undefined) return { kind: 'corrupt', what: this.#corruption };
    const failure = this.#body.failure;
    const words = failure?.cause instanceof Error ? `: ${failure.cause.message}` : '';
    return { kind: 'aborted', reason: `${failure?.reason ?? 'aborted'}${words}` };
  }

  #corrupt(what: 'length' | 'sha256'): void {
    this.#corruption = what;
    this.#parts.onCorrupt(this, what);
    this.fail('corrupt');
  }

  #settle(): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#parts.onSettled(this);
    this.#body.release();
  }
}
