/** Where spans go, in config.yaml. */
import { duration, integer, optionalText, ratio, section, type ValueOf } from '../config/field.js';

export const otlpSection = section(
  'OpenTelemetry: spans of requests, sent as OTLP over HTTP in JSON. Nothing is loaded without it.',
  {
    endpoint: optionalText({
      default: null,
      pattern: /^https?:\/\/[^\s@]+$/,
      accepts: 'an http or https URL',
      help: 'Where the collector takes traces, such as http://127.0.0.1:4318/v1/traces. null: no spans are made.',
    }),
    sampleRatio: ratio({
      default: 0.01,
      min: 0,
      max: 1,
      help: 'The share of new traces that is recorded. A trace that is continued is recorded if its sender says so.',
    }),
    waitingMax: integer({
      default: 4_096,
      min: 1,
      max: 1_000_000,
      help: 'How many spans may wait for the collector. Further ones are dropped and counted.',
    }),
    everyMs: duration({
      default: '5s',
      min: 10,
      max: 300_000,
      help: 'How long spans wait for others, to be sent together.',
    }),
    timeoutMs: duration({
      default: '10s',
      min: 100,
      max: 300_000,
      help: 'How long the collector may take. Spans that it has not taken by then are dropped.',
    }),
  },
);

export type OtlpConfig = ValueOf<typeof otlpSection>;
