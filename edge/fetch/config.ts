/** The settings of bodies on their way in. Declarations alone. */
import { choice, duration, integer, ratio, section, size, type ValueOf } from '../../src/config/field.js';

export const fillSection = section('Bodies on their way in from the origin.', {
  concurrentMax: integer({
    default: 1_024,
    min: 1,
    max: 100_000,
    help: 'Requests to the origin under way at once, those of a single caller included.',
  }),
  waitersMax: integer({ default: 10_000, min: 1, max: 1_000_000, help: 'Callers that share one of them.' }),
  overflow: choice({
    default: 'refuse',
    of: ['refuse', 'pass'],
    help: 'What callers beyond the waiters of one request get: 503, or a request of their own.',
  }),
  objectMaxBytes: size({
    default: '1GB',
    min: 1_024,
    help: 'Larger answers are handed to one caller each and not kept; ranges of them are asked of the origin.',
  }),
  sharedMaxBytes: size({
    default: '64KiB',
    max: 16_777_216,
    help: 'Answers that may not be kept, such as errors, are read up to this size and given to all who waited.',
  }),
  finishShare: ratio({
    default: 0.5,
    min: 0,
    max: 1,
    help: 'A body that nobody wants any more is still finished when this share of it has come.',
  }),
  finishBytes: size({ default: '1MiB', help: 'Or when no more than this is missing.' }),
  aheadBytes: size({
    default: '4MiB',
    help: 'A range that begins so far ahead of what has come is asked of the origin by itself.',
  }),
  aloneMs: duration({
    default: '2m',
    max: 86_400_000,
    help: 'How long it is remembered that an answer could not be shared, so that callers do not wait for one another. 0s: not.',
  }),
  aloneMax: integer({ default: 100_000, min: 1, max: 10_000_000, help: 'How many such memories are kept.' }),
});

export type FillConfig = ValueOf<typeof fillSection>;
