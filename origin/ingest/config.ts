/** What an operator may set of uploads. */
import {
  duration,
  flag,
  integer,
  list,
  optionalDuration,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import { ACCEPTED_TYPES } from '../../src/media/types.js';
import { scanSection } from './scan.js';

const formSection = section('Bounds on multipart/form-data around its file.', {
  fieldsMax: integer({ default: 8, min: 3, max: 1_000, help: 'Fields beside the file.' }),
  fieldMaxBytes: size({ default: '4KiB', min: 64, max: 1_048_576, help: 'Size of one field.' }),
  headerMaxBytes: size({ default: '8KiB', min: 256, max: 81_920, help: 'Header of one part.' }),
  overheadMaxBytes: size({
    default: '64KiB',
    min: 1_024,
    help: 'All that is not the file: boundaries, headers and fields together.',
  }),
});

export const uploadSection = section('What may be uploaded, and how fast it has to come.', {
  sizeMaxBytes: size({ default: '10MB', min: 1, help: 'Size of one upload.' }),
  types: list({
    default: ACCEPTED_TYPES,
    of: text({
      default: '',
      pattern: /^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+$/,
      accepts: 'a media type in lower case, without parameters',
      help: 'A media type.',
    }),
    min: 1,
    help: 'Types that are accepted, as the bytes show them. `application/octet-stream` stands for bytes that show none.',
  }),
  uploadsMax: integer({ default: 256, min: 1, max: 100_000, help: 'Uploads at once; more are refused with 503.' }),
  inHandMaxBytes: size({
    default: '2GB',
    min: 1,
    help: 'Bytes announced by uploads at once; one of unknown length counts as the largest allowed.',
  }),
  freeMinBytes: size({
    default: '256MB',
    min: 0,
    help: 'Free room that must be left in the storage; an upload that would go below it is refused with 507.',
  }),
  idleMs: duration({ default: '30s', min: 100, help: 'Longest silence of a sender.' }),
  graceMs: duration({ default: '15s', min: 0, help: 'Waiting that is forgiven before the rate below counts.' }),
  rateMinBytes: size({ default: '1KiB', min: 1, help: 'Bytes per second that a sender must reach on average.' }),
  expiresInMaxMs: optionalDuration({
    default: null,
    min: 1_000,
    help: 'Longest `expires_in` that an upload may ask for; null: any.',
  }),
  retryAfterMs: duration({ default: '2s', min: 1_000, help: 'The Retry-After of a 503 at one of the bounds above.' }),
  form: formSection,
  stripOriginals: section('Whether pictures are stored without the place where they were made.', {
    enabled: flag({
      default: false,
      help: 'JPEG, PNG and WebP lose EXIF, XMP, IPTC and comments, but no pixel, orientation or colour profile. Broken ones are then refused.',
    }),
    sizeMaxBytes: size({ default: '64MB', min: 1_000, help: 'Pictures beyond this are refused while it is on.' }),
  }),
  scan: scanSection,
});

export type UploadConfig = ValueOf<typeof uploadSection>;
