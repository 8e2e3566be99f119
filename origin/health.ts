/**
 * Readiness of the origin: whether an upload would succeed now. An origin that
 * cannot render thumbnails is ready, because their jobs wait in a queue; its
 * capabilities say so. An origin that has the keys of one issuer and lacks those
 * of another is ready, because the tokens of the first are served.
 */
import type { Gate } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import type { Log } from '../src/log.js';
import type { Metrics } from '../src/metrics.js';
import { type Health, openHealth } from '../src/server/health.js';
import type { BlobStore } from './blobs/blob-store.js';
import type { Room } from './ingest/room.js';
import type { MetaStore } from './meta/store.js';
import type { ThumbCapabilities } from './thumbs/engine.js';

export interface HealthDeps {
  readonly meta: Pick<MetaStore, 'probe' | 'origins'>;
  readonly blobs: Pick<BlobStore, 'probe'>;
  readonly room: Pick<Room, 'require'>;
  readonly gate: Pick<Gate, 'probe' | 'issuers'>;
  readonly thumbs: { capabilities(): Pick<ThumbCapabilities, 'video'>; unavailable(): string | null };
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export function createHealth(deps: HealthDeps): Health {
  return openHealth({
    ...deps,
    checks: [
      ['database', () => deps.meta.probe()],
      ['clock', () => deps.meta.origins.checkClock()],
      ['storage', (signal) => deps.blobs.probe(signal)],
      ['disk', () => deps.room.require()],
      ['keys', (signal) => deps.gate.probe(signal)],
    ],
    about() {
      const { video } = deps.thumbs.capabilities();
      return {
        issuers: deps.gate.issuers(),
        capabilities: {
          thumbnails: deps.thumbs.unavailable() ?? 'available',
          video_thumbnails: video.available ? 'available' : (video.reason ?? 'unavailable'),
        },
      };
    },
  });
}
