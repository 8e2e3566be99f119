/** The section `edge.trace` of the configuration. Declarations alone. */
import { duration, flag, integer, ratio, section, size, text, type ValueOf } from '../../src/config/field.js';

export const traceSection = section(
  'A record of requests for `media-service simulate`: the time, a keyed hash of the cache key, size, kind of content, lifetime and outcome. It has no ids, no names and no tokens.',
  {
    enabled: flag({ default: false, help: 'Whether requests are recorded.' }),
    folder: text({
      default: './data/edge/trace',
      help: 'The folder of the files. Several edges may share one. `trace.key` in it is the key of the hashes, which files that are to be simulated together must share: do not give it away with them.',
    }),
    sampleShare: ratio({
      default: 1,
      min: 0.0001,
      max: 1,
      help: 'The share of cache keys whose requests are recorded. All requests of a chosen key are. The simulation corrects for it.',
    }),
    fileSizeBytes: size({
      default: '64MB',
      min: 65_536,
      max: 2 ** 36,
      help: 'A file of this size is full, and the next one begins. A request takes 52 bytes.',
    }),
    filesMax: integer({ default: 8, min: 2, max: 10_000, help: 'Most files that are kept. The oldest are removed.' }),
    writeWithinMs: duration({
      default: '1s',
      min: 10,
      max: 60_000,
      help: 'How long a record may wait for others, to be written together with them.',
    }),
    waitingMaxBytes: size({
      default: '4MB',
      min: 65_536,
      max: 2 ** 30,
      help: 'Most bytes that wait for the disk. Beyond it, records are dropped and counted.',
    }),
  },
);

export type TraceConfig = ValueOf<typeof traceSection>;
