/** The `blobs` section of the origin: which adaptor, and what it needs. */
import {
  choice,
  duration,
  flag,
  integer,
  optionalSecret,
  optionalUrl,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';

const s3Section = section('The bucket, for `adaptor: s3`, on any server that speaks S3.', {
  endpoint: optionalUrl({ default: null, help: 'URL of the S3 server; null: Amazon, by region.' }),
  region: text({ default: 'us-east-1', pattern: /^[a-z0-9-]{1,64}$/, accepts: 'a region', help: 'The region.' }),
  bucket: text({
    default: 'media',
    pattern: /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/,
    accepts: 'the name of a bucket',
    help: 'The bucket. It must exist.',
  }),
  prefix: text({
    default: '',
    pattern: /^(?:[A-Za-z0-9._-]+\/)*$/,
    accepts: 'empty, or folders each ending in /',
    help: 'Prefix of every key in the bucket.',
  }),
  pathStyle: flag({
    default: true,
    help: 'Whether the name of the bucket is in the path of a URL instead of the host name.',
  }),
  accessKeyId: optionalSecret({
    default: null,
    minLength: 1,
    help: 'The access key; null: the AWS SDK finds it in its environment variables, profile or instance role.',
  }),
  secretAccessKey: optionalSecret({ default: null, minLength: 1, help: 'The secret of the access key.' }),
  sessionToken: optionalSecret({ default: null, minLength: 1, help: 'The session token, for temporary credentials.' }),
  multipartAboveBytes: size({
    default: '16MiB',
    min: 5 * 2 ** 20,
    help: 'Blobs larger than this are uploaded in parts.',
  }),
  partSizeBytes: size({ default: '8MiB', min: 5 * 2 ** 20, max: 512 * 2 ** 20, help: 'The size of a part.' }),
  partsAtOnce: integer({
    default: 2,
    min: 1,
    max: 16,
    help: 'Parts of one blob that are sent at once. Each takes memory.',
  }),
  abandonedMs: duration({
    default: '24h',
    min: 60_000,
    help: 'At start, parts of unfinished uploads are removed if the upload began longer ago than this.',
  }),
  socketsMax: integer({ default: 128, min: 1, max: 10_000, help: 'Connections to the server.' }),
  attemptsMax: integer({ default: 3, min: 1, max: 10, help: 'Attempts at one request, at most.' }),
  retryMs: duration({
    default: '100ms',
    min: 1,
    max: 60_000,
    help: 'Wait before the second attempt. It doubles with each further attempt.',
  }),
  connectTimeoutMs: duration({ default: '3s', min: 100, max: 60_000, help: 'Time limit for connecting.' }),
  requestTimeoutMs: duration({
    default: '30s',
    min: 100,
    max: 3_600_000,
    help: 'How long the server may send nothing, before its response or in the middle of it.',
  }),
});

export const blobsSection = section('Where the bytes of media are stored.', {
  adaptor: choice({
    default: 'local',
    of: ['local', 's3'],
    help: '`local`: a folder of this machine. `s3`: a bucket.',
  }),
  folder: text({
    default: './data/origin/blobs',
    pattern: /\S/,
    accepts: 'a folder',
    help: 'Folder of the blobs, for `adaptor: local`.',
  }),
  folderShared: flag({
    default: false,
    help: 'Says that `folder` is the same for every origin of one database, by a network file system that syncs what it is told to. Each origin still needs a `stage_folder` of its own in it.',
  }),
  stageFolder: text({
    default: './data/origin/stage',
    pattern: /\S/,
    accepts: 'a folder',
    help: 'Folder for uploads while they arrive. For `adaptor: local` it must be in the same file system as `folder`.',
  }),
  s3: s3Section,
});

export type BlobsConfig = ValueOf<typeof blobsSection>;
export type S3Config = BlobsConfig['s3'];

/** S3 accepts no more parts in one upload. */
const PARTS_MAX = 10_000;

/** Faults that only several keys together have. `blobSizeMaxBytes` is the size of the largest upload. */
export function blobsFaults({ adaptor, s3 }: BlobsConfig, blobSizeMaxBytes: number): readonly ConfigFault[] {
  if (adaptor !== 's3') return [];
  const faults: ConfigFault[] = [];
  if ((s3.accessKeyId === null) !== (s3.secretAccessKey === null)) {
    faults.push({
      path: 'origin.blobs.s3',
      message: 'needs access_key_id and secret_access_key together, or neither',
    });
  }
  if (blobSizeMaxBytes > s3.partSizeBytes * PARTS_MAX) {
    faults.push({ path: 'origin.blobs.s3.part_size', message: 'is too small for the largest upload in 10000 parts' });
  }
  return faults;
}
