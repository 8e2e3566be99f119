/** Compares our policies with the published figures: which baseline belongs to which policy, and what counts as equal. */
import { rememberedBytes } from '../../edge/cache/limits.js';
import {
  type AdmissionName,
  createAdmission,
  createPolicy,
  POLICY_NAMES,
  type PolicyName,
} from '../../edge/cache/policy/registry.js';
import { type Ratios, simulate, simulateTiers } from './simulate.js';
import type { Baseline, TierBaseline, Trace } from './trace.js';

/** The largest allowed difference between a hit ratio and its baseline. */
export const TOLERANCE = 0.003;
/** The mean over the four traces that the default tiers must reach. */
export const TARGETS = { objectHitRatio: 0.544, byteHitRatio: 0.555 } as const;

interface Contestant {
  readonly label: string;
  readonly policy: PolicyName;
  readonly promoteAt: number;
  readonly windowShare: number;
  /** The baseline to compare with, if there is one. */
  readonly baseline?: string;
}

const PARAMETERS = { promoteAt: 1, windowShare: 0.1 } as const;

export const CONTESTANTS: readonly Contestant[] = [
  { ...PARAMETERS, label: 'fifo', policy: 'fifo', baseline: 'FIFO' },
  { ...PARAMETERS, label: 'lru', policy: 'lru', baseline: 'LRU' },
  { ...PARAMETERS, label: 'sieve', policy: 'sieve', baseline: 'SIEVE' },
  { ...PARAMETERS, label: 's3-fifo, promote at 1', policy: 's3-fifo', baseline: 'S3FIFO1' },
  { ...PARAMETERS, label: 's3-fifo, promote at 2', policy: 's3-fifo', promoteAt: 2, baseline: 'S3FIFO' },
  { ...PARAMETERS, label: 'gdsf', policy: 'gdsf', baseline: 'GDSF' },
  { ...PARAMETERS, label: 'w-tinylfu, window 1%', policy: 'w-tinylfu', windowShare: 0.01 },
  { ...PARAMETERS, label: 'w-tinylfu, window 10%', policy: 'w-tinylfu' },
];

export interface Tiers {
  readonly label: string;
  readonly memory: PolicyName;
  readonly disk: PolicyName;
  readonly admission: AdmissionName;
}

export const DEFAULT_TIERS: Tiers = {
  label: 'gdsf over s3-fifo',
  memory: 'gdsf',
  disk: 's3-fifo',
  admission: 'always',
};
export const SECOND_HIT_TIERS: Tiers = { ...DEFAULT_TIERS, label: '  second hit', admission: 'second_hit' };

export interface Compared<B> {
  readonly label: string;
  readonly ratios: Ratios;
  readonly baseline: B | undefined;
}

export function* compareSingle(
  trace: Trace,
  capacityBytes: number,
  baselines: readonly Baseline[],
): Generator<Compared<Baseline>> {
  for (const { label, policy, promoteAt, windowShare, baseline } of CONTESTANTS) {
    const made = createPolicy(policy, capacityBytes, { smallShare: 0.1, promoteAt, windowShare });
    yield { label, ratios: simulate(trace, made), baseline: baselines.find((row) => row.policy === baseline) };
  }
}

const TIER_BASELINE_NAMES: Readonly<Record<PolicyName, string>> = {
  lru: 'LRU',
  fifo: 'FIFO',
  sieve: 'SIEVE',
  's3-fifo': 'S3FIFO1',
  gdsf: 'GDSF',
  'w-tinylfu': '',
};

export function* compareTiers(
  trace: Trace,
  memoryFraction: number,
  diskFraction: number,
  baselines: readonly TierBaseline[],
): Generator<Compared<TierBaseline>> {
  for (const memory of POLICY_NAMES) {
    for (const disk of POLICY_NAMES) {
      const tiers: Tiers = { label: `${memory} over ${disk}`, memory, disk, admission: 'always' };
      const names = `${TIER_BASELINE_NAMES[memory]}+${TIER_BASELINE_NAMES[disk]}`;
      yield {
        label: tiers.label,
        ratios: tierRatios(trace, memoryFraction, diskFraction, tiers),
        baseline: baselines.find(
          (row) =>
            row.trace === trace.name &&
            row.memoryFraction === memoryFraction &&
            row.diskFraction === diskFraction &&
            row.policies === names,
        ),
      };
    }
  }
}

export function tierRatios(trace: Trace, memoryFraction: number, diskFraction: number, tiers: Tiers): Ratios {
  const parameters = { smallShare: 0.1, promoteAt: 1, windowShare: 0.1 };
  const memoryBytes = Math.floor(trace.footprintBytes * memoryFraction);
  const diskBytes = Math.floor(trace.footprintBytes * diskFraction);
  return simulateTiers(
    trace,
    createPolicy(tiers.memory, memoryBytes, parameters),
    createPolicy(tiers.disk, diskBytes, parameters),
    createAdmission(tiers.admission, rememberedBytes(diskBytes)),
  );
}

export function agreement(
  ratios: Ratios,
  baseline: { readonly objectHitRatio: number; readonly byteHitRatio: number },
): { readonly difference: number; readonly agrees: boolean } {
  const difference = Math.max(
    Math.abs(ratios.objectHitRatio - baseline.objectHitRatio),
    Math.abs(ratios.byteHitRatio - baseline.byteHitRatio),
  );
  return { difference, agrees: difference <= TOLERANCE };
}
