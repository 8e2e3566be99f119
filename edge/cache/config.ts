/** The section `edge.cache` of the configuration: the size of each tier, and the policy that decides what it evicts. */
import { choice, duration, integer, ratio, section, size, text, type ValueOf } from '../../src/config/field.js';
import { ADMISSION_NAMES, POLICY_NAMES } from './policy/registry.js';

export const DISK_SIZE = '10GB';

export const cacheSection = section('The cache: a memory tier over a disk tier.', {
  folder: text({
    default: './data/edge/cache',
    help: 'The folder of the disk tier: contents, index and bodies that are still arriving. One process at a time may use it.',
  }),
  memory: section('The memory tier.', {
    sizeBytes: size({
      default: '256MB',
      max: 2 ** 40,
      live: true,
      help: 'Its size, with bodies, heads and overhead. 0 turns the memory tier off.',
    }),
    maxObjectBytes: size({ default: '4MB', max: 2 ** 30, live: true, help: 'A larger body is not stored in memory.' }),
    policy: choice({
      default: 'gdsf',
      of: POLICY_NAMES,
      live: true,
      help: 'The replacement policy: it decides which entries are evicted.',
    }),
  }),
  disk: section('The disk tier.', {
    sizeBytes: size({
      default: DISK_SIZE,
      max: 2 ** 50,
      live: true,
      help: 'Its size, including bodies that are still arriving. 0 turns the disk tier off.',
    }),
    maxObjectBytes: size({ default: '1GB', max: 2 ** 50, live: true, help: 'A larger body is not stored on disk.' }),
    policy: choice({
      default: 's3-fifo',
      of: POLICY_NAMES,
      live: true,
      help: 'The replacement policy: it decides which entries are evicted.',
    }),
    admission: choice({
      default: 'always',
      of: ADMISSION_NAMES,
      live: true,
      help: 'Whether every response is written, or a response only when it is fetched for the second time (`second_hit`). The latter writes much less, for a slightly lower hit ratio.',
    }),
    storesMax: integer({
      default: 4_096,
      min: 1,
      max: 1_000_000,
      live: true,
      help: 'Most complete bodies that wait to be written, or are being written. Further ones are not stored on disk.',
    }),
    commitWithinMs: duration({
      default: '100ms',
      max: 10_000,
      help: 'How long an entry may wait for others, to be written into the index together with them. A process that is killed loses what waits. Takedowns and purges do not wait.',
    }),
    openFilesMax: integer({
      default: 1_024,
      min: 1,
      max: 100_000,
      help: 'Most files that stay open for the next reader. More are open only while they are read.',
    }),
    readMemoryBytes: size({
      default: '64MB',
      max: 2 ** 40,
      help: 'The memory for what was read from disk last, so that the next client needs no disk: bodies, and pieces of large ones. 0: none.',
    }),
    fillRoomBytes: size({
      default: '512MB',
      min: 65_536,
      max: 2 ** 50,
      live: true,
      help: 'The part of `size` that is reserved for bodies that are still arriving and for files that are being removed. At most half of `size` is used.',
    }),
    minFreeBytes: size({
      default: '1GB',
      max: 2 ** 50,
      live: true,
      help: 'While the file system has less free space than this, nothing is written and entries are evicted.',
    }),
    retryMs: duration({
      default: '10s',
      min: 100,
      max: 86_400_000,
      help: 'How often a disk tier that cannot be used (its disk is full, read-only or gone) is tried again. Until then the edge works without it, and `/readyz` says so.',
    }),
    verifyPerSecondBytes: size({
      default: '2MB',
      max: 2 ** 34,
      help: 'How many bytes are read and verified each second in the background. 0 turns it off.',
    }),
  }),
  parts: section('Incomplete responses: ranges of a body, stored in memory until the rest is fetched.', {
    sizeBytes: size({ default: '32MB', max: 2 ** 40, help: 'The size of all together. 0: none are stored.' }),
    maxObjectBytes: size({ default: '8MB', max: 2 ** 30, help: 'The most bytes that are stored of one response.' }),
    spansMax: integer({
      default: 32,
      min: 1,
      max: 1_024,
      help: 'The most separate ranges that are stored of one response.',
    }),
  }),
  fill: section('Bodies that are still arriving, and the move from disk to memory.', {
    memoryBytes: size({
      default: '64MB',
      min: 65_536,
      max: 2 ** 40,
      help: 'The memory that all arriving bodies share. Bodies that find no memory left go through a file.',
    }),
    wholeReadBytes: size({
      default: '256KiB',
      max: 2 ** 26,
      help: 'A body on disk of up to this size is read in one piece.',
    }),
    wholeReadsBytes: size({
      default: '128MB',
      max: 2 ** 40,
      help: 'The memory for bodies of more than 64 KiB that were read in one piece and are not sent completely. Beyond it they are read piece by piece.',
    }),
    promotions: integer({
      default: 4,
      min: 1,
      max: 256,
      help: 'How many bodies may be copied from disk to memory at once.',
    }),
  }),
  rememberedMax: integer({
    default: 65_536,
    min: 1_024,
    max: 16_777_216,
    help: 'Of how many keys is remembered why they are not stored: evicted, expired, purged or never stored. Metrics and `media-service explain` show it. Each takes 13 bytes.',
  }),
  policies: section('Parameters of the replacement policies.', {
    smallShare: ratio({
      default: 0.1,
      min: 0.01,
      max: 0.9,
      live: true,
      help: 's3-fifo: the size of the small queue, as a share of the tier.',
    }),
    promoteAt: integer({
      default: 1,
      min: 1,
      max: 3,
      live: true,
      help: 's3-fifo: how many uses in the small queue move an entry to the main queue.',
    }),
    windowShare: ratio({
      default: 0.1,
      min: 0.001,
      max: 0.9,
      live: true,
      help: 'w-tinylfu: the size of the window, as a share of the tier.',
    }),
  }),
});

export type CacheConfig = ValueOf<typeof cacheSection>;
