/**
 * Reads those bytes of a file that tell what it is. A reader is a generator: it
 * yields the span of bytes that it needs next, and is given these bytes. One reader
 * so serves bytes in memory and files of any size.
 *
 * Promises: the number of spans is limited, and so is what is read from a file for
 * each of them. A span beyond the end of the file is given shortened, or empty.
 */
import { type FileHandle, open } from 'node:fs/promises';

export interface Span {
  readonly at: number;
  readonly length: number;
}

/** Yields spans; returns what was found, or undefined. */
export type Reading<T> = Generator<Span, T | undefined, Buffer>;

/** A file, with its first bytes in memory. */
export interface ReadableFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly head: Buffer;
}

/** More spans than any intact file needs. */
const SPANS_MAX = 65_536;
/** The longest span that is read from a file. */
const SPAN_MAX_BYTES = 1_024 * 1_024;
/** Most spans are short and near each other, so that one read serves several. */
const AHEAD_BYTES = 64 * 1_024;

export function readBytes<T>(reading: Reading<T>, bytes: Buffer): T | undefined {
  let step = reading.next();
  for (let spans = 0; step.done !== true && spans < SPANS_MAX; spans += 1) {
    const { at, length } = step.value;
    step = reading.next(bytes.subarray(at, at + length));
  }
  return step.done === true ? step.value : undefined;
}

export interface ReadingLimits {
  readonly spansMax: number;
  readonly spanMaxBytes: number;
}

export async function readFromFile<T>(
  reading: Reading<T>,
  file: ReadableFile,
  { spansMax, spanMaxBytes }: ReadingLimits = { spansMax: SPANS_MAX, spanMaxBytes: SPAN_MAX_BYTES },
  signal?: AbortSignal,
): Promise<T | undefined> {
  const bytes = new FileBytes(file);
  try {
    let step = reading.next();
    for (let spans = 0; step.done !== true && spans < spansMax; spans += 1) {
      signal?.throwIfAborted();
      const { at, length } = step.value;
      step = reading.next(await bytes.take({ at, length: Math.min(length, spanMaxBytes) }));
    }
    return step.done === true ? step.value : undefined;
  } finally {
    await bytes.close();
  }
}

/** Bytes of a file. It is opened when bytes behind its head are asked for. */
class FileBytes {
  readonly #file: ReadableFile;
  #handle: FileHandle | undefined;
  #aheadAt = 0;
  #ahead: Buffer;

  constructor(file: ReadableFile) {
    this.#file = file;
    this.#ahead = file.head;
  }

  async take({ at, length }: Span): Promise<Buffer> {
    const { path, sizeBytes, head } = this.#file;
    const wanted = Math.min(length, sizeBytes - at);
    if (wanted <= 0) return Buffer.alloc(0);
    if (at + wanted <= head.length) return head.subarray(at, at + wanted);
    const start = at - this.#aheadAt;
    if (start >= 0 && start + wanted <= this.#ahead.length) return this.#ahead.subarray(start, start + wanted);
    this.#handle ??= await open(path, 'r');
    const buffer = Buffer.allocUnsafe(Math.max(wanted, AHEAD_BYTES));
    const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, at);
    this.#ahead = buffer.subarray(0, bytesRead);
    this.#aheadAt = at;
    return this.#ahead.subarray(0, wanted);
  }

  async close(): Promise<void> {
    await this.#handle?.close();
  }
}
