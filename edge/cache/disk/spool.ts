/**
 * Files that bodies pass through on their way to disk, in a folder of their own
 * that is emptied at every start. A spool is read while it is written. Its path
 * and its open file are two things: the path may be renamed into the content or
 * removed while readers still use the file.
 */
import { join } from 'node:path';
import type { Spool } from '../growing-body.js';
import type { DiskFiles, OpenFile } from './files.js';
import { fileBytes } from './record.js';
import type { DiskRoom } from './room.js';

export class SpoolFolder {
  readonly #folder: string;
  readonly #files: DiskFiles;
  readonly #room: DiskRoom;
  readonly #randomName: () => string;

  constructor(folder: string, files: DiskFiles, room: DiskRoom, randomName: () => string) {
    this.#folder = folder;
    this.#files = files;
    this.#room = room;
    this.#randomName = randomName;
  }

  /** Removes what an earlier run left. */
  async open(): Promise<void> {
    await this.#files.remove(this.#folder);
    await this.#files.makeFolder(this.#folder);
  }

  pathOf(name: string): string {
    return join(this.#folder, name);
  }

  /** Undefined where there is no room for so many bytes; null: room is taken as they come, up to `maxBytes`. */
  create(sizeBytes: number | null, maxBytes: number): SpoolFile | undefined {
    const reservedBytes = fileBytes(sizeBytes ?? 0);
    return this.#room.tryReserve(reservedBytes) ? this.#create(reservedBytes, maxBytes) : undefined;
  }

  /** The same for a body that can wait until what is being removed has made room. */
  async createInTime(sizeBytes: number): Promise<SpoolFile | undefined> {
    const reservedBytes = fileBytes(sizeBytes);
    return (await this.#room.reserve(reservedBytes)) ? this.#create(reservedBytes, sizeBytes) : undefined;
  }

  #create(reservedBytes: number, maxBytes: number): SpoolFile {
    return new SpoolFile(this.pathOf(this.#randomName()), this.#files, this.#room, reservedBytes, maxBytes);
  }
}

/** What an append fails with where the room is used up. */
export class NoRoom extends Error {
  override readonly name = 'NoRoom';
}

export class SpoolFile implements Spool {
  readonly path: string;
  readonly #files: DiskFiles;
  readonly #room: DiskRoom;
  readonly #maxBytes: number;
  #file: OpenFile | undefined;
  #writtenBytes = 0;
  #reservedBytes: number;
  #moved = false;
  #latest: Promise<void> = Promise.resolve();

  constructor(path: string, files: DiskFiles, room: DiskRoom, reservedBytes: number, maxBytes: number) {
    this.path = path;
    this.#files = files;
    this.#room = room;
    this.#reservedBytes = reservedBytes;
    this.#maxBytes = maxBytes;
  }

  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** One at a time; rejects with NoRoom, or with what the file system said. */
  append(block: Buffer): Promise<void> {
    const appended = this.#append(block);
    this.#latest = appended.catch(() => undefined);
    return appended;
  }

  async read(into: Buffer, at: number): Promise<number> {
    return this.#file === undefined ? 0 : this.#file.read(into, at);
  }

  /** Nobody reads or writes any more. The file stays where it is. */
  async close(): Promise<void> {
    await this.#latest;
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  /** The file has been moved away and is no spool any more; what it reserved stays reserved until `settle`. */
  moved(): void {
    this.#moved = true;
  }

  /** Its bytes count elsewhere now. */
  settle(): void {
    this.#room.release(this.#reservedBytes);
    this.#reservedBytes = 0;
  }

  /** Removes the file, unless it has been moved away; those who read it may finish. */
  async discard(): Promise<void> {
    await this.#latest;
    if (this.#moved) return;
    try {
      await this.#files.remove(this.path);
    } finally {
      this.settle();
    }
  }

  async #append(block: Buffer): Promise<void> {
    const grownBytes = this.#writtenBytes + block.length;
    if (grownBytes > this.#maxBytes) throw new NoRoom('the body is larger than the disk tier takes');
    const wanted = fileBytes(grownBytes) - this.#reservedBytes;
    if (wanted > 0) {
      if (!this.#room.tryReserve(wanted)) throw new NoRoom('no room is left for bodies that arrive');
      this.#reservedBytes += wanted;
    }
    this.#file ??= await this.#files.create(this.path);
    await this.#file.write(block, this.#writtenBytes);
    this.#writtenBytes += block.length;
  }
}
