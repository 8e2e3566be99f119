/** What `check --live` tries of an origin: keys, storage and database. An origin may run meanwhile. */
import { randomUUID } from 'node:crypto';
import { constants, access as mayUse } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { AccessConfig } from '../src/access/config.js';
import { keySteps, type LiveStep, runLiveSteps } from '../src/commands/live-check.js';
import { errorCode } from '../src/errors.js';
import type { ChoreTools } from '../src/process.js';
import { openBlobStore } from './blobs/open.js';
import type { OriginConfig } from './config.js';
import { checkTarget } from './meta/move.js';

interface Settings {
  readonly access: AccessConfig;
  readonly origin: OriginConfig;
}

export function checkOriginLive({ access, origin }: Settings, tools: ChoreTools): Promise<0 | 1> {
  return runLiveSteps([...keySteps(access, tools), storageStep(origin, tools), databaseStep(origin, tools)], tools);
}

function storageStep({ blobs }: OriginConfig, tools: ChoreTools): LiveStep {
  const named = blobs.adaptor === 's3' ? `bucket ${blobs.s3.bucket} at ${blobs.s3.endpoint}` : `folder ${blobs.folder}`;
  return {
    name: `storage, ${named}`,
    async run(signal) {
      const store = await openBlobStore(blobs, tools);
      try {
        await store.probe(signal);
        return 'written, read and deleted';
      } finally {
        await store.close();
      }
    },
  };
}

function databaseStep({ meta }: OriginConfig, { clock, log }: ChoreTools): LiveStep {
  if (meta.adaptor === 'lmdb') {
    return {
      name: `metadata, folder ${meta.folder}`,
      async run() {
        await mayUse(await nearestFolder(resolve(meta.folder)), constants.W_OK | constants.R_OK | constants.X_OK);
        return 'can be written';
      },
    };
  }
  return {
    name: 'metadata, PostgreSQL',
    async run() {
      const { latencyMs, skewMs } = await checkTarget(meta, { clock, log, randomName: randomUUID });
      return `answers in ${latencyMs.toFixed(1)} ms, its clock differs by ${Math.round(Math.abs(skewMs))} ms`;
    },
  };
}

/** The folder itself, or the one in which it would be made. */
async function nearestFolder(path: string): Promise<string> {
  try {
    await mayUse(path);
    return path;
  } catch (thrown) {
    if (errorCode(thrown) !== 'ENOENT' || dirname(path) === path) throw thrown;
    return await nearestFolder(dirname(path));
  }
}
