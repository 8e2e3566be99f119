/** Figures of the origin as a whole for Prometheus, read when it collects them. */
import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../src/clock.js';
import type { Metrics } from '../src/metrics.js';
import type { BlobStore } from './blobs/blob-store.js';
import type { MetaConfig } from './meta/config.js';
import { FILE_NAME } from './meta/lmdb.js';
import type { MetaStore } from './meta/store.js';

export interface FigureDeps {
  readonly meta: Pick<MetaStore, 'jobs' | 'freeBytes'>;
  readonly blobs: Pick<BlobStore, 'freeBytes' | 'stageFolder'>;
  readonly config: Pick<MetaConfig, 'adaptor' | 'folder' | 'dataMaxBytes'>;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

export interface Stored {
  readonly objects: number;
  readonly bytes: number;
}

/** Returns what to call with what a whole walk over the store has seen. */
export function registerFigures(deps: FigureDeps): (stored: Stored) => void {
  registerQueue(deps);
  registerDisk(deps);
  const { metrics } = deps;
  const objects = metrics.gauge(
    'stored_objects',
    'Originals and thumbnails in the storage, at the last whole walk over it.',
  );
  const bytes = metrics.gauge('stored_bytes', 'Their bytes.');
  return (stored) => {
    objects.set(stored.objects);
    bytes.set(stored.bytes);
  };
}

function registerQueue({ meta, clock, metrics }: FigureDeps): void {
  const jobs = metrics.gauge('queue_jobs', 'Thumbnail jobs, by state; dead: given up.', ['state']);
  const oldest = metrics.gauge('queue_oldest_seconds', 'How long the job that is due the longest has waited.');
  metrics.onCollect(async () => {
    const { waiting, leased, dead } = await meta.jobs.counts();
    jobs.set(waiting, { state: 'waiting' });
    jobs.set(leased, { state: 'leased' });
    jobs.set(dead, { state: 'dead' });
    const readyAt = await meta.jobs.nextReadyAt();
    oldest.set(readyAt === null ? 0 : Math.max(0, clock.now() - readyAt) / 1_000);
  });
}

function registerDisk({ meta, blobs, config, metrics }: FigureDeps): void {
  const free = metrics.gauge('disk_free_bytes', 'Free bytes in the file systems that the origin writes to.', ['of']);
  metrics.onCollect(async () => {
    const [stored, recorded, stage] = await Promise.all([
      blobs.freeBytes(),
      meta.freeBytes(),
      statfs(blobs.stageFolder),
    ]);
    if (stored !== null) free.set(stored, { of: 'blobs' });
    if (recorded !== null) free.set(recorded, { of: 'metadata' });
    free.set(stage.bavail * stage.bsize, { of: 'stage' });
  });
  if (config.adaptor !== 'lmdb') return;
  const used = metrics.gauge('metadata_bytes', 'Size of the file of the metadata.');
  const most = metrics.gauge('metadata_max_bytes', 'The size at which uploads are refused.');
  most.set(config.dataMaxBytes);
  metrics.onCollect(async () => used.set((await stat(join(config.folder, FILE_NAME))).size));
}
