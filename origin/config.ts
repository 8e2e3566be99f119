/** The `origin` section of config.yaml, made of the sections that stand beside the code that uses them. */
import { hostname, totalmem } from 'node:os';
import { formatSize } from '../src/bytes.js';
import { integer, live, origin, section, text, type ValueOf } from '../src/config/field.js';
import type { ConfigFault } from '../src/config/load.js';
import { DEFAULT_BASE_URI } from '../src/dev/service-address.js';
import { proxyFaults, trustedProxies } from '../src/http/address.js';
import { limitsSection } from '../src/server/limits.js';
import { isLoopback, operatorAccess, operatorFaults } from '../src/server/operators.js';
import { wellKnownSection } from './api/well-known.js';
import { auditSection } from './audit.js';
import { blobsFaults, blobsSection } from './blobs/config.js';
import { journalSection } from './edges/origin-journal.js';
import { uploadSection } from './ingest/config.js';
import { resumableSection } from './ingest/resumable/resumable-uploads.js';
import { scanFaults } from './ingest/scan.js';
import { metaFaults, metaSection } from './meta/config.js';
import { quotaSection } from './quota.js';
import { downloadSection } from './respond/config.js';
import { coversAll, retentionSection } from './retention-rules.js';
import { drainSection } from './server/drain.js';
import { rateLimitsSection } from './server/rate-limits.js';
import { ownerActsSection } from './takedown/of-owner.js';
import { thumbsFaults, thumbsSection } from './thumbs/config.js';
import { scrubSection } from './upkeep/scrub.js';
import { webhooksFaults, webhooksSection } from './webhooks/config.js';

const port = (standard: number, help: string) => integer({ default: standard, min: 0, max: 65_535, help });

export const originSection = section('The origin: stores uploads, renders thumbnails, sends takedowns to the edges.', {
  name: text({
    default: '',
    pattern: /^[\w.:-]{0,128}$/,
    accepts: 'up to 128 letters, digits and any of . : - _',
    help: 'The name of this origin among several over one database. Empty: the name of the machine and the port of `listen`. A restarted origin needs the name that it had.',
  }),
  listen: section('The listener for edges, and for clients that upload directly.', {
    host: text({ default: '127.0.0.1', help: 'Its address.' }),
    port: port(9_000, 'Its port; 0 takes a free one.'),
    limits: limitsSection,
  }),
  baseUri: origin({
    default: DEFAULT_BASE_URI,
    help: 'Where clients reach the service, usually the edge. Every URL in a response starts with it. `media-service dev` takes the edge of the same file if this is left as it is.',
  }),
  trustedProxies,
  operators: section('A listener only for operators: /metrics, /healthz, /readyz, and what commands ask for.', {
    ...operatorAccess,
    port: port(9_001, 'Its port; 0 takes a free one.'),
  }),
  upload: uploadSection,
  resumable: resumableSection,
  download: live(downloadSection),
  refusedBodies: drainSection,
  blobs: blobsSection,
  meta: metaSection,
  thumbs: thumbsSection,
  retention: retentionSection,
  scrub: scrubSection,
  quota: quotaSection,
  rateLimits: live(rateLimitsSection),
  ownerActs: ownerActsSection,
  audit: auditSection,
  journal: journalSection,
  webhooks: webhooksSection,
  wellKnown: wellKnownSection,
});

export type OriginConfig = ValueOf<typeof originSection>;

export function nameOf({ name, listen }: Pick<OriginConfig, 'name' | 'listen'>): string {
  return name === '' ? `${hostname()}:${listen.port}` : name;
}

/** Faults of keys that are valid alone but not together. Their paths start at `origin`. */
export function originFaults(config: OriginConfig): readonly ConfigFault[] {
  const below = (name: string, faults: readonly ConfigFault[]): readonly ConfigFault[] =>
    faults.map(({ path, message }) => ({ path: `origin.${name}.${path}`, message }));
  return [
    ...below('thumbs', thumbsFaults(config.thumbs)),
    ...below('upload.scan', scanFaults(config.upload.scan)),
    ...blobsFaults(config.blobs, config.upload.sizeMaxBytes),
    ...metaFaults(config.meta, { local: config.blobs.adaptor === 'local' && !config.blobs.folderShared }),
    ...below('webhooks', webhooksFaults(config.webhooks)),
    ...unusedFaults(config),
    ...proxyFaults(config.trustedProxies, 'origin.trusted_proxies'),
    ...operatorFaults(config.operators, 'origin.operators'),
  ];
}

/** Otherwise media would count as unused before a report of their use can arrive. */
function unusedFaults({ retention, meta }: OriginConfig): readonly ConfigFault[] {
  const { unusedForMs, usesEveryMs, usedLateMaxMs } = retention;
  if (unusedForMs === null || usedLateMaxMs >= meta.usedStepMs + 2 * usesEveryMs) return [];
  return [
    {
      path: 'origin.retention.used_late_max',
      message: 'must be at least `meta.used_step` plus twice `retention.uses_every`; otherwise media in use expire',
    },
  ];
}

/** What is allowed and defeats what was wished. Paths start at `origin`. `memoryBytes`: what this machine has. */
export function originWarnings(config: Warned, memoryBytes = totalmem()): readonly ConfigFault[] {
  const warnings: ConfigFault[] = [];
  const warn = (path: string, message: string): void => void warnings.push({ path: `origin.${path}`, message });
  const { baseUri, listen, quota, retention, thumbs, upload } = config;

  const last = retention.rules.findIndex(coversAll);
  retention.rules.forEach((_, index) => {
    if (last < 0 || index <= last) return;
    warn(`retention.rules.${index}`, `covers nothing: rule ${last + 1} before it covers every upload`);
  });
  if (quota.totalBytes > 0 && upload.sizeMaxBytes > quota.totalBytes) {
    const size = formatSize(quota.totalBytes);
    warn('upload.size_max', `an upload of this size is always refused: \`quota.total\` is ${size}`);
  }
  const childrenBytes = thumbs.enabled ? thumbs.children.count * thumbs.children.memoryMaxBytes : 0;
  if (childrenBytes > memoryBytes) {
    warn(
      'thumbs.children.memory_max',
      `\`thumbs.children.count\` of them may take ${formatSize(childrenBytes)}, and this machine has ${formatSize(memoryBytes)} of memory`,
    );
  }
  if (!isLoopback(listen.host) && isLoopback(hostOf(baseUri))) {
    warn('base_uri', `clients on other machines are sent to themselves: \`listen.host\` is ${listen.host}`);
  }
  return warnings;
}

type Warned = Pick<OriginConfig, 'baseUri' | 'listen' | 'quota' | 'retention' | 'thumbs' | 'upload'>;

function hostOf(url: string): string {
  return new URL(url).hostname.replace(/^\[|\]$/g, '');
}
