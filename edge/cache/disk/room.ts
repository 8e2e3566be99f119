/**
 * How much more may be written. Three kinds of bytes lie in the cache folder:
 * what the policy holds, what is reserved for bodies on their way, and what has
 * been given up but is not removed yet; together they stay within the tier's
 * size whatever happens at once. Below the free-disk floor nothing is reserved,
 * and what is held has to become less.
 */

export interface RoomLimits {
  /** All that may lie in the folder. */
  readonly sizeBytes: number;
  /** The part of it that may be reserved at once. */
  readonly fillRoomBytes: number;
  readonly minFreeBytes: number;
}

export class DiskRoom {
  readonly #limits: RoomLimits;
  readonly #heldBytes: () => number;
  #reservedBytes = 0;
  #removingBytes = 0;
  #freeBytes = Number.POSITIVE_INFINITY;
  #waiting: (() => void)[] = [];

  constructor(limits: RoomLimits, heldBytes: () => number) {
    this.#limits = limits;
    this.#heldBytes = heldBytes;
  }

  tryReserve(bytes: number): boolean {
    const { sizeBytes, fillRoomBytes, minFreeBytes } = this.#limits;
    if (this.#reservedBytes + bytes > fillRoomBytes) return false;
    if (this.#heldBytes() + this.#reservedBytes + this.#removingBytes + bytes > sizeBytes) return false;
    if (this.#freeBytes - bytes < minFreeBytes) return false;
    this.#reservedBytes += bytes;
    this.#freeBytes -= bytes;
    return true;
  }

  /** Like tryReserve, but waits while bytes that are being removed stand in the way. */
  async reserve(bytes: number): Promise<boolean> {
    while (!this.tryReserve(bytes)) {
      if (this.#removingBytes === 0 || bytes > this.#limits.fillRoomBytes || this.#belowFloor) return false;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    return true;
  }

  release(bytes: number): void {
    this.#reservedBytes -= bytes;
  }

  /** Bytes that nothing holds any more, but which still lie there. */
  removing(bytes: number): void {
    this.#removingBytes += bytes;
  }

  removed(bytes: number): void {
    this.#removingBytes -= bytes;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }

  /** What the file system was found to have left. */
  observeFree(bytes: number): void {
    this.#freeBytes = bytes;
  }

  /** What has to go so that the file system has as much left as it must, beside what is going already. */
  get shortBytes(): number {
    return Math.max(0, this.#limits.minFreeBytes - this.#freeBytes - this.#removingBytes);
  }

  /** Whether the file system has less left than it must. */
  get #belowFloor(): boolean {
    return this.#freeBytes < this.#limits.minFreeBytes;
  }
}
