/**
 * `node dist/bench/policy/run.js`: hit ratios of every policy on every trace at
 * every size of the published baselines, as one tier and as two, with the best
 * possible ratio beside them. Fails if a figure differs from its baseline or the
 * defaults miss their target.
 */
import { POLICY_NAMES } from '../../edge/cache/policy/registry.js';
import {
  agreement,
  compareSingle,
  compareTiers,
  DEFAULT_TIERS,
  SECOND_HIT_TIERS,
  TARGETS,
  tierRatios,
} from './compare.js';
import { clairvoyant, infinite, type Ratios } from './simulate.js';
import { readBaselines, readTierBaselines, readTrace, TRACES, type Trace, traceFolder } from './trace.js';

const MEMORY_FRACTION = 0.01;
const DISK_FRACTION = 0.1;

function print(...cells: readonly (string | number)[]): void {
  const [first = '', second = '', ...rest] = cells.map((cell) => (typeof cell === 'number' ? cell.toFixed(4) : cell));
  process.stdout.write(`${first.padEnd(27)}${second.padEnd(24)}${rest.map((cell) => cell.padStart(10)).join('')}\n`);
}

function printRatios(where: string, who: string, ratios: Ratios, ...more: readonly (string | number)[]): void {
  print(where, who, ratios.objectHitRatio, ratios.byteHitRatio, ratios.writtenPerRequested, ...more);
}

function runSingle(trace: Trace, folder: string): boolean {
  const baselines = readBaselines(folder).filter((row) => row.trace === trace.name);
  const fractions = [...new Set(baselines.map((row) => row.fraction))];
  let agrees = true;
  for (const fraction of fractions) {
    const rows = baselines.filter((row) => row.fraction === fraction);
    const capacityBytes = rows[0]?.capacityBytes ?? 0;
    const where = `${trace.name.replace('.csv.gz', '')} ${fraction * 100}%`;
    for (const { label, ratios, baseline } of compareSingle(trace, capacityBytes, rows)) {
      const verdict = baseline === undefined ? undefined : agreement(ratios, baseline);
      if (verdict?.agrees === false) agrees = false;
      printRatios(where, label, ratios, ...verdictCells(verdict));
    }
    printRatios(where, 'ceiling: clairvoyant', clairvoyant(trace, capacityBytes));
    printRatios(where, 'ceiling: infinite', infinite(trace));
  }
  return agrees;
}

function runTiers(traces: readonly Trace[], folder: string): boolean {
  const baselines = readTierBaselines(folder);
  const memoryFractions = [...new Set(baselines.map((row) => row.memoryFraction))];
  let agrees = true;
  for (const trace of traces) {
    for (const memoryFraction of memoryFractions) {
      const where = `${trace.name.replace('.csv.gz', '')} ${memoryFraction * 100}%+${DISK_FRACTION * 100}%`;
      for (const { label, ratios, baseline } of compareTiers(trace, memoryFraction, DISK_FRACTION, baselines)) {
        const verdict = baseline === undefined ? undefined : agreement(ratios, baseline);
        if (verdict?.agrees === false) agrees = false;
        printRatios(where, label, ratios, ...verdictCells(verdict));
      }
    }
  }
  return agrees;
}

function verdictCells(verdict: ReturnType<typeof agreement> | undefined): readonly (string | number)[] {
  if (verdict === undefined) return [];
  return verdict.agrees ? [verdict.difference] : [verdict.difference, 'DISAGREES'];
}

function runDefaults(traces: readonly Trace[]): boolean {
  const mean = (ratios: readonly Ratios[]): Ratios => ({
    objectHitRatio: ratios.reduce((sum, one) => sum + one.objectHitRatio, 0) / ratios.length,
    byteHitRatio: ratios.reduce((sum, one) => sum + one.byteHitRatio, 0) / ratios.length,
    writtenPerRequested: ratios.reduce((sum, one) => sum + one.writtenPerRequested, 0) / ratios.length,
  });
  const meanOf = (tiers: typeof DEFAULT_TIERS): Ratios =>
    mean(traces.map((trace) => tierRatios(trace, MEMORY_FRACTION, DISK_FRACTION, tiers)));
  const defaults = meanOf(DEFAULT_TIERS);
  const reached = defaults.objectHitRatio >= TARGETS.objectHitRatio && defaults.byteHitRatio >= TARGETS.byteHitRatio;
  printRatios('mean of all', DEFAULT_TIERS.label, defaults, reached ? 'reached' : 'MISSED');
  printRatios('mean of all', SECOND_HIT_TIERS.label, meanOf(SECOND_HIT_TIERS));
  return reached;
}

function run(): number {
  const folder = traceFolder();
  if (folder === undefined) {
    process.stderr.write('There are no traces in ../shared/traces next to this checkout.\n');
    return 1;
  }
  process.stdout.write(
    `node ${process.version}; policies: ${POLICY_NAMES.join(', ')}; replay is deterministic, clairvoyant seed 1\n`,
  );
  print('trace, capacity', 'policy', 'object', 'byte', 'written', 'off by');
  const traces = TRACES.map((name) => readTrace(folder, name));
  const single = traces.map((trace) => runSingle(trace, folder));
  process.stdout.write(`\nTwo tiers, memory + disk as shares of the footprint\n`);
  const tiers = runTiers(traces, folder);
  const defaults = runDefaults(traces);
  return single.every(Boolean) && tiers && defaults ? 0 : 1;
}

process.exitCode = run();
