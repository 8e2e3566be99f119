/**
 * What came of an import, in a folder: `map.jsonl` has a line for each entry that is stored, and `refused.jsonl` one for
 * each that the last run did not import. The map is also what a run that was stopped goes on from: an entry is done once its
 * line is on the disk. Lines are synced in batches, several entries at once.
 *
 * An entry that was stored, and whose line was lost, is sent again: the service finds the same bytes and answers the same id.
 */
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../src/errors.js';
import { createFile, makeFolder } from '../../src/private-folder.js';
import { syncPath } from '../blobs/files.js';
import { lockWriter } from '../meta/lmdb/writer-lock.js';
import type { Refusal } from './entry.js';

export interface Mapped {
  readonly id: string;
  readonly media: string;
  readonly url: string;
  readonly sha256: string;
  readonly owner: string;
  readonly path: string;
  readonly created: string | null;
  /** The bytes were there already, with the same visibility. */
  readonly duplicate: boolean;
}

export interface Refused extends Refusal {
  readonly id: string;
  readonly path: string;
}

export interface Results {
  readonly mapPath: string;
  readonly refusedPath: string;
  isDone(id: string): boolean;
  /** How many entries are done. */
  readonly done: number;
  /** Resolves once the line is on the disk. */
  store(mapped: Mapped): Promise<void>;
  refuse(refused: Refused): Promise<void>;
  /** May be called twice. */
  close(): Promise<void>;
}

const VERSION = 1;
const HEAD = JSON.stringify({ format: 'media-service import', version: VERSION });
const MAP = 'map.jsonl';

/** Makes the folder if there is none. Rejects while another process writes to it, and if its map is of something else. */
export async function openResults(folder: string, randomName: () => string): Promise<Results> {
  await makeFolder(folder);
  const lock = await lockWriter(folder, randomName, `the results of an import in ${folder}`);
  try {
    const mapPath = join(folder, MAP);
    const refusedPath = join(folder, 'refused.jsonl');
    const done = await readMap(mapPath);
    await rm(refusedPath, { force: true });
    await createFile(refusedPath, '');
    const [map, refused] = [await openLines(mapPath), await openLines(refusedPath)];
    return resultsOf({ mapPath, refusedPath, done, map, refused, release: () => lock.release() });
  } catch (thrown) {
    await lock.release();
    throw thrown;
  }
}

/** The ids that are done according to the map in a folder; for looking only. */
export async function readDone(folder: string): Promise<ReadonlySet<string>> {
  return (await readIds(join(folder, MAP))).ids;
}

interface Opened {
  readonly mapPath: string;
  readonly refusedPath: string;
  readonly done: Set<string>;
  readonly map: Lines;
  readonly refused: Lines;
  release(): Promise<void>;
}

function resultsOf(opened: Opened): Results {
  const { mapPath, refusedPath, done, map, refused } = opened;
  let closing: Promise<void> | undefined;
  return {
    mapPath,
    refusedPath,
    isDone: (id) => done.has(id),
    get done() {
      return done.size;
    },
    async store(mapped) {
      await map.add(mapped);
      done.add(mapped.id);
    },
    refuse: (line) => refused.add(line),
    close() {
      closing ??= (async () => {
        await map.close();
        await refused.close();
        await opened.release();
      })();
      return closing;
    },
  };
}

/** The ids of the map, of which a line that was not written to its end is cut off. */
async function readMap(path: string): Promise<Set<string>> {
  await createFile(path, `${HEAD}\n`);
  const { ids, wholeBytes, sizeBytes } = await readIds(path);
  if (wholeBytes < sizeBytes) {
    await truncate(path, wholeBytes);
    await syncPath(path);
  }
  return ids;
}

async function readIds(
  path: string,
): Promise<{ readonly ids: Set<string>; readonly wholeBytes: number; readonly sizeBytes: number }> {
  const ids = new Set<string>();
  let [wholeBytes, sizeBytes, head] = [0, 0, true];
  let rest: Buffer = Buffer.alloc(0);
  try {
    for await (const chunk of createReadStream(path)) {
      sizeBytes += (chunk as Buffer).length;
      rest = rest.length === 0 ? (chunk as Buffer) : Buffer.concat([rest, chunk as Buffer]);
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        const line = rest.toString('utf8', 0, end);
        rest = rest.subarray(end + 1);
        wholeBytes += end + 1;
        if (!head) ids.add(idIn(line, path));
        else if (line !== HEAD)
          throw new Error(`${path} is no map of an import by this release; give another --results`);
        head = false;
      }
    }
  } catch (thrown) {
    if (errorCode(thrown) !== 'ENOENT') throw thrown;
  }
  return { ids, wholeBytes, sizeBytes };
}

function idIn(line: string, path: string): string {
  try {
    const { id } = JSON.parse(line) as { readonly id?: unknown };
    if (typeof id === 'string') return id;
  } catch {
    // Said below.
  }
  throw new Error(`${path} has a line that is damaged: ${line.slice(0, 80)}`);
}

interface Lines {
  /** Resolves once the line is on the disk. */
  add(line: object): Promise<void>;
  close(): Promise<void>;
}

/**
 * Lines at the end of a file. Those that are added during a sync are written together after it. After a failure nothing
 * more is written: a line that is cut must be the last one.
 */
async function openLines(path: string): Promise<Lines> {
  const file = await open(path, 'a');
  let waiting: string[] = [];
  let latest: Promise<void> = Promise.resolve();
  let next: Promise<void> | undefined;

  async function writeAfter(before: Promise<void>): Promise<void> {
    await before;
    const text = waiting.join('');
    waiting = [];
    next = undefined;
    await writeText(file, text);
    await file.datasync();
  }

  return {
    add(line) {
      waiting.push(`${JSON.stringify(line)}\n`);
      if (next === undefined) {
        next = writeAfter(latest);
        latest = next;
      }
      return next;
    },
    async close() {
      await latest.catch(() => undefined);
      await file.close();
    },
  };
}

/** A write may write fewer bytes than given. */
async function writeText(file: FileHandle, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    written += (await file.write(bytes, written)).bytesWritten;
  }
}
