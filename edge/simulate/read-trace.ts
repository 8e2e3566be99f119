/**
 * Reads the files of a trace into columns, in the order in which the cache was
 * asked. Requests are recorded as they end, and several workers of an edge write
 * files of their own, so that the order has to be made again.
 */
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '../../src/errors.js';
import type { Outcome } from '../request.js';
import { TRACE_SUFFIX } from '../trace/files.js';
import {
  createRecordReader,
  decodeHeader,
  factsAt,
  HEADER_MAX_BYTES,
  isKeySampled,
  keyAt,
  RECORD_BYTES,
  type RecordReader,
  sentAt,
  stepAt,
  type TracedResponse,
  type TraceEvent,
  type TraceHeader,
  timeAt,
} from '../trace/format.js';

/** A response of a trace, and the number of its cache key. */
export interface TraceFacts extends TracedResponse {
  readonly object: number;
}

export interface TraceStep {
  readonly event: TraceEvent;
  readonly outcome: Outcome;
  readonly head: boolean;
  readonly demanded: boolean;
}

/** Events in order. Each column has one value for each event. */
export interface TraceColumns {
  readonly count: number;
  readonly times: Float64Array;
  readonly sentBytes: Float64Array;
  /** The place in `facts`. */
  readonly rows: Int32Array;
  /** The place in `steps`. */
  readonly kinds: Uint16Array;
  readonly facts: readonly TraceFacts[];
  readonly steps: readonly TraceStep[];
  /** The hash of each cache key. */
  readonly keys: readonly string[];
  readonly sampleShare: number;
  /** Records that name what this release does not know. */
  readonly skipped: number;
}

export interface Reading {
  /** Only keys of this share of all; 1: all that are recorded. */
  readonly sampleShare: number;
  readonly signal: AbortSignal;
  progress(readBytes: number, ofBytes: number): void;
}

/** `paths`: files, or folders of files. */
export async function readTraces(paths: readonly string[], reading: Reading): Promise<TraceColumns> {
  const files = (await Promise.all(paths.map(filesAt))).flat();
  if (files.length === 0) throw new Fault('malformed', `There is no file *${TRACE_SUFFIX} in ${paths.join(', ')}.`);
  const headers = await Promise.all(files.map(({ path }) => headerOf(path)));
  const [first] = headers;
  const other = headers.findIndex(({ header }) => header.keyId !== first?.header.keyId);
  if (other >= 0) {
    throw new Fault(
      'malformed',
      `${files[other]?.path} was recorded with another key than ${files[0]?.path}: only files of one edge can be simulated together.`,
    );
  }
  const sampleShare = Math.min(reading.sampleShare, ...headers.map(({ header }) => header.sampleShare));
  const columns = new Columns(sampleShare);
  const ofBytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let doneBytes = 0;
  for (const [index, { path, sizeBytes }] of files.entries()) {
    const found = headers[index];
    if (found === undefined) continue;
    await readFile(path, found, columns, reading.signal, (bytes) => reading.progress(doneBytes + bytes, ofBytes));
    doneBytes += sizeBytes;
  }
  return columns.inOrder();
}

interface TraceFile {
  readonly path: string;
  readonly sizeBytes: number;
}

async function filesAt(path: string): Promise<readonly TraceFile[]> {
  const found = await stat(path);
  if (!found.isDirectory()) return [{ path, sizeBytes: found.size }];
  const names = (await readdir(path)).filter((name) => name.endsWith(TRACE_SUFFIX)).sort();
  return (await Promise.all(names.map((name) => filesAt(join(path, name))))).flat();
}

interface FoundHeader {
  readonly header: TraceHeader;
  /** Where the first record begins. */
  readonly bytes: number;
}

async function headerOf(path: string): Promise<FoundHeader> {
  const file = await open(path);
  try {
    const start = Buffer.alloc(HEADER_MAX_BYTES);
    const { bytesRead } = await file.read(start, 0, start.length, 0);
    const read = decodeHeader(start.subarray(0, bytesRead));
    if (read.kind === 'unreadable') throw new Fault('malformed', `${path} cannot be read: ${read.why}.`);
    return read;
  } finally {
    await file.close();
  }
}

const RECORDS_AT_ONCE = 16_384;

async function readFile(
  path: string,
  { header, bytes: begin }: FoundHeader,
  columns: Columns,
  signal: AbortSignal,
  progress: (bytes: number) => void,
): Promise<void> {
  const numbers: FileNumbers = { reader: createRecordReader(header.lists), rows: new Map(), steps: new Map() };
  const chunk = Buffer.alloc(RECORDS_AT_ONCE * RECORD_BYTES);
  const file = await open(path);
  try {
    for (let at = begin; ; ) {
      signal.throwIfAborted();
      const filled = await fill(file, chunk, at);
      const records = Math.floor(filled / RECORD_BYTES);
      for (let each = 0; each < records; each += 1) columns.add(chunk, each * RECORD_BYTES, numbers);
      at += filled;
      progress(at);
      if (filled < chunk.length) return;
    }
  } finally {
    await file.close();
  }
}

