/**
 * Where the entries of an import come from: a folder, a list in a file, or a list on standard input.
 *
 * Of a folder every regular file is an entry, and its path is its id. In the media_store of Synapse that is what its users
 * uploaded, `local_content/aa/bb/rest`, with the id `aabbrest`. A list is JSON lines or CSV with a first line of names.
 * Order is always the same. Links are not followed.
 */
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { errorCode } from '../../src/errors.js';
import { readCsv } from './csv.js';
import { COLUMNS, type EntryDefaults, type Read, readEntry, refusedHere } from './entry.js';

export interface Source {
  /** Paths of entries are relative to it. */
  readonly folder: string;
  /** Each call reads from the beginning; standard input can be read once. */
  entries(): AsyncGenerator<Read>;
  /** How many entries there are; null where nobody can tell before. */
  count(signal: AbortSignal): Promise<number | null>;
}

export interface SourceWords {
  /** `-`: standard input. */
  readonly source: string;
  /** The folder of the paths in a list; undefined: that of the list, or the one where the command runs. */
  readonly base: string | undefined;
  readonly defaults: EntryDefaults;
}

export async function openSource({ source, base, defaults }: SourceWords): Promise<Source> {
  if (source === '-') {
    const entries = () => readList(process.stdin, defaults);
    return { folder: resolve(base ?? '.'), entries, count: () => Promise.resolve(null) };
  }
  const found = await stat(source).catch((thrown: unknown) => {
    if (errorCode(thrown) !== 'ENOENT') throw thrown;
    throw new Error(`there is no file or folder ${source}`);
  });
  if (found.isDirectory()) {
    const folder = resolve(source);
    return { folder, ...counted(() => walk(folder, defaults)) };
  }
  const folder = resolve(base ?? dirname(source));
  return { folder, ...counted(() => readList(createReadStream(source), defaults)) };
}

function counted(entries: () => AsyncGenerator<Read>): Pick<Source, 'entries' | 'count'> {
  return {
    entries,
    async count(signal) {
      let count = 0;
      for await (const _ of entries()) {
        signal.throwIfAborted();
        count += 1;
      }
      return count;
    },
  };
}

const SYNAPSE = 'local_content';

async function* walk(folder: string, defaults: EntryDefaults): AsyncGenerator<Read> {
  const isSynapse = (await readdir(folder, { withFileTypes: true })).some(
    (each) => each.name === SYNAPSE && each.isDirectory(),
  );
  for await (const path of filesBelow(folder, isSynapse ? SYNAPSE : '')) {
    const record = isSynapse
      ? { id: path.slice(SYNAPSE.length).replaceAll('/', '') }
      : { name: path.split('/').at(-1) };
    yield readEntry({ path, ...record }, path, defaults);
  }
}

async function* filesBelow(folder: string, below: string): AsyncGenerator<string> {
  const found = await readdir(join(folder, below), { withFileTypes: true });
  found.sort((one, other) => (one.name < other.name ? -1 : 1));
  for (const each of found) {
    const path = below === '' ? each.name : `${below}/${each.name}`;
    if (each.isDirectory()) yield* filesBelow(folder, path);
    else if (each.isFile()) yield path;
  }
}

/** JSON lines if the first character opens an object, otherwise CSV. */
export async function* readList(input: Readable, defaults: EntryDefaults): AsyncGenerator<Read> {
  const pieces = textOf(input);
  const first = await pieces.next();
  const start = first.done === true ? '' : first.value.replace(/^\ufeff/, '');
  const all = (async function* () {
    yield start;
    yield* pieces;
  })();
  if (start.trimStart().startsWith('{')) yield* readLines(all, defaults);
  else yield* readTable(all, defaults);
}

async function* textOf(input: Readable): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for await (const chunk of input) {
    const text = decoder.decode(chunk as Buffer, { stream: true });
    if (text !== '') yield text;
  }
}

async function* readLines(pieces: AsyncIterable<string>, defaults: EntryDefaults): AsyncGenerator<Read> {
  let line = 0;
  for await (const text of createInterface({ input: Readable.from(pieces), crlfDelay: Number.POSITIVE_INFINITY })) {
    line += 1;
    if (text.trim() === '') continue;
    const record = objectIn(text);
    if (record !== undefined) yield readEntry(record, `line ${line}`, defaults);
    else yield refusedHere(`line ${line}`, `line ${line}`, 'malformed', 'the line is no JSON object.');
  }
}

function objectIn(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

async function* readTable(pieces: AsyncIterable<string>, defaults: EntryDefaults): AsyncGenerator<Read> {
  let names: readonly string[] | undefined;
  let row = 0;
  for await (const fields of readCsv(pieces)) {
    row += 1;
    if (names === undefined) {
      names = fields.map((field) => field.trim().toLowerCase());
      if (!names.includes('path')) {
        throw new Error(
          `the first line of a CSV list names its columns, and one of them is path. Known: ${COLUMNS.join(', ')}.`,
        );
      }
      continue;
    }
    const [at, width] = [`row ${row}`, names.length];
    if (fields.length !== width)
      yield refusedHere(at, at, 'malformed', `there are ${fields.length} fields, not ${width}.`);
    else yield readEntry(Object.fromEntries(names.map((name, n) => [name, fields[n]])), at, defaults);
  }
}
