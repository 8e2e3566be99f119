/** The `edge` section of config.yaml, composed of the sections that the components declare. */
import { choice, integer, integerOrAuto, list, section, text, type ValueOf } from '../src/config/field.js';
import type { ConfigFault } from '../src/config/load.js';
import { proxyFaults, trustedProxies } from '../src/http/address.js';
import { readCertificate, tlsSection } from '../src/server/certificate.js';
import { limitsSection } from '../src/server/limits.js';
import { isLoopback, operatorFaults } from '../src/server/operators.js';
import { cacheSection } from './cache/config.js';
import { capabilitiesSection } from './capabilities.js';
import { fillSection } from './fetch/config.js';
import { rulesField } from './fetch/rules.js';
import { warmSection } from './fetch/warm-marks.js';
import { behindSection } from './journal/behind.js';
import { journalSection } from './journal/config.js';
import { operatorsSection } from './ops/config.js';
import { passSection } from './pass/config.js';
import { rateLimitsSection } from './rate-limits.js';
import { reuseSection } from './rfc9111/decide.js';
import { freshnessSection, STALE_IF_ERROR_MS } from './rfc9111/freshness.js';
import { storingSection } from './rfc9111/storable.js';
import { originFaults, originUrls, originWarnings, upstreamSection } from './upstream/config.js';
import { useReportsSection } from './use-reports.js';
import { workerFaults } from './workers/count.js';

const listenSection = section('Where clients reach the edge.', {
  host: text({ default: '127.0.0.1', help: 'The address; 0.0.0.0 or :: for all.' }),
  port: integer({ default: 8080, min: 0, max: 65_535, help: 'The port; 0 takes any free one.' }),
  tls: tlsSection,
  limits: limitsSection,
});

export const edgeSection = section('The edge: an HTTP cache before the origin.', {
  name: text({
    default: 'edge',
    pattern: /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/,
    accepts: 'a letter, then letters, digits, `_`, `.` or `-`',
    help: 'The name of this edge in Cache-Status, in Via and at the origin. Give each edge its own name.',
  }),
  workers: integerOrAuto({
    default: 1,
    min: 1,
    max: 64,
    help: 'How many processes serve on the address, each on a processor of its own; auto: as many as there are processors. They divide the sizes and the limits of the edge among them. What is stored on disk belongs to one worker, which the others ask. With more than one, no other edge can stand behind this one.',
  }),
  access: choice({
    default: 'media',
    of: ['media', 'off'],
    help: 'media: the cache of the media service, which authorises every read. off: a generic HTTP cache (RFC 9111) for any origin.',
  }),
  sharedPaths: list({
    default: ['/.well-known', '/openapi.json'],
    of: text({ default: '', pattern: /^\/[\x21-\x7e]*$/, accepts: 'a path', help: 'A path.' }),
    max: 100,
    help: 'Paths besides media that anyone may see. They are cached as the origin allows, by their path: a query is dropped, except with `access: off`. All other paths are passed through.',
  }),
  listen: listenSection,
  trustedProxies,
  operators: operatorsSection,
  upstream: upstreamSection,
  capabilities: capabilitiesSection,
  cache: cacheSection,
  rangesMax: integer({
    default: 16,
    min: 1,
    max: 1_000,
    help: 'Most ranges in one request. A request with more gets the whole body.',
  }),
  freshness: freshnessSection,
  storing: storingSection,
  reuse: reuseSection,
  fill: fillSection,
  warm: warmSection,
  rules: rulesField,
  pass: passSection,
  rateLimits: rateLimitsSection,
  journal: journalSection,
  behind: behindSection,
  uses: useReportsSection,
});

export type EdgeConfig = ValueOf<typeof edgeSection>;

/** The settings that may change while the edge runs. They are read anew for each request. */
const POLICY_KEYS = ['fill', 'warm', 'rules', 'rangesMax'] as const;
export type EdgePolicy = Pick<EdgeConfig, (typeof POLICY_KEYS)[number]>;

/** Their paths among all settings. */
export const POLICY_PATHS = POLICY_KEYS.map((key) => `edge.${key}`);

export function policyOf({ fill, warm, rules, rangesMax }: EdgeConfig): EdgePolicy {
  return { fill, warm, rules, rangesMax };
}

/** Faults of combinations of keys, each of which is valid by itself. Paths start at `edge`. */
export function edgeFaults(config: EdgeConfig): readonly ConfigFault[] {
  const faults: ConfigFault[] = [
    ...proxyFaults(config.trustedProxies, 'edge.trusted_proxies'),
    ...operatorFaults(config.operators, 'edge.operators'),
    ...workerFaults(config),
    ...originFaults(config.upstream),
  ];
  config.rules.forEach((rule, index) => {
    if (rule.toBytes < rule.fromBytes) {
      faults.push({ path: `edge.rules.${index}`, message: '`to` must not be below `from`' });
    }
  });
  const certificate = readCertificate(config.listen.tls);
  if (certificate.kind === 'faulty') {
    faults.push({ path: `edge.listen.tls.${certificate.key}`, message: certificate.message });
  }
  return faults;
}

/** What works, and perhaps not as it was meant. Paths start at `edge`. */
export function edgeWarnings(
  config: Pick<EdgeConfig, 'access' | 'upstream' | 'freshness' | 'rules' | 'journal'>,
): readonly ConfigFault[] {
  const warnings = originWarnings(config.upstream);
  return config.access === 'off' ? warnings : [...warnings, ...clearTextWarnings(config), ...leaseWarnings(config)];
}

/** With access control, every request to the origin carries the proof of the edge, and the answers are private media. */
function clearTextWarnings({ upstream }: Pick<EdgeConfig, 'upstream'>): readonly ConfigFault[] {
  return originUrls(upstream).flatMap((url, index) => {
    const { protocol, hostname } = new URL(url);
    if (protocol !== 'http:' || isLoopback(hostname.replace(/^\[|\]$/g, ''))) return [];
    const message = `the edge's secret and private media cross the network to ${hostname} in clear: use https, or a network that nobody else can read`;
    return [{ path: upstream.urls.length === 0 ? 'edge.upstream.url' : `edge.upstream.urls.${index}`, message }];
  });
}

/** While the origin is away, the edge hears of no takedown: stale media are served only as long as the lease allows. */
function leaseWarnings({
  freshness,
  rules,
  journal,
}: Pick<EdgeConfig, 'freshness' | 'rules' | 'journal'>): readonly ConfigFault[] {
  const { ttlMs, mode, serveMaxMs } = journal.lease;
  const usableMs = mode === 'serve' ? ttlMs + serveMaxMs : ttlMs;
  const wishes = [
    // The default suits other responses, and nobody has asked for it.
    {
      path: 'edge.freshness.stale_if_error',
      forMs: freshness.staleIfErrorMs,
      asked: freshness.staleIfErrorMs !== STALE_IF_ERROR_MS,
    },
    ...rules.map(({ staleIfErrorMs }, index) => ({
      path: `edge.rules.${index}.stale_if_error`,
      forMs: staleIfErrorMs ?? 0,
      asked: true,
    })),
  ];
  const message = `stale media are not served for so long: an edge that is cut off from the origin uses its copies for ${usableMs / 1_000} s. Set edge.journal.lease.mode to serve, and edge.journal.lease.serve_max`;
  return wishes.filter(({ forMs, asked }) => asked && forMs > usableMs).map(({ path }) => ({ path, message }));
}
