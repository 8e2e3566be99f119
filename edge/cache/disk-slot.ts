/**
 * The place of the disk tier in the cache. If the tier cannot be opened at the
 * start (its disk is full, read-only or gone), the cache works without it, and the
 * slot tries again until it can. A reload may switch the tier on or off.
 *
 * Promises: a tier that is opened later is emptied first, since it has missed the
 * takedowns, purges and invalidations of the meantime. A folder that another
 * process uses is a mistake of the operator at the start, which is reported there.
 */
import type { Clock, Timer } from '../../src/clock.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import { errorFields, type Log } from '../../src/log.js';
import type { DiskState } from './cache.js';
import { FolderInUse } from './disk/lock.js';
import type { DiskTier } from './disk/tier.js';
import type { Promoter } from './promote.js';

export interface OpenDisk {
  readonly tier: DiskTier;
  readonly promoter: Promoter;
}

export interface DiskSlotDeps {
  /** Whether there is to be a disk tier now. */
  isWanted(): boolean;
  /** How long to wait before the tier is tried again. */
  readonly retryMs: number;
  /** `empty`: removes first what is stored in the folder. */
  open(what: 'as_it_is' | 'empty'): Promise<OpenDisk>;
  readonly clock: Clock;
  readonly log: Log;
}

export class DiskSlot {
  readonly #deps: DiskSlotDeps;
  #disk: OpenDisk | undefined;
  #failure: unknown;
  #applied: JournalPosition | undefined;
  #timer: Timer | undefined;
  #opening: Promise<void> = Promise.resolve();
  #closed = false;

  static async open(deps: DiskSlotDeps): Promise<DiskSlot> {
    const slot = new DiskSlot(deps);
    if (!deps.isWanted()) return slot;
    try {
      slot.#disk = await deps.open('as_it_is');
    } catch (thrown) {
      if (thrown instanceof FolderInUse) throw thrown;
      deps.log.error(errorFields(thrown), 'the disk tier cannot be used; the cache works without it');
      slot.#failed(thrown);
    }
    return slot;
  }

  private constructor(deps: DiskSlotDeps) {
    this.#deps = deps;
  }

  get state(): DiskState {
    if (!this.#deps.isWanted()) return 'off';
    return this.#disk === undefined ? 'away' : 'in_use';
  }

  /** One that is switched off stays until it is empty, and longer. */
  get tier(): DiskTier | undefined {
    return this.#disk?.tier;
  }

  get promoter(): Promoter | undefined {
    return this.#disk?.promoter;
  }

  /** The configuration of the tier has changed. Resolves when what is stored agrees with it. */
  async renew(): Promise<void> {
    if (this.#disk === undefined && this.#timer === undefined && this.#deps.isWanted()) {
      this.#opening = this.#opening.then(() => (this.#disk === undefined ? this.#openAgain() : undefined));
      await this.#opening;
    }
    await this.#disk?.tier.renew();
  }

  noteApplied(position: JournalPosition): void {
    this.#applied = position;
    this.#disk?.tier.noteApplied(position);
  }

  async probe(): Promise<void> {
    if (!this.#deps.isWanted()) return;
    if (this.#disk === undefined) throw new Error('the disk tier cannot be used', { cause: this.#failure });
    await this.#disk.tier.probe();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#opening;
    await this.#disk?.tier.close();
  }

  #failed(thrown: unknown): void {
    this.#failure = thrown;
    this.#timer = this.#deps.clock.after(this.#deps.retryMs, () => {
      this.#opening = this.#openAgain();
    });
  }

  async #openAgain(): Promise<void> {
    const { log } = this.#deps;
    this.#timer = undefined;
    if (!this.#deps.isWanted() || this.#closed) return;
    try {
      const disk = await this.#deps.open('empty');
      if (this.#applied !== undefined) disk.tier.noteApplied(this.#applied);
      this.#disk = disk;
      log.info({}, 'the disk tier is in use now, and starts empty');
    } catch (thrown) {
      log.debug(errorFields(thrown), 'the disk tier still cannot be used');
      if (!this.#closed) this.#failed(thrown);
    }
  }
}
