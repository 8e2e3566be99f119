/** Metadata and local blobs in one folder, filled as by uploads, but without requests. */
import { createHash, randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { abandon } from '../../../origin/blobs/abandon.js';
import { type BlobKey, type BlobStore, mediaKey, type Place, thumbKey } from '../../../origin/blobs/blob-store.js';
import { openLocalStore } from '../../../origin/blobs/local.js';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaStore } from '../../../origin/meta/lmdb.js';
import { type Media, NO_FACTS, type ThumbMade } from '../../../origin/meta/media.js';
import type { MetaStore, NewMedia } from '../../../origin/meta/store.js';
import { createIdSource, type Sha256 } from '../../../src/ids.js';
import type { ManualClock } from '../clock.js';
import { configured, type TestDeps } from '../deps.js';
import { PLACE } from './keys.js';

export interface Stores {
  readonly meta: MetaStore;
  readonly blobs: BlobStore;
  readonly clock: ManualClock;
  /** Intends, stages, adopts and commits. Without a place all are stored in one, which is only right where nothing sweeps. */
  put(bytes: Uint8Array | string, given?: Partial<NewMedia>, place?: Place): Promise<Media>;
  /** Stores bytes under a key without recording them. */
  store(key: BlobKey, bytes: Uint8Array | string): Promise<void>;
  /** Gives a blob one thumbnail of these bytes. */
  thumb(source: Sha256, bytes: string, place?: Place): Promise<BlobKey>;
  /** Closes the metadata store and opens it again. */
  reopen(): Promise<void>;
  close(): Promise<void>;
}

export function sha256Of(bytes: Uint8Array | string): Sha256 {
  return createHash('sha256').update(bytes).digest('hex') as Sha256;
}

export async function openStores(folder: string, clock: ManualClock, { log }: Pick<TestDeps, 'log'>): Promise<Stores> {
  const openMeta = (): Promise<MetaStore> =>
    openMetaStore(configured(metaSection, { folder: join(folder, 'meta'), reserveBytes: 65_536 }), {
      clock,
      log,
      randomName: randomUUID,
    });
  const blobs = await openLocalStore({ folder: join(folder, 'blobs'), stageFolder: join(folder, 'stage') });
  const ids = createIdSource(clock);
  let meta = await openMeta();

  async function store(key: BlobKey, bytes: Uint8Array | string): Promise<void> {
    const path = join(blobs.stageFolder, randomUUID());
    await writeFile(path, bytes);
    await blobs.adopt(path, key, { sizeBytes: Buffer.byteLength(bytes), sha256: sha256Of(bytes) });
  }

  return {
    get meta() {
      return meta;
    },
    blobs,
    clock,
    store,
    async put(bytes, given = {}, place = PLACE) {
      const sha256 = sha256Of(bytes);
      const key = mediaKey({ sha256, place });
      await meta.intend([key]);
      await store(key, bytes);
      const outcome = await meta.commitUpload({
        id: ids(),
        sha256,
        bytes: { kind: 'stored', place, damaged: null },
        sizeBytes: Buffer.byteLength(bytes),
        mime: 'text/plain',
        public: false,
        owner: 'ada',
        filename: null,
        expiresAt: null,
        picture: NO_FACTS,
        thumbs: { kind: 'none', reason: 'unsupported_type' },
        now: clock.now(),
        ...given,
      });
      await abandon({ meta, blobs }, [key]);
      if (!('media' in outcome)) throw new Error(`the upload was ${outcome.kind}`);
      return outcome.media;
    },
    async thumb(source, bytes, place = PLACE) {
      const made: ThumbMade = {
        variant: 'small',
        format: 'webp',
        sha256: sha256Of(bytes),
        place,
        sizeBytes: Buffer.byteLength(bytes),
        width: 1,
        height: 1,
        animated: false,
      };
      const key = thumbKey(source, made);
      await meta.intend([key]);
      await store(key, bytes);
      await meta.finishThumbs(source, { kind: 'made', made: [made], picture: NO_FACTS });
      await abandon({ meta, blobs }, [key]);
      return key;
    },
    async reopen() {
      await meta.close();
      meta = await openMeta();
    },
    async close() {
      await meta.close();
      await blobs.close();
    },
  };
}
