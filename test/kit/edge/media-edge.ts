/** A whole edge in the process of the test, in front of a whole origin: every component as in production. */
import { join } from 'node:path';
import { edgeSection } from '../../../edge/config.js';
import { openEdge } from '../../../edge/edge.js';
import { accessSection } from '../../../src/access/config.js';
import { type Clock, systemClock } from '../../../src/clock.js';
import { deferred } from '../../../src/config/field.js';
import { formatFaults, parseConfig } from '../../../src/config/load.js';
import { createLog, logSection } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import { TEST_SECRET } from '../auth-service.js';
import type { TestOrigin } from '../origin/origin.js';

export interface MediaEdge {
  readonly url: string;
  readonly operators: string;
  /** The metrics of the edge in the text format. */
  metrics(): Promise<string>;
  close(): Promise<void>;
}

/** `section`: the keys below `edge` in config.yaml. */
export async function startEdge(
  folder: string,
  origin: Pick<TestOrigin, 'url' | 'auth'>,
  section: Readonly<Record<string, unknown>> = {},
  clock: Clock = systemClock,
): Promise<MediaEdge> {
  const document = {
    log: { requests: 'none' },
    access: {
      issuers: [{ issuer: origin.auth.issuer, jwks_url: origin.auth.jwksUrl }],
      keys: { folder: null },
    },
    edge: {
      listen: { port: 0 },
      operators: { port: 0 },
      upstream: { url: origin.url },
      cache: { folder: join(folder, 'cache') },
      ...section,
    },
  };
  const sections = { log: logSection, access: deferred(accessSection), edge: edgeSection };
  const outcome = parseConfig(JSON.stringify(document), sections, { env: () => TEST_SECRET, file: () => TEST_SECRET });
  if (outcome.kind === 'faulty') throw new Error(formatFaults(outcome.faults));
  const metrics = createMetrics('media_');
  const log = createLog('edge', { ...outcome.config.log, level: 'silent' });
  const running = await openEdge(outcome.config, { clock, log, metrics });
  return {
    url: running.urls['media'] ?? '',
    operators: running.urls['operators'] ?? '',
    metrics: async () => (await metrics.render()).text,
    close: () => running.close(),
  };
}
