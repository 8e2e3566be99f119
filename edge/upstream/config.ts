/** Settings of the way to the origins. */
import {
  duration,
  flag,
  integer,
  list,
  optionalText,
  origin,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';

const URL_DEFAULT = 'http://127.0.0.1:9000';

export const upstreamSection = section('The origins: their addresses, and the limits on connections and waits.', {
  url: origin({ default: URL_DEFAULT, help: 'The URL of the origin, if there is one.' }),
  urls: list({
    default: [],
    of: origin({ default: URL_DEFAULT, help: 'A URL.' }),
    max: 64,
    help: 'The URLs of several origins over one database, in place of `url`. Each has connections and a breaker of its own, and requests go to those that are up: fetches by their path, so that the same origin is asked for the same media; uploads and all else by the address of the client. The journal is followed at one of them, at another once that one is away.',
  }),
  failover: section('With several origins: when one that answers nothing is given up for another.', {
    askAfterMs: duration({
      default: '300ms',
      min: 10,
      max: 60_000,
      help: 'A request that waits for so long, while nothing else is heard from its origin, makes the edge ask that origin for `/healthz`.',
    }),
    answerWithinMs: duration({
      default: '500ms',
      min: 10,
      max: 60_000,
      help: 'An origin that does not answer that in time is down: what waits for it and may be repeated goes to another.',
    }),
  }),
  caFile: optionalText({
    default: null,
    help: 'For https: a PEM file of certificates that are trusted instead of the system’s.',
  }),
  serverName: text({
    default: '',
    help: 'For https: the name that the certificate must carry. Empty: the host of the URL.',
  }),
  connectionsMax: integer({ default: 128, min: 1, max: 10_000, help: 'Most connections to each origin at once.' }),
  waitingMax: integer({
    default: 1_024,
    min: 0,
    max: 100_000,
    help: 'Most requests that wait for a connection to one origin. Further requests are answered 503.',
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
    help: 'How often a GET or HEAD is sent again if its connection broke before a response, after each of several origins was asked once. A timeout is not retried.',
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

/** The addresses of all origins, at least one. */
export function originUrls({ url, urls }: Pick<UpstreamConfig, 'url' | 'urls'>): readonly string[] {
  return urls.length === 0 ? [url] : urls;
}

/** Paths start at `edge`. */
export function originFaults({ urls }: Pick<UpstreamConfig, 'urls'>): readonly ConfigFault[] {
  return urls.flatMap((url, index) =>
    urls.findIndex((other) => new URL(other).origin === new URL(url).origin) < index
      ? [{ path: `edge.upstream.urls.${index}`, message: 'names the same origin as one before it' }]
      : [],
  );
}

/** What works, and perhaps not as it was meant. Paths start at `edge`. */
export function originWarnings(config: Pick<UpstreamConfig, 'url' | 'urls' | 'breaker'>): readonly ConfigFault[] {
  const { url, urls, breaker } = config;
  if (urls.length === 0) return [];
  const warnings: ConfigFault[] = [];
  if (url !== URL_DEFAULT && !urls.includes(url)) {
    const message = `${url} is not asked: \`urls\` is given, and does not name it`;
    warnings.push({ path: 'edge.upstream.url', message });
  }
  if (urls.length > 1 && !breaker.enabled) {
    const message = 'an origin that is down is asked again with every request, since nothing remembers that it is down';
    warnings.push({ path: 'edge.upstream.breaker.enabled', message });
  }
  return warnings;
}

export type UpstreamConfig = ValueOf<typeof upstreamSection>;
