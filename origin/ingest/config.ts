/** The configuration of uploads. */
import {
  choice,
  duration,
  flag,
  integer,
  list,
  live,
  optionalDuration,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import { ACCEPTED_TYPES } from '../../src/media/types.js';
import { scanSection } from './scan.js';

const formSection = section('Limits on multipart/form-data, apart from the file in it.', {
  fieldsMax: integer({ default: 8, min: 3, max: 1_000, help: 'Most fields.' }),
  fieldMaxBytes: size({ default: '4KiB', min: 64, max: 1_048_576, help: 'Largest size of one field.' }),
  headerMaxBytes: size({ default: '8KiB', min: 256, max: 81_920, help: 'Largest size of the header of one part.' }),
  overheadMaxBytes: size({
    default: '64KiB',
    min: 1_024,
    help: 'Largest size of everything but the file: boundaries, headers and fields together.',
  }),
});

export const uploadSection = section('What may be uploaded, and how fast it must arrive.', {
  sizeMaxBytes: size({ default: '10MB', min: 1, live: true, help: 'Largest size of one upload.' }),
  types: list({
    default: ACCEPTED_TYPES,
    of: text({
      default: '',
      pattern: /^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+$/,
      accepts: 'a media type in lower case, without parameters',
      help: 'A media type.',
    }),
    min: 1,
    live: true,
    help: 'Accepted types, as detected from the bytes. `application/octet-stream` stands for bytes of unknown type. Texts of other types are stored as `text/plain`, unless a browser would run them.',
  }),
  uploadsMax: integer({
    default: 256,
    min: 1,
    max: 100_000,
    live: true,
    help: 'Most uploads at once; more are refused with 503.',
  }),
  inHandMaxBytes: size({
    default: '2GB',
    min: 1,
    live: true,
    help: 'Most bytes announced by the uploads in progress. An upload of unknown length counts little by little, as it arrives.',
  }),
  uploadsPerSubjectMax: integer({
    default: 64,
    min: 0,
    max: 100_000,
    live: true,
    help: 'Most uploads of one subject at once; more are refused with 429. 0: no limit of their own.',
  }),
  inHandPerSubjectMaxBytes: size({
    default: '500MB',
    min: 0,
    live: true,
    help: 'Most bytes announced by the uploads of one subject in progress; one upload is always admitted. 0: no limit of their own.',
  }),
  freeMinBytes: size({
    default: '256MB',
    min: 0,
    live: true,
    help: 'Free space that must remain in every file system that the origin writes to: of blobs, stage, metadata and audit log. An upload that would leave less is refused with 507.',
  }),
  idleMs: duration({ default: '30s', min: 100, live: true, help: 'Longest time without bytes from the sender.' }),
  graceMs: duration({
    default: '15s',
    min: 0,
    live: true,
    help: 'Time of waiting for the sender before the rate below applies.',
  }),
  rateMinBytes: size({
    default: '1KiB',
    min: 1,
    live: true,
    help: 'Bytes per second that the sender must reach on average.',
  }),
  expiresInMaxMs: optionalDuration({
    default: null,
    min: 1_000,
    live: true,
    help: 'Largest `expires_in` of an upload; null: no limit.',
  }),
  retryAfterMs: duration({
    default: '2s',
    min: 1_000,
    live: true,
    help: 'The Retry-After of a 503 at one of the limits above.',
  }),
  form: live(formSection),
  stripOriginals: section(
    'Whether metadata that can tell the location is removed from pictures, films and recordings before they are stored.',
    {
      enabled: flag({
        default: false,
        help: 'Removes EXIF, XMP, IPTC, comments, tags and tracks that hold neither pictures nor sound from JPEG, PNG, GIF, WebP, HEIC, AVIF, MP4, QuickTime, 3GP, WebM and Matroska. Pixels, sound, orientation, colour profile and the gain map of Ultra HDR stay. Damaged files are refused. Other sound and documents are stored as they are.',
      }),
      otherwise: choice({
        default: 'refuse',
        of: ['refuse', 'keep'],
        help: 'Pictures and films of other formats, and files with parts that are not known: `refuse` them with 415, or `keep` them with their metadata.',
      }),
      sizeMaxBytes: size({
        default: '64MB',
        min: 1_000,
        help: 'Most memory for one file while it is enabled. Larger JPEG, PNG, GIF and WebP are refused; of the other formats only the description is read into memory.',
      }),
    },
  ),
  scan: scanSection,
});

export type UploadConfig = ValueOf<typeof uploadSection>;
