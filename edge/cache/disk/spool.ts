/**
 * Spool files: bodies are written to them while they arrive. They have a folder
 * of their own, which is emptied at every start. A spool file is read while it is
 * written. Its path may be renamed or removed while readers still use the open
 * file.
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

  /** Removes the files of earlier runs. */
  async open(): Promise<void> {
    await this.#files.remove(this.#folder);
    await this.#files.makeFolder(this.#folder);
  }

  pathOf(name: string): string {
    return join(this.#folder, name);
  }

  /**
   * Undefined if there is no room for so many bytes. `sizeBytes` null: room is reserved as they arrive,
   * up to `maxBytes`.
   */
  create(sizeBytes: number | null, maxBytes: number): SpoolFile | undefined {
    const reservedBytes = fileBytes(sizeBytes ?? 0);
    return this.#room.tryReserve(reservedBytes) ? this.#create(reservedBytes, maxBytes) : undefined;
  }

  /** The same for a body that can wait for files that are being removed. */
  async createWhenRoom(sizeBytes: number): Promise<SpoolFile | undefined> {
    const reservedBytes = fileBytes(sizeBytes);
    return (await this.#room.reserve(reservedBytes)) ? this.#create(reservedBytes, sizeBytes) : undefined;
  }

  #create(reservedBytes: number, maxBytes: number): SpoolFile {
    return new SpoolFile(this.pathOf(this.#randomName()), this.#files, this.#room, reservedBytes, maxBytes);
  }
}

/** `append` rejects with it when the room is used up. */
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
  #appending: Promise<void> = Promise.resolve();

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

  /** One call at a time. Rejects with NoRoom or with the error of the file system. */
  append(block: Buffer): Promise<void> {
    const appended = this.#append(block);
    this.#appending = appended.catch(() => undefined);
    return appended;
  }

  async read(into: Buffer, at: number): Promise<number> {
    return this.#file === undefined ? 0 : this.#file.read(into, at);
  }

  /** Call it when nobody reads or writes any more. The path stays. */
  async close(): Promise<void> {
    await this.#appending;
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  /** The path has been renamed: the file is the content of an entry now. */
  becameContent(): void {
    this.#moved = true;
    this.#room.stored(this.#reservedBytes);
    this.#reservedBytes = 0;
  }

  /** Removes the file, unless it became a content. Its readers may finish. */
  async discard(): Promise<void> {
    await this.#appending;
    if (this.#moved) return;
    try {
      await this.#files.remove(this.path);
    } finally {
      this.#room.release(this.#reservedBytes);
      this.#reservedBytes = 0;
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
