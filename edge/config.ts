/** The `edge` section of config.yaml, composed of the sections that the components declare. */
import { choice, integer, integerOrAuto, list, live, section, text, type ValueOf } from '../src/config/field.js';
import type { ConfigFault } from '../src/config/load.js';
import { proxyFaults, trustedProxies } from '../src/http/address.js';
import { readCertificate, tlsSection } from '../src/server/certificate.js';
import { limitsSection } from '../src/server/limits.js';
import { operatorFaults } from '../src/server/operators.js';
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
import { freshnessSection } from './rfc9111/freshness.js';
import { storingSection } from './rfc9111/storable.js';
import { traceSection } from './trace/config.js';
import { originFaults, upstreamSection } from './upstream/config.js';
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
    live: true,
    help: 'Most ranges in one request. A request with more gets the whole body.',
  }),
  freshness: freshnessSection,
  storing: storingSection,
  reuse: reuseSection,
  fill: live(fillSection),
  warm: live(warmSection),
  rules: live(rulesField),
  pass: passSection,
  rateLimits: rateLimitsSection,
  journal: journalSection,
  behind: behindSection,
  uses: useReportsSection,
  trace: traceSection,
});

export type EdgeConfig = ValueOf<typeof edgeSection>;

/** What decides how a request is answered. All of it may change while the edge runs, and is read for each request. */
export type EdgePolicy = Pick<EdgeConfig, 'fill' | 'warm' | 'rules' | 'rangesMax'>;

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