/** The number of bytes; fewer than the chunk has at the end of the file alone. */
async function fill(file: FileHandle, chunk: Buffer, position: number): Promise<number> {
  let filled = 0;
  while (filled < chunk.length) {
    const { bytesRead } = await file.read(chunk, filled, chunk.length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}

const UNKNOWN = -1;

/** What the records of one file mean: the numbers of their rows and steps, by their stored form. */
interface FileNumbers {
  readonly reader: RecordReader;
  readonly rows: Map<string, number>;
  readonly steps: Map<number, number>;
}
const FIRST_CAPACITY = 65_536;

class Columns {
  readonly #sampleShare: number;
  readonly #objects = new Map<string, number>();
  readonly #keys: string[] = [];
  readonly #facts: TraceFacts[] = [];
  readonly #steps: TraceStep[] = [];
  #times = new Float64Array(FIRST_CAPACITY);
  #sentBytes = new Float64Array(FIRST_CAPACITY);
  #rows = new Int32Array(FIRST_CAPACITY);
  #kinds = new Uint16Array(FIRST_CAPACITY);
  #count = 0;
  #skipped = 0;

  constructor(sampleShare: number) {
    this.#sampleShare = sampleShare;
  }

  add(bytes: Buffer, at: number, file: FileNumbers): void {
    const step = this.#stepAt(bytes, at, file);
    const isEmptied = step !== UNKNOWN && this.#steps[step]?.event === 'emptied';
    if (!isEmptied && !isKeySampled(bytes, at, this.#sampleShare)) return;
    const row = this.#rowAt(bytes, at, file);
    if (step === UNKNOWN || row === UNKNOWN) {
      this.#skipped += 1;
      return;
    }
    if (this.#count === this.#times.length) this.#grow();
    this.#times[this.#count] = timeAt(bytes, at);
    this.#sentBytes[this.#count] = sentAt(bytes, at);
    this.#rows[this.#count] = row;
    this.#kinds[this.#count] = step;
    this.#count += 1;
  }

  inOrder(): TraceColumns {
    const times = this.#times.subarray(0, this.#count);
    const order = orderOf(times);
    const facts = { facts: this.#facts, steps: this.#steps, keys: this.#keys };
    const rest = { count: this.#count, sampleShare: this.#sampleShare, skipped: this.#skipped, ...facts };
    return {
      ...rest,
      times: order.map((at) => times[at] ?? 0),
      sentBytes: order.map((at) => this.#sentBytes[at] ?? 0),
      rows: Int32Array.from(order, (at) => this.#rows[at] ?? 0),
      kinds: Uint16Array.from(order, (at) => this.#kinds[at] ?? 0),
    };
  }

  #rowAt(bytes: Buffer, at: number, { reader, rows }: FileNumbers): number {
    const stored = factsAt(bytes, at);
    const known = rows.get(stored);
    if (known !== undefined) return known;
    const response = reader.responseAt(bytes, at);
    const row = response === undefined ? UNKNOWN : this.#facts.length;
    if (response !== undefined) this.#facts.push({ ...response, object: this.#objectOf(keyAt(bytes, at)) });
    rows.set(stored, row);
    return row;
  }

  #objectOf(key: string): number {
    const known = this.#objects.get(key);
    if (known !== undefined) return known;
    const object = this.#keys.push(key) - 1;
    this.#objects.set(key, object);
    return object;
  }

  #stepAt(bytes: Buffer, at: number, { reader, steps }: FileNumbers): number {
    const stored = stepAt(bytes, at);
    const known = steps.get(stored);
    if (known !== undefined) return known;
    const event = reader.eventAt(bytes, at);
    const request = reader.requestAt(bytes, at);
    const step = event === undefined || request === undefined ? UNKNOWN : this.#steps.length;
    if (event !== undefined && request !== undefined) this.#steps.push({ event, ...request });
    steps.set(stored, step);
    return step;
  }

  #grow(): void {
    const capacity = 2 * this.#times.length;
    this.#times = grown(new Float64Array(capacity), this.#times);
    this.#sentBytes = grown(new Float64Array(capacity), this.#sentBytes);
    this.#rows = grown(new Int32Array(capacity), this.#rows);
    this.#kinds = grown(new Uint16Array(capacity), this.#kinds);
  }
}

function grown<N extends Float64Array | Int32Array | Uint16Array>(larger: N, smaller: N): N {
  larger.set(smaller);
  return larger;
}

/** The places of the times, the earliest first; of equal times, as they were recorded. */
function orderOf(times: Float64Array): Float64Array {
  const order = Float64Array.from(times, (_, at) => at);
  const sorted = times.every((time, at) => at === 0 || time >= (times[at - 1] ?? 0));
  return sorted ? order : order.sort((one, other) => (times[one] ?? 0) - (times[other] ?? 0) || one - other);
}
