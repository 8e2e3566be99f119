/** Hit ratios over the size of one tier, for each policy. */
import type { TierName } from '../cache/cache.js';
import { diskWeightOf } from '../cache/disk/record.js';
import { memoryWeight } from '../cache/memory.js';
import { POLICY_NAMES, type PolicyName } from '../cache/policy/registry.js';
import type { Ratio } from '../ops/stats.js';
import type { TraceColumns, TraceFacts } from './read-trace.js';
import { replay } from './replay.js';
import { type SimulatedConfig, simulatedEdge } from './settings.js';

export interface SweepPoint {
  readonly sizeBytes: number;
  readonly objects: Ratio;
  readonly bytes: Ratio;
}

export interface Sweep {
  readonly tier: TierName;
  readonly curves: readonly { readonly policy: PolicyName; readonly points: readonly SweepPoint[] }[];
  /** As the configurations say. */
  readonly todayBytes: number;
  readonly nextBytes: number;
  readonly requests: number;
  readonly keys: number;
  readonly sampleShare: number;
  /** What the other tier is. */
  readonly beside: { readonly tier: TierName; readonly policy: PolicyName; readonly sizeBytes: number };
}

export interface Sweeping {
  /** All that is not swept is as it says. */
  readonly config: SimulatedConfig;
  readonly today: SimulatedConfig;
  readonly tier: TierName;
  readonly skip: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, of: number) => void;
}

export function sweptTier({ cache }: SimulatedConfig): TierName {
  return cache.disk.sizeBytes > 0 ? 'disk' : 'memory';
}

/** Each size is half of the next. The largest has room for everything. */
const SIZES = 10;

export async function sweep(trace: TraceColumns, sweeping: Sweeping): Promise<Sweep> {
  const { config, today, tier, skip, signal, progress } = sweeping;
  const largestBytes = roomyBytes(trace, tier, config);
  const sizes = Array.from({ length: SIZES }, (_, step) => Math.ceil(largestBytes / 2 ** (SIZES - 1 - step)));
  const curves: { policy: PolicyName; points: SweepPoint[] }[] = [];
  let requests = 0;
  for (const policy of POLICY_NAMES) {
    const points: SweepPoint[] = [];
    for (const sizeBytes of sizes) {
      progress(curves.length * SIZES + points.length, POLICY_NAMES.length * SIZES);
      const edge = simulatedEdge(withTier(config, tier, policy, sizeBytes));
      const tally = await replay(trace, edge, { skip, signal, progress: () => undefined });
      requests = tally.requests;
      points.push({ sizeBytes, objects: tally.ratios.requests, bytes: tally.ratios.bytes });
    }
    curves.push({ policy, points });
  }
  return {
    tier,
    curves,
    todayBytes: today.cache[tier].sizeBytes,
    nextBytes: config.cache[tier].sizeBytes,
    requests,
    keys: trace.keys.length,
    sampleShare: trace.sampleShare,
    beside: besideOf(config, tier),
  };
}

function withTier(config: SimulatedConfig, tier: TierName, policy: PolicyName, sizeBytes: number): SimulatedConfig {
  const { cache } = config;
  const changed =
    tier === 'memory'
      ? { memory: { ...cache.memory, policy, sizeBytes } }
      : { disk: { ...cache.disk, policy, sizeBytes } };
  return { ...config, cache: { ...cache, ...changed } };
}

/** The size at which the tier has room for every response of the trace; on disk, beside the room for those that arrive. */
function roomyBytes({ facts, keys, sampleShare }: TraceColumns, tier: TierName, { cache }: SimulatedConfig): number {
  const weights = new Float64Array(keys.length);
  for (const each of facts) if (each.cacheable) weights[each.object] = weightIn(tier, each);
  const bytes = Math.max(1, weights.reduce((sum, weight) => sum + weight, 0) / sampleShare);
  return tier === 'disk' ? bytes + Math.min(bytes, cache.disk.fillRoomBytes) : bytes;
}

function weightIn(tier: TierName, { memoryHeadBytes, diskHeadBytes, sizeBytes }: TraceFacts): number {
  return tier === 'memory' ? memoryWeight(memoryHeadBytes, sizeBytes) : diskWeightOf(diskHeadBytes, sizeBytes);
}

function besideOf({ cache }: SimulatedConfig, tier: TierName): Sweep['beside'] {
  const other = tier === 'memory' ? 'disk' : 'memory';
  const { sizeBytes, policy } = cache[other];
  return { tier: other, policy, sizeBytes };
}
