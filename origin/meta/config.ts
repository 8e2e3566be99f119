/** The configuration of the metadata store. */
import {
  choice,
  duration,
  integer,
  optionalSecret,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';

const postgresSection = section('The database, for `adaptor: postgres`: PostgreSQL 13 or newer.', {
  url: optionalSecret({
    default: null,
    minLength: 1,
    help: 'Where it is and who asks: postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full. A pooler in transaction mode may stand before it.',
  }),
  poolMax: integer({ default: 16, min: 2, max: 1_000, help: 'Connections to it.' }),
  writersMax: integer({
    default: 2,
    min: 1,
    max: 100,
    help: 'Transactions of uploads that may be under way at once. Each takes what waits, so more are not always faster.',
  }),
  pollMs: duration({
    default: '200ms',
    min: 10,
    max: 10_000,
    help: 'How often it is asked for takedowns of other origins, and for their thumbnails while somebody waits for one.',
  }),
  clockOffMaxMs: duration({
    default: '2s',
    min: 100,
    max: 600_000,
    help: "How far the clock of an origin may be from the database's. Beyond it the origin is not ready, and edges cannot count on it.",
  }),
  connectTimeoutMs: duration({ default: '3s', min: 100, max: 60_000, help: 'Time limit for a connection to it.' }),
  statementTimeoutMs: duration({ default: '10s', min: 100, max: 600_000, help: 'Time limit of one statement.' }),
  lockTimeoutMs: duration({
    default: '5s',
    min: 100,
    max: 600_000,
    help: 'How long a statement waits for records that another transaction holds.',
  }),
});

export const metaSection = section('Metadata: records, jobs and the takedown journal.', {
  adaptor: choice({
    default: 'lmdb',
    of: ['lmdb', 'postgres'],
    help: '`lmdb`: a folder of this machine. `postgres`: a database server.',
  }),
  folder: text({
    default: './data/origin/meta',
    help: 'Folder of the database, for `adaptor: lmdb`. Only one process at a time may write to it.',
  }),
  postgres: postgresSection,
  dataMaxBytes: size({
    default: '64GB',
    min: 1_000_000,
    help: 'Most data in the database. Above it, uploads are refused with 507; deletes still work, and the oldest tombstones are forgotten early. The file may be a little larger.',
  }),
  reserveBytes: size({
    default: '16MiB',
    min: 65_536,
    help: 'Room that is kept on the disk of the database, so that deletes and quarantines can be written when the disk is full. While it cannot be kept, uploads are refused with 507.',
  }),
  commitMax: integer({
    default: 256,
    min: 1,
    help: 'Most writes in one commit, which syncs the disk once.',
  }),
  queueMax: integer({
    default: 10_000,
    min: 1,
    help: 'Most writes that wait for a commit; more are refused with 503.',
  }),
  usedStepMs: duration({
    default: '1h',
    help: 'Uses of the same media within this time are recorded as one; matters only for `unused_for`.',
  }),
  scanMax: integer({
    default: 10_000,
    min: 100,
    help: 'Most records read for one page of a listing. A page may be short although another page follows.',
  }),
});

export type MetaConfig = ValueOf<typeof metaSection>;
export type PostgresConfig = MetaConfig['postgres'];
/** What the store on LMDB needs of it. */
export type LmdbConfig = Omit<MetaConfig, 'adaptor' | 'postgres'>;

/** Faults of keys that are valid alone but not together. `local`: the blobs are in a folder that only one machine has. */
export function metaFaults(
  { adaptor, postgres }: MetaConfig,
  { local }: { readonly local: boolean },
): readonly ConfigFault[] {
  if (adaptor !== 'postgres') return [];
  return [
    ...(postgres.url === null
      ? [{ path: 'origin.meta.postgres.url', message: 'is needed for adaptor: postgres' }]
      : []),
    ...(local
      ? [
          {
            path: 'origin.meta.adaptor',
            message: 'postgres needs blobs that every origin reaches: blobs.adaptor: s3, or blobs.folder_shared: true',
          },
        ]
      : []),
  ];
}
