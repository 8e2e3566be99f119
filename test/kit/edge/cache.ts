/** Small caches for tests, in a folder of the test, over a file system that fails on demand. */
import { createCipheriv, createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { EdgeCache, Fill, FillOutcome, Tiers } from '../../../edge/cache/cache.js';
import { type CacheConfig, cacheSection } from '../../../edge/cache/config.js';
import { type DiskFiles, nodeFiles, type OpenFile } from '../../../edge/cache/disk/files.js';
import { openCache } from '../../../edge/cache/open.js';
import type { CacheKey, Entry } from '../../../edge/entry.js';
import { parseMediaId } from '../../../src/ids.js';
import { ManualClock } from '../clock.js';
import { configured, type TestDeps, testDeps } from '../deps.js';

export const BOTH: Tiers = { memory: true, disk: true };
export const NEVER = new AbortController().signal;

type Sections = { readonly [K in 'memory' | 'disk' | 'parts' | 'fill' | 'policies']?: Partial<CacheConfig[K]> };

/** Small limits, no background verification and no free-disk floor, unless given otherwise. */
export function cacheConfig(folder: string, sections: Sections = {}): CacheConfig {
  const defaults = configured(cacheSection);
  return {
    folder,
    memory: { ...defaults.memory, sizeBytes: 1_000_000, maxObjectBytes: 200_000, ...sections.memory },
    disk: {
      ...defaults.disk,
      sizeBytes: 40_000_000,
      fillRoomBytes: 20_000_000,
      minFreeBytes: 0,
      verifyPerSecondBytes: 0,
      commitWithinMs: 0,
      readMemoryBytes: 0,
      ...sections.disk,
    },
    parts: { ...defaults.parts, ...sections.parts },
    fill: { ...defaults.fill, memoryBytes: 2_000_000, ...sections.fill },
    rememberedMax: defaults.rememberedMax,
    policies: { ...defaults.policies, ...sections.policies },
  };
}

export interface TestCache extends TestDeps {
  readonly cache: EdgeCache;
  readonly clock: ManualClock;
  readonly files: FaultyFiles;
}

export async function openTestCache(
  config: CacheConfig,
  files = new FaultyFiles(),
  clock = new ManualClock(),
  mayPromote: (entry: Entry) => boolean = () => true,
): Promise<TestCache> {
  const deps = testDeps();
  const cache = await openCache(config, { log: deps.log, metrics: deps.metrics, clock, files, mayPromote });
  return { ...deps, cache, clock, files };
}

/** An entry like those of the origin's media. */
export function entryOf(key: string, bytes: Buffer, changes: Partial<Entry> = {}): Entry {
  return {
    key: key as CacheKey,
    primaryKey: key,
    mediaId: null,
    status: 200,
    headers: [
      ['content-type', 'image/png'],
      ['etag', '"x"'],
    ],
    selectedBy: {},
    requestedAt: 1,
    receivedAt: 2,
    bornAt: 3,
    staleAt: 4,
    revalidateUntil: 5,
    errorUntil: 6,
    deleteAt: Number.POSITIVE_INFINITY,
    audience: 'authorised',
    sizeBytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    ...changes,
  };
}

export function mediaIdOf(number: number): NonNullable<Entry['mediaId']> {
  const id = parseMediaId(`01ARZ3NDEKTSV4RRFF${String(number).padStart(8, '0')}`);
  if (id === undefined) throw new Error('not a media id');
  return id;
}

export function keyOf(text: string): CacheKey {
  return text as CacheKey;
}

/** Bytes that differ from offset to offset and from seed to seed. */
export function bytesOf(sizeBytes: number, seed = 1): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
}

export async function writeAll(fill: Fill, bytes: Buffer, chunkBytes = 50_000): Promise<void> {
  for (let at = 0; at < bytes.length; at += chunkBytes) await fill.write(bytes.subarray(at, at + chunkBytes));
}

export async function put(cache: EdgeCache, entry: Entry, bytes: Buffer, tiers = BOTH): Promise<FillOutcome> {
  const fill = cache.fill(entry, tiers);
  await writeAll(fill, bytes);
  return fill.end();
}

/** Reads a stream to its end. Rejects with the error of the stream. */
export async function readAll(stream: Readable): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** Every file below a folder with its size. Files that are removed meanwhile are left out. */
export async function filesBelow(folder: string): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>();
  const names = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const name of names) {
    const path = join(name.parentPath, name.name);
    const size = name.isFile()
      ? await stat(path).then(
          ({ size }) => size,
          () => undefined,
        )
      : undefined;
    if (size !== undefined) found.set(path, size);
  }
  return found;
}

/** The real file system, which fails on demand. */
export class FaultyFiles implements DiskFiles {
  /** Called before each operation: may throw, to make it fail, or wait, to make it slow. */
  before: (verb: keyof DiskFiles | 'write' | 'read', path: string) => void | Promise<void> = () => undefined;
  free: number | undefined;
  /** The number of files that are open. */
  openFiles = 0;

  async create(path: string): Promise<OpenFile> {
    await this.before('create', path);
    return this.#watched(await nodeFiles.create(path), path);
  }

  async open(path: string): Promise<OpenFile> {
    await this.before('open', path);
    return this.#watched(await nodeFiles.open(path), path);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.before('rename', from);
    await nodeFiles.rename(from, to);
  }

  async remove(path: string): Promise<void> {
    await this.before('remove', path);
    await nodeFiles.remove(path);
  }

  async makeFolder(path: string): Promise<void> {
    await this.before('makeFolder', path);
    await nodeFiles.makeFolder(path);
  }

  names(folder: string): Promise<readonly string[]> {
    return nodeFiles.names(folder);
  }

  async freeBytes(folder: string): Promise<number> {
    return this.free ?? nodeFiles.freeBytes(folder);
  }

  #watched(file: OpenFile, path: string): OpenFile {
    this.openFiles += 1;
    return {
      write: async (block, at) => {
        await this.before('write', path);
        await file.write(block, at);
      },
      read: async (into, at) => {
        await this.before('read', path);
        return file.read(into, at);
      },
      sizeBytes: () => file.sizeBytes(),
      close: async () => {
        this.openFiles -= 1;
        await file.close();
      },
    };
  }
}

export function diskFull(): Error {
  return Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
}
