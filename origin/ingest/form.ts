/**
 * Reads multipart/form-data (RFC 7578) with one `file` and a few fields, in any
 * order. The caller takes the bytes of the file while the form is read; everything
 * else is small and limited. A form that exceeds a limit or is malformed is refused
 * as a whole.
 */
import { Dicer } from '@fastify/busboy';
import { Fault } from '../../src/errors.js';
import type { UploadConfig } from './config.js';
import { type ChunkSource, chunksOf } from './paced-body.js';
import { decodeText, readPartNames } from './part-names.js';

export interface FormFile {
  readonly filename: string | undefined;
  readonly contentType: string | undefined;
  readonly chunks: ChunkSource;
}

export interface Form<T> {
  readonly fields: ReadonlyMap<string, string>;
  readonly file: T;
}

/** Most header fields of a part. RFC 7578 4.8 defines three; clients add a few of their own. */
const HEADER_PAIRS_MAX = 16;

/** The boundary in a form's Content-Type; undefined if there is no valid one (RFC 2046 5.1.1). */
export function formBoundary(contentType: string): string | undefined {
  const [match, ...more] = contentType.matchAll(/;\s*boundary=(?:"([^"]{1,70})"|([^\s;",]{1,70}))/gi);
  // Another reader might take another one.
  return more.length > 0 ? undefined : (match?.[1] ?? match?.[2]);
}

export async function readForm<T>(
  source: ChunkSource,
  boundary: string,
  bounds: UploadConfig['form'],
  take: (file: FormFile) => Promise<T>,
): Promise<Form<T>> {
  // The parser cuts longer headers off and does not say so. One more is read of each, so that it is seen and refused.
  // Its types do not have maxHeaderSize.
  const options: Dicer.Config & { maxHeaderSize: number } = {
    boundary,
    maxHeaderPairs: HEADER_PAIRS_MAX + 1,
    maxHeaderSize: bounds.overheadMaxBytes + 1,
  };
  const overhead = new Overhead(bounds.overheadMaxBytes);
  const parser = new Dicer(options);
  const fields = new Map<string, string>();
  const parts: Dicer.PartStream[] = [];
  const tasks: Promise<void>[] = [];
  const ending = createEnding();
  let file: { readonly taken: T } | undefined;
  let files = 0;
  let headless = 0;

  parser.on('part', (part) => {
    headless += 1;
    parts.push(part);
    part.on('error', ending.fail);
    part.once('header', (header: object) => {
      headless -= 1;
      const task = acceptPart(part, header as RawHeader);
      // The task is awaited at the end. If it fails earlier, the form ends at once.
      task.catch(ending.fail);
      tasks.push(task);
    });
  });
  parser.on('error', () => ending.fail(malformed('The form ends before its last boundary.')));
  parser.once('finish', ending.finish);

  async function acceptPart(part: Dicer.PartStream, header: RawHeader): Promise<void> {
    requireSmall(header, bounds.headerMaxBytes);
    const named = readPartNames(header['content-disposition']?.[0]);
    if (named === undefined) throw malformed('A part of the form has no name.');
    const chunks = chunksOf(part);
    if (named.name === 'file') {
      files += 1;
      if (files > 1) throw malformed('The form has more than one file.');
      const contentType = header['content-type']?.[0];
      file = { taken: await take({ filename: named.filename, contentType, chunks: overhead.without(chunks) }) };
      return;
    }
    if (named.filename !== undefined) throw malformed('The file of the form must be called `file`.');
    if (fields.size >= bounds.fieldsMax) throw malformed(`The form has more than ${bounds.fieldsMax} fields.`);
    if (fields.has(named.name)) throw malformed(`The form has the field ${named.name} twice.`);
    fields.set(named.name, '');
    fields.set(named.name, await readField(chunks, bounds.fieldMaxBytes));
  }

  try {
    // To the end of the body, not only of the form: what follows counts as overhead, and belongs to a digest of the whole.
    await Promise.all([ending.done, pump(overhead.of(source), parser, ending.done)]);
    if (headless > 0) throw malformed('A part of the form has no header.');
    await Promise.all(tasks);
    overhead.require(0);
  } finally {
    // Ends the readers of parts that are not complete, and waits for them.
    parser.destroy();
    for (const part of parts) part.destroy();
    await Promise.allSettled(tasks);
  }
  if (file === undefined) throw malformed('The form has no part called `file`.');
  return { fields, file: file.taken };
}

/** Bytes of the file that the parser may have received and nobody has read yet. */
const UNREAD_MAX_BYTES = 262_144;

/** Counts everything but the file: what is received, less what is read of the file. */
class Overhead {
  readonly #maxBytes: number;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  of(form: ChunkSource): ChunkSource {
    return counted(form, (sizeBytes) => {
      this.#bytes += sizeBytes;
      this.require(UNREAD_MAX_BYTES);
    });
  }

  without(file: ChunkSource): ChunkSource {
    return counted(file, (sizeBytes) => {
      this.#bytes -= sizeBytes;
    });
  }

  /** Throws if it is too much. `unreadBytes`: what may still turn out to be of the file. */
  require(unreadBytes: number): void {
    if (this.#bytes - unreadBytes <= this.#maxBytes) return;
    throw new Fault('too_large', `A form has at most ${this.#maxBytes} bytes beside its file.`);
  }
}

function counted(source: ChunkSource, count: (sizeBytes: number) => void): ChunkSource {
  return {
    async next() {
      const chunk = await source.next();
      count(chunk?.length ?? 0);
      return chunk;
    },
  };
}

function requireSmall(header: RawHeader, maxBytes: number): void {
  const lines = Object.entries(header).flatMap(([name, values = []]) => values.map((value) => `${name}: ${value}\r\n`));
  if (lines.length > HEADER_PAIRS_MAX) throw malformed('A part of the form has too many header fields.');
  if (lines.join('').length > maxBytes)
    throw malformed(`A part of the form has a header of more than ${maxBytes} bytes.`);
}

/** Feeds the parser as fast as its parts are read. Bytes after the last boundary are read and dropped. */
async function pump(source: ChunkSource, parser: Dicer, done: Promise<void>): Promise<void> {
  for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) {
    if (!parser.writable || parser.write(chunk)) continue;
    await Promise.race([done, new Promise((resolve) => parser.once('drain', resolve))]);
  }
  if (parser.writable) parser.end();
}

interface Ending {
  readonly done: Promise<void>;
  readonly finish: () => void;
  readonly fail: (thrown: unknown) => void;
}

function createEnding(): Ending {
  let finish = (): void => undefined;
  let fail = (_thrown: unknown): void => undefined;
  const done = new Promise<void>((resolve, reject) => {
    finish = resolve;
    fail = reject;
  });
  return { done, finish, fail };
}

type RawHeader = Readonly<Record<string, readonly string[] | undefined>>;

async function readField(chunks: ChunkSource, sizeMaxBytes: number): Promise<string> {
  const gathered: Buffer[] = [];
  let bytes = 0;
  for (let chunk = await chunks.next(); chunk !== undefined; chunk = await chunks.next()) {
    bytes += chunk.length;
    if (bytes > sizeMaxBytes) throw malformed('A field of the form is too long.');
    gathered.push(chunk);
  }
  return decodeText(Buffer.concat(gathered));
}

function malformed(detail: string): Fault {
  return new Fault('malformed', detail);
}
