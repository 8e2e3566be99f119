/** What an operator may set of how media are served. */
import { duration, integer, list, section, text, type ValueOf } from '../../src/config/field.js';
import { INLINE_TYPES } from '../../src/media/types.js';

export const downloadSection = section('How media are served, and how long copies may be used.', {
  inlineTypes: list({
    default: INLINE_TYPES,
    of: text({
      default: '',
      pattern: /^(?:image|audio|video)\/(?!svg)[a-z0-9.+-]+$/,
      accepts: 'a raster image, audio or video type',
      help: 'A media type.',
    }),
    help: 'Types that a browser may display. All others are offered as a file to save.',
  }),
  rangesMax: integer({
    default: 16,
    min: 1,
    max: 1_000,
    help: 'Ranges in one request. A request for more gets the whole media.',
  }),
  clientMaxAgeMs: duration({
    default: '60s',
    max: 31_536_000_000,
    help: 'How long clients may use a copy without asking again. A takedown reaches them at most this late.',
  }),
  edgeMaxAgeMs: duration({
    default: '24h',
    max: 31_536_000_000,
    help: 'How long edges may use a copy without asking again. A takedown reaches them at once.',
  }),
  edgeMaxAgePendingMs: duration({
    default: '5s',
    max: 31_536_000_000,
    help: 'The same while the thumbnail engine has not finished with the media: its facts may still change the headers. Edges then ask for the headers again; the bytes are not sent again.',
  }),
  edgeMaxAgeInfoMs: duration({
    default: '1h',
    max: 31_536_000_000,
    help: 'How long edges may use the info of media without asking again. A duplicate upload may prolong the expiry that it states, and edges hear of nothing but takedowns.',
  }),
  edgeStaleWhileRevalidateMs: duration({
    default: '1h',
    max: 31_536_000_000,
    help: 'How long after that an edge may still serve the copy while it asks again.',
  }),
  edgeStaleIfErrorMs: duration({
    default: '24h',
    max: 31_536_000_000,
    help: 'How long after that an edge may still serve the copy if the origin fails.',
  }),
});

export type DownloadConfig = ValueOf<typeof downloadSection>;
