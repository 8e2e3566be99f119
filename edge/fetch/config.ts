/** The settings of fetches from the origin. Declarations alone. */
import { choice, duration, integer, ratio, section, size, type ValueOf } from '../../src/config/field.js';

export const fillSection = section(
  'Fetches from the origin: which requests share one, and how bodies are stored while they arrive.',
  {
    concurrentMax: integer({
      default: 1_024,
      min: 1,
      max: 100_000,
      help: 'Most requests to the origin at once, shared ones and those for a single client.',
    }),
    waitersMax: integer({
      default: 10_000,
      min: 1,
      max: 1_000_000,
      help: 'Most clients that share one request to the origin.',
    }),
    overflow: choice({
      default: 'refuse',
      of: ['refuse', 'pass'],
      help: 'What clients beyond `waiters_max` get. refuse: the answer 503. pass: a request of their own.',
    }),
    objectMaxBytes: size({
      default: '1GB',
      min: 1_024,
      help: 'Larger bodies are not stored: each goes to one client, and ranges of it are fetched from the origin.',
    }),
    sharedMaxBytes: size({
      default: '64KiB',
      max: 16_777_216,
      help: 'Responses that may not be stored, such as errors, are shared by all clients that wait for them, up to this size.',
    }),
    finishShare: ratio({
      default: 0.5,
      min: 0,
      max: 1,
      help: 'When no client wants an arriving body any more, it is fetched to its end if this share of it has arrived.',
    }),
    finishBytes: size({ default: '1MiB', help: 'It is fetched to its end too if no more than this is missing.' }),
    aheadBytes: size({
      default: '4MiB',
      help: 'A range that begins this far ahead of the arrived bytes is fetched by a request of its own.',
    }),
    aloneMs: duration({
      default: '2m',
      max: 86_400_000,
      help: 'How long the edge remembers that a response could not be shared. Meanwhile clients do not wait for one another. 0s: it does not remember.',
    }),
    aloneMax: integer({ default: 100_000, min: 1, max: 10_000_000, help: 'For how many targets it remembers that.' }),
    absentMs: duration({
      default: '5s',
      max: 3_600_000,
      help: 'How long the edge remembers that the origin does not know an id, or does not show it without a credential. 0s: it does not remember.',
    }),
    absentMax: integer({ default: 50_000, min: 1, max: 10_000_000, help: 'For how many ids it remembers that.' }),
  },
);

export type FillConfig = ValueOf<typeof fillSection>;
