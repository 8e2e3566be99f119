/**
 * Several origins as the processes of production, over one PostgreSQL server and one bucket of the test. Which origin a
 * request goes to, is killed or is started again is up to the test.
 */
import { basename, join } from 'node:path';
import type { MetaStore } from '../../../origin/meta/store.js';
import { sendRequest } from '../http/request.js';
import { type Launched, openProcesses, type Processes } from '../processes.js';
import { untilAsync } from '../until.js';
import { type Bucket, openBucket } from './bucket.js';
import { openPostgres, type TestPostgres } from './server.js';
import { openStore } from './stores.js';

export interface Member {
  readonly name: string;
  /** The same over restarts. */
  readonly url: string;
  readonly process: Launched;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again at the same address, and resolves when it is ready. */
  start(): Promise<void>;
}

export interface Cluster {
  readonly processes: Processes;
  readonly postgres: TestPostgres;
  readonly bucket: Bucket;
  readonly databaseUrl: string;
  /** Starts an origin of this name. `section`: more keys below `origin`. `folder`: for its own files. */
  add(name: string, section?: Readonly<Record<string, unknown>>, folder?: string): Promise<Member>;
  /** The store as a command beside the origins has it. */
  store(): Promise<MetaStore>;
  close(): Promise<void>;
}

/** Null where there is no PostgreSQL server on this machine. Closes the bucket too. */
export async function openCluster(folder: string, opened: Promise<Bucket> = openBucket()): Promise<Cluster | null> {
  const bucket = await opened;
  const postgres = await openPostgres();
  if (postgres === null) {
    await bucket.close();
    return null;
  }
  const databaseUrl = await postgres.database();
  const processes = await openProcesses(folder);
  const stores: MetaStore[] = [];
  const env = { CLUSTER_DATABASE: databaseUrl, CLUSTER_KEY: bucket.keyId, CLUSTER_SECRET: bucket.secret };

  async function add(
    name: string,
    section: Readonly<Record<string, unknown>> = {},
    own = join('data', name),
  ): Promise<Member> {
    const launch = (listen: Readonly<Record<string, unknown>>): Promise<Launched> =>
      processes.launch(
        'origin',
        {
          name,
          ...listen,
          upload: { free_min: '0B' },
          rate_limits: {},
          meta: { adaptor: 'postgres', postgres: { url: 'env:CLUSTER_DATABASE' } },
          blobs: {
            adaptor: 's3',
            stage_folder: join(own, 'stage'),
            s3: {
              endpoint: bucket.endpoint,
              bucket: bucket.name,
              access_key_id: 'env:CLUSTER_KEY',
              secret_access_key: 'env:CLUSTER_SECRET',
            },
          },
          audit: { file: join(own, 'audit.jsonl') },
          journal: { edges_file: join(own, 'edges.json') },
          ...section,
        },
        { as: `origin-${basename(own)}`, env },
      );
    let launched = await launch({});
    const url = await launched.ready;
    const ready = async (): Promise<void> => {
      await launched.ready;
      await untilAsync(`origin ${name} is ready`, async () =>
        sendRequest(`${url}/readyz`).then(
          ({ status }) => status === 200,
          () => false,
        ),
      );
    };
    await ready();
    return {
      name,
      url,
      get process() {
        return launched;
      },
      kill: () => launched.kill(),
      async start() {
        launched = await launch({ listen: { port: Number(new URL(url).port) } });
        await ready();
      },
    };
  }

  return {
    processes,
    postgres,
    bucket,
    databaseUrl,
    add,
    async store() {
      const store = await openStore(databaseUrl, { kind: 'beside' });
      stores.push(store);
      return store;
    },
    async close() {
      await processes.close();
      await Promise.all(stores.map((store) => store.close()));
      await bucket.close();
      await postgres.close();
    },
  };
}
