/** What an operator may set of the metadata store. */
import { duration, integer, section, size, text, type ValueOf } from '../../src/config/field.js';

export const metaSection = section('Metadata: records, jobs and the takedown journal, in LMDB.', {
  folder: text({
    default: './data/origin/meta',
    help: 'Folder of the database. One process at a time may write to it.',
  }),
  dataMaxBytes: size({
    default: '64GB',
    min: 1_000_000,
    help: 'With so much data in it new uploads are refused with 507; deletes still work. The file may be a little larger.',
  }),
  commitMax: integer({
    default: 256,
    min: 1,
    help: 'Writes that one commit, and so one sync of the disk, takes together at most.',
  }),
  queueMax: integer({
    default: 10_000,
    min: 1,
    help: 'Writes that may wait for a commit; more are refused with 503.',
  }),
  usedStepMs: duration({
    default: '1h',
    help: 'Two uses of the same media nearer together than this are noted as one; matters only to `unused_for`.',
  }),
  scanMax: integer({
    default: 10_000,
    min: 100,
    help: 'Records looked at for one page of a listing; a page may then be short and still have a next one.',
  }),
});

export type MetaConfig = ValueOf<typeof metaSection>;
