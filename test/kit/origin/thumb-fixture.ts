/**
 * What a thumbnail engine needs: the real metadata store and the real local blob
 * store below one temporary folder, and engines with real children over them.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlobStore } from '../../../origin/blobs/blob-store.js';
import { blobsSection } from '../../../origin/blobs/config.js';
import { openBlobStore } from '../../../origin/blobs/open.js';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaStore } from '../../../origin/meta/lmdb.js';
import { type BlobRecord, NO_FACTS } from '../../../origin/meta/media.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { type ThumbsConfig, thumbsSection } from '../../../origin/thumbs/config.js';
import { openThumbs, type Thumbs } from '../../../origin/thumbs/engine.js';
import { CHILD_FOLDER_PREFIX } from '../../../origin/thumbs/render/child.js';
import { openLauncher } from '../../../origin/thumbs/render/launcher.js';
import { type Clock, systemClock } from '../../../src/clock.js';
import { createIdSource, type Sha256 } from '../../../src/ids.js';
import { createLog, type Log } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import { HANGS_AFTER_MS } from '../until.js';
import { IN_PLACE, mediaKey } from './keys.js';

/** A child that does what its picture says; see misbehaving-worker.ts. */
export const MISBEHAVING = new URL('./misbehaving-worker.js', import.meta.url);

const context = { env: () => undefined, file: () => undefined };

/** The configuration from a file with these keys. No process is kept ready unless they say so. */
export function thumbsConfig(given: Readonly<Record<string, unknown>> = {}): ThumbsConfig {
  return thumbsSection
    .schema(context)
    .parse({ ...given, children: { ready_min: 0, ...(given['children'] as object) } });
}

export interface ThumbFixture {
  readonly meta: MetaStore;
  readonly blobs: BlobStore;
  /** Stores bytes and their record, with a job unless `queued` is false. Returns their hash. */
  put(bytes: Buffer, mime: string, options?: { readonly queued: boolean }): Promise<Sha256>;
  open(config?: Readonly<Record<string, unknown>>, script?: URL): Promise<Thumbs>;
  /** The metrics of the engine that was opened last, as text. */
  metrics(): Promise<string>;
  /** Its child processes. */
  children(): Promise<{ readonly busy: number; readonly idle: number }>;
  record(sha256: Sha256): Promise<BlobRecord>;
  /** The record once its thumbnails are no longer pending. */
  finished(thumbs: Thumbs, sha256: Sha256): Promise<BlobRecord>;
  close(): Promise<void>;
}

export interface ThumbFixtureDeps {
  readonly clock?: Clock;
  readonly log?: Log;
}

export async function openThumbFixture(folder: string, given: ThumbFixtureDeps = {}): Promise<ThumbFixture> {
  const { clock = systemClock, log = createLog('test', { level: 'silent' }) } = given;
  const metaConfig = metaSection.schema(context).parse({ folder: join(folder, 'meta') });
  const blobsConfig = blobsSection
    .schema(context)
    .parse({ folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') });
  const meta = await openMetaStore(metaConfig, { clock, log, randomName: randomUUID });
  const blobs = await openBlobStore(blobsConfig, { clock, log });
  const nextId = createIdSource(clock);
  const engines: Thumbs[] = [];
  let metrics = createMetrics('test_');
  // The timers of the clock do not keep the process alive, but a test that waits for one must not end before it.
  const alive = setInterval(() => undefined, 60_000);

  async function record(sha256: Sha256): Promise<BlobRecord> {
    const found = await meta.findBlob(sha256);
    if (found === undefined) throw new Error('there is no such blob');
    return found;
  }

  return {
    meta,
    blobs,
    async put(bytes, mime, { queued } = { queued: true }) {
      const sha256 = createHash('sha256').update(bytes).digest('hex') as Sha256;
      const staged = join(blobs.stageFolder, randomUUID());
      await writeFile(staged, bytes);
      await meta.intend([mediaKey(sha256)]);
      await blobs.adopt(staged, mediaKey(sha256), { sizeBytes: bytes.length, sha256 });
      await meta.commitUpload({
        id: nextId(),
        sha256,
        bytes: IN_PLACE,
        sizeBytes: bytes.length,
        mime,
        public: true,
        owner: 'tester',
        filename: null,
        expiresAt: null,
        picture: NO_FACTS,
        thumbs: queued ? { kind: 'queue' } : { kind: 'none', reason: 'failed' },
        now: clock.now(),
      });
      return sha256;
    },
    async open(config = {}, script) {
      metrics = createMetrics('test_');
      const thumbs = await openThumbs({
        config: thumbsConfig(config),
        meta,
        blobs,
        launcher: await openLauncher(blobs.stageFolder, log),
        log,
        metrics,
        clock,
        ...(script !== undefined && { script }),
      });
      engines.push(thumbs);
      return thumbs;
    },
    metrics: async () => (await metrics.render()).text,
    async children() {
      const { text } = await metrics.render();
      const count = (state: string): number =>
        Number(new RegExp(`_children\\{state="${state}"\\} (\\d+)`).exec(text)?.[1]);
      return { busy: count('busy'), idle: count('idle') };
    },
    record,
    async finished(thumbs, sha256) {
      await thumbs.wait(sha256, HANGS_AFTER_MS, new AbortController().signal);
      return record(sha256);
    },
    async close() {
      for (const thumbs of engines) await thumbs.close();
      await meta.close();
      await blobs.close();
      clearInterval(alive);
    },
  };
}

/** What is on the stage, without the folders of child processes that wait for work. */
export async function jobFolders(stageFolder: string): Promise<readonly string[]> {
  return (await readdir(stageFolder)).filter((name) => !name.startsWith(CHILD_FOLDER_PREFIX)).sort();
}
