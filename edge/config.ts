/** The `edge` section of config.yaml: the parts' own sections, put together. */
import { choice, integer, list, section, text, type ValueOf } from '../src/config/field.js';
import type { ConfigFault } from '../src/config/load.js';
import { proxyFaults, trustedProxies } from '../src/http/address.js';
import { readCertificate, tlsSection } from '../src/server/certificate.js';
import { limitsSection } from '../src/server/limits.js';
import { cacheSection } from './cache/config.js';
import { capabilitiesSection } from './capabilities.js';
import { fillSection } from './fetch/config.js';
import { rulesField } from './fetch/rules.js';
import { warmSection } from './fetch/warm-marks.js';
import { journalSection } from './journal/config.js';
import { operatorsSection } from './ops/ops.js';
import { passSection } from './pass/config.js';
import { reuseSection } from './rfc9111/decide.js';
import { freshnessSection } from './rfc9111/freshness.js';
import { upstreamSection } from './upstream/config.js';
import { useReportsSection } from './use-reports.js';

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
    help: 'Its name in Cache-Status, in Via and at the origin. Give each edge its own.',
  }),
  access: choice({
    default: 'media',
    of: ['media', 'off'],
    help: 'media: the media service, every read authorised here. off: a generic cache of any origin, by RFC 9111 alone.',
  }),
  sharedPaths: list({
    default: ['/.well-known', '/openapi.json'],
    of: text({ default: '', pattern: /^\/[\x21-\x7e]*$/, accepts: 'a path', help: 'A path.' }),
    max: 100,
    help: 'Paths besides media that anyone may see: cached by what the origin says. All others are passed through.',
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
    help: 'Ranges in one request; with more, the whole is answered.',
  }),
  freshness: freshnessSection,
  reuse: reuseSection,
  fill: fillSection,
  warm: warmSection,
  rules: rulesField,
  pass: passSection,
  journal: journalSection,
  uses: useReportsSection,
});

export type EdgeConfig = ValueOf<typeof edgeSection>;

/** What may change while the edge runs: decided anew for each request. */
const POLICY_KEYS = ['fill', 'warm', 'rules', 'rangesMax'] as const;
export type EdgePolicy = Pick<EdgeConfig, (typeof POLICY_KEYS)[number]>;

/** Where these stand among all settings. */
export const POLICY_PATHS = POLICY_KEYS.map((key) => `edge.${key}`);

export function policyOf({ fill, warm, rules, rangesMax }: EdgeConfig): EdgePolicy {
  return { fill, warm, rules, rangesMax };
}

/** Faults between keys that each are right. Paths start at `edge`. */
export function edgeFaults(config: EdgeConfig): readonly ConfigFault[] {
  const faults: ConfigFault[] = [...proxyFaults(config.trustedProxies, 'edge.trusted_proxies')];
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
