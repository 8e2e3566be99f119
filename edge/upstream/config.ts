/** Settings of the way to the origin. */
import {
  duration,
  flag,
  integer,
  optionalText,
  origin,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';

export const upstreamSection = section('The origin: its address, and the limits on connections and waits.', {
  url: origin({ default: 'http://127.0.0.1:9000', help: 'The URL of the origin.' }),
  caFile: optionalText({
    default: null,
    help: 'For https: a PEM file of certificates that are trusted instead of the system’s.',
  }),
  serverName: text({
    default: '',
    help: 'For https: the name that the certificate must carry. Empty: the host of the URL.',
  }),
  connectionsMax: integer({ default: 128, min: 1, max: 10_000, help: 'Most connections to the origin at once.' }),
  waitingMax: integer({
    default: 1_024,
    min: 0,
    max: 100_000,
    help: 'Most requests that wait for a connection. Further requests are answered 503.',
  }),
  ahead: section('What is received ahead of clients that read slowly, so that their responses free the connection.', {
    bodyMaxBytes: size({ default: '1MiB', max: 2 ** 30, help: 'Most bytes of one response.' }),
    totalBytes: size({ default: '64MB', max: 2 ** 40, help: 'The memory that all responses share.' }),
  }),
  slowMax: integer({
    default: 128,
    min: 0,
    max: 10_000,
    help: 'Most responses for slow clients that are not counted in `connections_max` while requests wait for a connection. Beyond it, the slowest response of the client that has the most of them ends.',
  }),
  connectWithinMs: duration({
    default: '3s',
    min: 10,
    max: 60_000,
    help: 'Longest time to open a connection, TLS handshake included.',
  }),
  headWithinMs: duration({
    default: '30s',
    min: 10,
    help: 'Longest time from a request to the head of its response.',
  }),
  idleMs: duration({ default: '30s', min: 10, help: 'Longest time between two pieces of a body.' }),
  keepAliveMs: duration({ default: '4s', min: 100, help: 'How long an unused connection stays open.' }),
  headMaxBytes: size({
    default: '32KiB',
    min: 1_024,
    max: 1_048_576,
    help: 'Most bytes of header fields in one response.',
  }),
  retries: integer({
    default: 1,
    min: 0,
    max: 5,
    help: 'How often a GET or HEAD is sent again if its connection broke before a response. A timeout is not retried.',
  }),
  breaker: section('The circuit breaker: stops requests to an origin that keeps failing.', {
    enabled: flag({ default: true, help: 'Whether the circuit breaker is used.' }),
    failures: integer({
      default: 8,
      min: 1,
      max: 1_000,
      help: 'It opens after this many failures in a row, if they took at least `after`.',
    }),
    afterMs: duration({
      default: '1s',
      help: 'Shortest time over which those failures must spread. A burst at one instant opens nothing.',
    }),
    openMs: duration({
      default: '2s',
      min: 10,
      help: 'How long an open breaker sends no request. After that, one request tries whether the origin is back.',
    }),
  }),
});

export type UpstreamConfig = ValueOf<typeof upstreamSection>;
