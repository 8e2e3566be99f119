/** The cache's part of config.yaml: how much each tier may hold, and what decides which entries stay. */
import { choice, integer, ratio, section, size, text, type ValueOf } from '../../src/config/field.js';
import { ADMISSION_NAMES, POLICY_NAMES } from './policy/registry.js';

export const cacheSection = section('The cache: a memory tier over a disk tier.', {
  folder: text({
    default: './data/edge/cache',
    help: 'Where the disk tier, its index and bodies that still arrive are kept. One process may use it at a time.',
  }),
  memory: section('The memory tier.', {
    sizeBytes: size({
      default: '256MB',
      max: 2 ** 40,
      help: 'All it may hold: bodies, heads and what keeping them costs. 0 turns it off.',
    }),
    maxObjectBytes: size({ default: '4MB', max: 2 ** 30, help: 'A larger body is not kept in memory.' }),
    policy: choice({ default: 'gdsf', of: POLICY_NAMES, help: 'What decides which entries stay.' }),
  }),
  disk: section('The disk tier.', {
    sizeBytes: size({
      default: '10GB',
      max: 2 ** 50,
      help: 'All it may hold, bodies that still arrive included. 0 turns it off.',
    }),
    maxObjectBytes: size({ default: '1GB', max: 2 ** 50, help: 'A larger body is not kept on disk.' }),
    policy: choice({ default: 's3-fifo', of: POLICY_NAMES, help: 'What decides which entries stay.' }),
    admission: choice({
      default: 'always',
      of: ADMISSION_NAMES,
      help: 'Whether every response is written, or only one that was asked for a second time: far fewer writes for a little less hit ratio.',
    }),
    fillRoomBytes: size({
      default: '512MB',
      min: 65_536,
      max: 2 ** 50,
      help: 'The part of `size` set apart for bodies that still arrive and for files being removed. At most half of it is used.',
    }),
    minFreeBytes: size({
      default: '1GB',
      max: 2 ** 50,
      help: 'While the file system has less room than this left nothing is written, and entries go until it has.',
    }),
    verifyPerSecondBytes: size({
      default: '2MB',
      max: 2 ** 34,
      help: 'How much of the content is read and hashed again each second in the background. 0 turns it off.',
    }),
  }),
  parts: section('Answers of which only a part has come: kept in memory until the rest is fetched.', {
    sizeBytes: size({ default: '32MB', max: 2 ** 40, help: 'All that they may take. 0 turns it off.' }),
    maxObjectBytes: size({ default: '8MB', max: 2 ** 30, help: 'Bytes kept of one answer.' }),
    spansMax: integer({ default: 32, min: 1, max: 1_024, help: 'Pieces of one answer that lie apart.' }),
  }),
  fill: section('Bodies that arrive.', {
    memoryBytes: size({
      default: '64MB',
      min: 65_536,
      max: 2 ** 40,
      help: 'All that bodies may take in memory while they arrive; beyond it they go through a file.',
    }),
    wholeReadBytes: size({
      default: '256KiB',
      max: 2 ** 26,
      help: 'A body on disk up to this size is read in one piece.',
    }),
    promotions: integer({
      default: 4,
      min: 1,
      max: 256,
      help: 'How many bodies may move from disk to memory at once.',
    }),
  }),
  policies: section('Parameters of the policies.', {
    smallShare: ratio({ default: 0.1, min: 0.01, max: 0.9, help: "S3-FIFO's small queue, as a share of the tier." }),
    promoteAt: integer({
      default: 1,
      min: 1,
      max: 3,
      help: 'How many uses in the small queue make S3-FIFO keep an entry.',
    }),
    windowShare: ratio({ default: 0.1, min: 0.001, max: 0.9, help: "W-TinyLFU's window, as a share of the tier." }),
  }),
});

export type CacheConfig = ValueOf<typeof cacheSection>;
