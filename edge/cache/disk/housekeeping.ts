/**
 * The background work of the disk tier: recovery, sweep and scrub after a start,
 * and at short intervals the free-disk floor and whatever has to be tried again.
 */
import type { Clock, Timer } from '../../../src/clock.js';
import { errorFields, type Log } from '../../../src/log.js';
import type { CacheConfig } from '../config.js';
import type { ContentRefs } from './content-refs.js';
import type { ContentStore } from './content-store.js';
import type { DiskIndex } from './disk-index.js';
import type { DiskEntries } from './entries.js';
import type { DiskFiles } from './files.js';
import type { IndexGuard } from './index-guard.js';
import type { DiskReader } from './reader.js';
import { recover, sweep } from './recovery.js';
import type { DiskRoom } from './room.js';
import { scrub } from './scrub.js';

const INTERVAL_MS = 5_000;
/** Below the free-disk floor so many bytes are evicted between two turns of the event loop. */
const SHRINK_STEP_BYTES = 8_388_608;

export interface HousekeepingDeps {
  readonly config: CacheConfig;
  readonly clock: Clock;
  readonly log: Log;
  readonly files: DiskFiles;
  readonly room: DiskRoom;
  readonly index: DiskIndex;
  readonly guard: IndexGuard;
  readonly entries: DiskEntries;
  readonly contentStore: ContentStore;
  readonly contentRefs: ContentRefs;
  readonly reader: DiskReader;
  onError(thrown: unknown): void;
}

export class Housekeeping {
  readonly #deps: HousekeepingDeps;
  readonly #stopping = new AbortController();
  #timer: Timer | undefined;
  #tending: Promise<void> | undefined;
  #shrinking = false;

  constructor(deps: HousekeepingDeps) {
    this.#deps = deps;
  }

  async start(): Promise<void> {
    await this.observeFree();
    this.#schedule();
    this.#tending = this.#tend().catch((thrown: unknown) =>
      this.#deps.log.warn(errorFields(thrown), 'background work of the disk tier failed'),
    );
  }

  async stop(): Promise<void> {
    this.#timer?.cancel();
    this.#stopping.abort();
    await this.#tending;
  }

  #schedule(): void {
    const { clock, contentRefs, index } = this.#deps;
    this.#timer = clock.after(INTERVAL_MS, () => {
      contentRefs.agePins();
      index.retry();
      void this.observeFree();
      this.#schedule();
    });
  }

  async #tend(): Promise<void> {
    const { config, clock, log, index, guard, room, entries, contentStore, contentRefs, reader } = this.#deps;
    const { signal } = this.#stopping;
    if (!(await recover(index, entries, signal))) return;
    room.endRecovery();
    await guard.proven();
    log.info({ entries: entries.recoveredEntries }, 'the disk tier has read back all its entries');
    const removed = await sweep(index, contentStore, contentRefs, signal);
    if (removed > 0) log.info({ removed }, 'removed content files without an entry');
    const bytesPerSecond = config.disk.verifyPerSecondBytes;
    if (bytesPerSecond > 0) await scrub({ index, entries, reader, clock, bytesPerSecond, signal });
  }

  /** Looks how much the file system has left, and evicts entries if that is too little. */
  async observeFree(): Promise<void> {
    const { files, config, room } = this.#deps;
    try {
      room.observeFree(await files.freeBytes(config.folder));
      await this.#shrink();
    } catch (thrown) {
      this.#deps.onError(thrown);
    }
  }

  /** Below the free-disk floor: evicts, in the policy's order, as many bytes as are missing. */
  async #shrink(): Promise<void> {
    const { entries, log, room } = this.#deps;
    const shortBytes = Math.min(room.shortBytes, entries.usedBytes);
    if (shortBytes === 0 || this.#shrinking) return;
    this.#shrinking = true;
    log.warn({ shortBytes }, 'the file system has less free space than min_free: the disk tier evicts entries');
    const toBytes = entries.usedBytes - shortBytes;
    while (entries.usedBytes > toBytes && !this.#stopping.signal.aborted) {
      entries.shrink(Math.max(toBytes, entries.usedBytes - SHRINK_STEP_BYTES));
      await new Promise(setImmediate);
    }
    this.#shrinking = false;
  }
}
