/** Metadata stores over a test's PostgreSQL server, on the real clock. */
import { randomUUID } from 'node:crypto';
import { type MetaConfig, metaSection } from '../../../origin/meta/config.js';
import { type Opener, openPostgresStore, type PostgresDeps } from '../../../origin/meta/postgres/store.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { systemClock } from '../../../src/clock.js';
import { processContext } from '../../../src/config/load.js';
import { createLog } from '../../../src/log.js';
import { announced } from '../origin/meta/contract.js';

export function postgresConfig(
  url: string,
  folder = '',
  more: Readonly<Record<string, string | number>> = {},
): MetaConfig {
  const config = metaSection
    .schema({ ...processContext, env: () => url })
    .parse({ adaptor: 'postgres', folder, scan_max: 100, used_step: '10ms', postgres: { url: 'env:URL', ...more } });
  return { ...config, scanMax: 5 };
}

export const storeDeps: PostgresDeps = {
  clock: systemClock,
  log: createLog('test', { level: 'silent' }),
  randomName: () => randomUUID(),
  random: Math.random,
  opener: { kind: 'beside' },
};

export async function openStore(
  url: string,
  opener: Opener,
  more: Partial<PostgresDeps> = {},
  settings: Readonly<Record<string, string | number>> = {},
): Promise<MetaStore> {
  return announced(await openPostgresStore(postgresConfig(url, '', settings), { ...storeDeps, ...more, opener }));
}
