/** The operators' listener of the edge in config.yaml. */
import { flag, integer, section, size, type ValueOf } from '../../src/config/field.js';
import { operatorAccess } from '../../src/server/operators.js';

export const operatorsSection = section(
  'The listener for operators: metrics, figures, a live page, purging and reloading.',
  {
    enabled: flag({ default: true, help: 'Whether it is opened.' }),
    ...operatorAccess,
    port: integer({ default: 8081, min: 0, max: 65_535, help: 'The port. 0 takes any free port.' }),
    orderMaxBytes: size({ default: '1MiB', min: 1_024, max: 67_108_864, help: 'Most bytes of one purge order.' }),
    watchedMax: integer({
      default: 10_000,
      min: 100,
      max: 1_000_000,
      help: 'While somebody uses `media-service log` or `top`: how many requests are kept for it, and how many names are counted in each list.',
    }),
  },
);

export type OperatorsConfig = ValueOf<typeof operatorsSection>;
