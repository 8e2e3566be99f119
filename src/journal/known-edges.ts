/**
 * A file with the edges that follow the journal, so that a process that was
 * restarted still counts those that have not come back. Its loss costs only that.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorCode } from '../errors.js';
import { errorFields, type Log } from '../log.js';
import type { KnownEdge } from './confirmations.js';
import { isSeq } from './entry.js';

export interface KnownEdges {
  /** As they were read at the start. */
  readonly known: readonly KnownEdge[];
  /** Starts to write them. Calls during a write share the next one. Failures are logged. */
  save(edges: () => readonly KnownEdge[]): void;
  /** Resolves when the last write has ended. */
  close(): Promise<void>;
}

const FORMAT = 1;

/** For a journal that remembers no edges over a restart. */
export const NO_KNOWN_EDGES: KnownEdges = { known: [], save: () => undefined, close: async () => undefined };

export async function openKnownEdges(path: string, log: Log): Promise<KnownEdges> {
  let next: (() => readonly KnownEdge[]) | undefined;
  let writing: Promise<void> | undefined;

  async function writeLatest(): Promise<void> {
    while (next !== undefined) {
      const edges = next();
      next = undefined;
      await replace(path, `${JSON.stringify({ v: FORMAT, edges })}\n`).catch((thrown: unknown) =>
        log.warn(errorFields(thrown), 'the list of known edges could not be written'),
      );
    }
  }

  return {
    known: await read(path, log),
    save(edges) {
      next = edges;
      writing ??= writeLatest().finally(() => {
        writing = undefined;
      });
    },
    close: async () => await writing,
  };
}

async function read(path: string, log: Log): Promise<readonly KnownEdge[]> {
  try {
    const { v, edges } = JSON.parse(await readFile(path, 'utf8')) as Readonly<Record<string, unknown>>;
    if (v !== FORMAT || !Array.isArray(edges)) throw new Error('it has another format');
    return edges.filter(isKnownEdge);
  } catch (thrown) {
    if (errorCode(thrown) !== 'ENOENT') log.warn(errorFields(thrown), 'the list of known edges could not be read');
    return [];
  }
}

function isKnownEdge(value: unknown): value is KnownEdge {
  if (typeof value !== 'object' || value === null) return false;
  const { edge, instance, behind } = value as Readonly<Record<string, unknown>>;
  return typeof edge === 'string' && typeof instance === 'string' && isSeq(behind);
}

/** Other processes may have been given the same path by mistake: each writes a file of its own before it replaces this one. */
async function replace(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const staged = `${path}.${randomUUID()}`;
  try {
    await writeFile(staged, text, { flag: 'wx' });
    await rename(staged, path);
  } catch (thrown) {
    await rm(staged, { force: true });
    throw thrown;
  }
}
