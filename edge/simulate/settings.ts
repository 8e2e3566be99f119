/** What a simulation takes of a configuration. */
import type { TierName } from '../cache/cache.js';
import { type DiskLimits, diskLimits, type MemoryLimits, memoryLimits } from '../cache/limits.js';
import type { AdmissionName, PolicyName, PolicyParameters } from '../cache/policy/registry.js';
import type { EdgeConfig } from '../config.js';
import type { Rule } from '../fetch/rules.js';
import type { FreshnessRules } from '../rfc9111/freshness.js';
import { TRACED_TYPES } from '../trace/format.js';

export interface SimulatedEdge {
  /** Null: the tier is off. */
  readonly memory: (MemoryLimits & { readonly policy: PolicyName }) | null;
  readonly disk: (DiskLimits & { readonly policy: PolicyName; readonly admission: AdmissionName }) | null;
  readonly parameters: PolicyParameters;
  readonly rules: readonly Rule[];
  readonly freshness: Pick<FreshnessRules, 'staleWhileRevalidateMs' | 'staleIfErrorMs'>;
  readonly objectMaxBytes: number;
}

export type SimulatedConfig = Pick<EdgeConfig, 'rules' | 'freshness'> & {
  readonly cache: Pick<EdgeConfig['cache'], 'memory' | 'disk' | 'policies'>;
  readonly fill: Pick<EdgeConfig['fill'], 'objectMaxBytes'>;
};

export function simulatedEdge({ cache, rules, freshness, fill }: SimulatedConfig): SimulatedEdge {
  const { memory, disk, policies } = cache;
  return {
    memory: memory.sizeBytes > 0 ? { ...memoryLimits(memory), policy: memory.policy } : null,
    disk: disk.sizeBytes > 0 ? { ...diskLimits(disk), policy: disk.policy, admission: disk.admission } : null,
    parameters: policies,
    rules,
    freshness,
    objectMaxBytes: fill.objectMaxBytes,
  };
}

/** What the simulation cannot show of it. */
export function caveatsOf(edge: SimulatedEdge, sampleShare: number): readonly string[] {
  const types = edge.rules.flatMap(({ type }, index) =>
    type.endsWith('/*') || TRACED_TYPES.includes(type)
      ? []
      : [`rule ${index + 1} selects ${type}, which a trace does not tell from others: here it selects nothing`],
  );
  if (sampleShare === 1) return types;
  const { memory, disk } = edge;
  return [...types, ...tooSmall('memory', memory, sampleShare), ...tooSmall('disk', disk, sampleShare)];
}

/** A tier that has room for fewer large bodies does not behave as a large one. */
const BODIES_MIN = 8;
const LARGE_BYTES = 10_000_000;

function tooSmall(name: TierName, tier: MemoryLimits | null, sampleShare: number): readonly string[] {
  if (tier === null) return [];
  const largestBytes = Math.min(tier.maxObjectBytes, LARGE_BYTES);
  if (tier.capacityBytes * sampleShare >= BODIES_MIN * largestBytes) return [];
  return [
    `the sample is small: ${(sampleShare * 100).toPrecision(2)} % of the ${name} tier has little room for large bodies`,
  ];
}
