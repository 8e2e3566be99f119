/** What a configuration of the edge may say, and perhaps does not mean. Pure but for what the machine has. */
import { statfsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import { formatSize, parseSize } from '../src/bytes.js';
import type { ConfigFault } from '../src/config/load.js';
import { isLoopback } from '../src/server/operators.js';
import { DISK_SIZE } from './cache/config.js';
import type { EdgeConfig } from './config.js';
import { STALE_IF_ERROR_MS } from './rfc9111/freshness.js';
import { originUrls, originWarnings } from './upstream/config.js';

/** What there is of each on this machine. */
export interface Machine {
  readonly memoryBytes: number;
  /** The size of the file system that has a folder; null if it is not known. */
  diskBytes(folder: string): number | null;
}

const thisMachine: Machine = {
  memoryBytes: totalmem(),
  diskBytes(folder) {
    for (let path = resolve(folder); ; path = dirname(path)) {
      try {
        const { blocks, bsize } = statfsSync(path);
        return blocks * bsize;
      } catch {
        if (dirname(path) === path) return null;
      }
    }
  },
};

type Warned = Pick<EdgeConfig, 'access' | 'cache' | 'freshness' | 'journal' | 'rules' | 'upstream'>;

/** Paths start at `edge`. */
export function edgeWarnings(config: Warned, machine = thisMachine): readonly ConfigFault[] {
  const ofMedia = config.access === 'off' ? [] : [...clearTextWarnings(config), ...leaseWarnings(config)];
  return [...originWarnings(config.upstream), ...ofMedia, ...sizeWarnings(config, machine), ...ruleWarnings(config)];
}

function sizeWarnings({ cache }: Pick<Warned, 'cache'>, machine: Machine): readonly ConfigFault[] {
  const warnings: ConfigFault[] = [];
  const warn = (path: string, message: string): void => void warnings.push({ path: `edge.${path}`, message });
  const { memory, disk } = cache;
  const memoryBytes = memory.sizeBytes + cache.parts.sizeBytes + cache.fill.memoryBytes + disk.readMemoryBytes;
  if (memoryBytes > machine.memoryBytes) {
    warn(
      'cache.memory.size',
      `with \`parts\`, \`fill\` and \`disk.read_memory\` it comes to ${formatSize(memoryBytes)}, and this machine has ${formatSize(machine.memoryBytes)} of memory`,
    );
  }
  // The default stops at `disk.min_free`, and nobody has asked for it.
  const asked = disk.sizeBytes > 0 && disk.sizeBytes !== parseSize(DISK_SIZE);
  const diskBytes = asked ? machine.diskBytes(cache.folder) : null;
  if (diskBytes !== null && disk.sizeBytes > diskBytes) {
    warn('cache.disk.size', `is more than the file system of \`cache.folder\` has (${formatSize(diskBytes)})`);
  }
  if (memory.sizeBytes === 0 && disk.sizeBytes === 0) warn('cache', 'both tiers are off: nothing is stored');
  return warnings;
}

/** A rule behind one that matches everything never decides. */
function ruleWarnings({ rules }: Pick<Warned, 'rules'>): readonly ConfigFault[] {
  const last = rules.findIndex(
    ({ path, type, fromBytes, toBytes }) => path === 'any' && type === '*/*' && fromBytes === 0 && toBytes >= 8e12,
  );
  if (last < 0) return [];
  const message = `never decides: rule ${last + 1} before it matches every response`;
  return rules.slice(last + 1).map((_, index) => ({ path: `edge.rules.${last + 1 + index}`, message }));
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
