/** The configuration of the metadata store. */
import { duration, integer, section, size, text, type ValueOf } from '../../src/config/field.js';

export const metaSection = section('Metadata: records, jobs and the takedown journal, in LMDB.', {
  folder: text({
    default: './data/origin/meta',
    help: 'Folder of the database. Only one process at a time may write to it.',
  }),
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
