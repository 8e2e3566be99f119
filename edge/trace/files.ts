/**
 * The files of a trace: takes bytes without waiting, writes them in the
 * background, begins a new file when one is full, and removes the oldest.
 *
 * Promises: no call waits for the disk. What waits is bounded; what finds no
 * room, or cannot be written, is dropped and counted. A file ends with a whole
 * record, unless its last write failed half-way: readers leave that rest out.
 */
import { type FileHandle, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import { errorFields, type Log } from '../../src/log.js';

/** The part of node's files that a trace needs. */
export interface TraceDisk {
  create(path: string): Promise<Pick<FileHandle, 'write' | 'close'>>;
  list(folder: string): Promise<readonly string[]>;
  remove(path: string): Promise<void>;
}

export const nodeDisk: TraceDisk = {
  create: (path) => open(path, 'wx', 0o600),
  list: (folder) => readdir(folder),
  remove: (path) => rm(path, { force: true }),
};

export interface TraceFilesDeps {
  readonly folder: string;
  /** Of the edge. Files of other edges in the folder are left alone. */
  readonly name: string;
  readonly header: Buffer;
  readonly fileSizeBytes: number;
  readonly filesMax: number;
  readonly waitingMaxBytes: number;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Log;
  readonly disk: TraceDisk;
  /** So many bytes could not be written. */
  onLost(bytes: number): void;
}

export const TRACE_SUFFIX = '.trace';

interface OpenFile {
  readonly handle: Pick<FileHandle, 'write' | 'close'>;
  bytes: number;
}

export class TraceFiles {
  readonly #deps: TraceFilesDeps;
  readonly #own: RegExp;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #file: OpenFile | undefined;
  #begun = 0;
  #failing = false;
  #writing: Promise<void> | undefined;

  constructor(deps: TraceFilesDeps) {
    this.#deps = deps;
    this.#own = new RegExp(`^${deps.name.replaceAll('.', '\\.')}\\.\\d{8}T\\d{6}\\.\\d{3}Z\\.\\d{6}\\${TRACE_SUFFIX}$`);
  }

  /** Takes over the bytes. False: too many wait, and these are dropped. */
  write(bytes: Buffer): boolean {
    if (this.#waitingBytes + bytes.length > this.#deps.waitingMaxBytes) return false;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
    return true;
  }

  /** Resolves when nothing waits any more. */
  async written(): Promise<void> {
    await this.#writing;
  }

  async close(): Promise<void> {
    await this.written();
    await this.#end();
  }

  /** Never rejects. */
  async #writeAll(): Promise<void> {
    for (let bytes = this.#waiting.shift(); bytes !== undefined; bytes = this.#waiting.shift()) {
      try {
        await this.#append(bytes);
        this.#failing = false;
      } catch (thrown) {
        this.#deps.onLost(bytes.length);
        if (!this.#failing) this.#deps.log.warn(errorFields(thrown), 'the trace cannot be written; requests go on');
        this.#failing = true;
        // A part may have been written: the next records begin a file of their own.
        await this.#end().catch(() => undefined);
      }
      this.#waitingBytes -= bytes.length;
    }
  }

  async #append(bytes: Buffer): Promise<void> {
    const { fileSizeBytes } = this.#deps;
    if (this.#file !== undefined && this.#file.bytes + bytes.length > fileSizeBytes) await this.#end();
    this.#file ??= await this.#begin();
    await writeWhole(this.#file.handle, bytes);
    this.#file.bytes += bytes.length;
  }

  async #begin(): Promise<OpenFile> {
    const { folder, name, header, clock, disk } = this.#deps;
    await this.#removeOldest();
    this.#begun += 1;
    const begunAt = new Date(clock.now()).toISOString().replace(/[-:]/g, '');
    const path = join(folder, `${name}.${begunAt}.${String(this.#begun).padStart(6, '0')}${TRACE_SUFFIX}`);
    const handle = await disk.create(path);
    try {
      await writeWhole(handle, header);
    } catch (thrown) {
      await handle.close().catch(() => undefined);
      throw thrown;
    }
    return { handle, bytes: header.length };
  }

  /** Leaves room for the file that begins. */
  async #removeOldest(): Promise<void> {
    const { folder, filesMax, disk } = this.#deps;
    const own = (await disk.list(folder)).filter((each) => this.#own.test(each)).sort();
    for (const name of own.slice(0, Math.max(0, own.length - filesMax + 1))) await disk.remove(join(folder, name));
  }

  async #end(): Promise<void> {
    const ended = this.#file;
    this.#file = undefined;
    await ended?.handle.close();
  }
}

async function writeWhole(handle: Pick<FileHandle, 'write'>, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten;
}
