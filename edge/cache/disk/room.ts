/**
 * How many more bytes may be written. The cache folder contains three kinds of
 * bytes: those of entries, those reserved for bodies that arrive, and those of
 * files that are being removed. Their sum never exceeds the tier's size. Below
 * the free-disk floor nothing is reserved, and entries have to be evicted.
 */

export interface RoomLimits {
  /** The limit for all bytes in the folder. */
  readonly sizeBytes: number;
  /** The part of it that may be reserved at the same time. */
  readonly fillRoomBytes: number;
  /** The free-disk floor: what the file system must have left. */
  readonly minFreeBytes: number;
}

export class DiskRoom {
  readonly #limits: RoomLimits;
  readonly #entriesBytes: () => number;
  readonly #onShort: () => void;
  #recovered = false;
  #reservedBytes = 0;
  /** Reserved bytes that have become entries before recovery ended. */
  #storedBytes = 0;
  #removingBytes = 0;
  #freeBytes = Number.POSITIVE_INFINITY;
  #waiting: (() => void)[] = [];

  /** `entriesBytes`: the bytes of all entries that the policy knows. `onShort`: somebody waits for removals. */
  constructor(limits: RoomLimits, entriesBytes: () => number, onShort: () => void = () => undefined) {
    this.#limits = limits;
    this.#entriesBytes = entriesBytes;
    this.#onShort = onShort;
  }

  tryReserve(bytes: number): boolean {
    const { sizeBytes, fillRoomBytes, minFreeBytes } = this.#limits;
    if (this.#reservedBytes + bytes > fillRoomBytes) return false;
    if (this.#entriesBytes() + this.#reservedBytes + this.#removingBytes + bytes > sizeBytes) return false;
    if (this.#freeBytes - bytes < minFreeBytes) return false;
    this.#reservedBytes += bytes;
    this.#freeBytes -= bytes;
    return true;
  }

  /** Whether `reserve` may succeed as things are. */
  mayHave(bytes: number): boolean {
    const { fillRoomBytes, minFreeBytes } = this.#limits;
    return bytes <= fillRoomBytes && this.#freeBytes - bytes >= minFreeBytes;
  }

  /** Like tryReserve, but waits for files that are being removed. */
  async reserve(bytes: number): Promise<boolean> {
    while (!this.tryReserve(bytes)) {
      if (this.#removingBytes === 0 || bytes > this.#limits.fillRoomBytes || this.#belowFloor) return false;
      this.#onShort();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    return true;
  }

  release(bytes: number): void {
    this.#reservedBytes -= bytes;
  }

  /**
   * Reserved bytes belong to an entry now. Until recovery ends, the policy counts too little, so they
   * stay reserved too.
   */
  stored(bytes: number): void {
    if (this.#recovered) this.release(bytes);
    else this.#storedBytes += bytes;
  }

  /** The policy knows all entries now. */
  endRecovery(): void {
    this.#recovered = true;
    this.release(this.#storedBytes);
    this.#storedBytes = 0;
  }

  /** A file of this size is going to be removed. */
  removing(bytes: number): void {
    this.#removingBytes += bytes;
  }

  /** It has been removed. */
  removed(bytes: number): void {
    this.#removingBytes -= bytes;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }

  /** The free space that the file system has reported. */
  observeFree(bytes: number): void {
    this.#freeBytes = bytes;
  }

  /** What has to be evicted to reach the free-disk floor, beside what is being removed already. */
  get shortBytes(): number {
    return Math.max(0, this.#limits.minFreeBytes - this.#freeBytes - this.#removingBytes);
  }

  get #belowFloor(): boolean {
    return this.#freeBytes < this.#limits.minFreeBytes;
  }
}
