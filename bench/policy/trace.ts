/** The traces (gzip CSV `ts,id,size`) and their published figures (tab-separated tables in the same folder). */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

export const TRACES = [
  'web-bu98.csv.gz',
  'web12-metasize.csv.gz',
  'scarab400k-metasize.csv.gz',
  'akmix-chat.csv.gz',
] as const;
export type TraceName = (typeof TRACES)[number];

/** The requests in order, as two columns; the size of an id is constant. */
export interface Trace {
  readonly name: string;
  readonly ids: Int32Array;
  readonly sizes: Float64Array;
  /** Number of different ids; ids are dense from 0. */
  readonly objects: number;
  readonly footprintBytes: number;
  readonly requestedBytes: number;
}

/** The folder of the traces next to the checkout; undefined if there is none. */
export function traceFolder(): string | undefined {
  const folder = join(process.cwd(), '..', 'shared', 'traces');
  return existsSync(join(folder, 'baselines.tsv')) ? folder : undefined;
}

export function readTrace(folder: string, name: TraceName): Trace {
  const text = gunzipSync(readFileSync(join(folder, name))).toString('latin1');
  const lines = text.trimEnd().split('\n').slice(1);
  const ids = new Int32Array(lines.length);
  const sizes = new Float64Array(lines.length);
  const footprint = new Map<number, number>();
  let requestedBytes = 0;
  for (const [at, line] of lines.entries()) {
    const [, id = '', size = ''] = line.split(',');
    ids[at] = Number(id);
    sizes[at] = Number(size);
    requestedBytes += Number(size);
    footprint.set(Number(id), Number(size));
  }
  const footprintBytes = [...footprint.values()].reduce((sum, size) => sum + size, 0);
  return { name, ids, sizes, objects: footprint.size, footprintBytes, requestedBytes };
}

export interface Baseline {
  readonly trace: string;
  readonly fraction: number;
  readonly capacityBytes: number;
  readonly policy: string;
  readonly objectHitRatio: number;
  readonly byteHitRatio: number;
}

export function readBaselines(folder: string): readonly Baseline[] {
  return rowsOf(join(folder, 'baselines.tsv')).map(([trace = '', fraction, capacity, policy = '', objects, bytes]) => ({
    trace,
    fraction: Number(fraction),
    capacityBytes: Number(capacity),
    policy,
    objectHitRatio: Number(objects),
    byteHitRatio: Number(bytes),
  }));
}

export interface TierBaseline {
  readonly trace: string;
  readonly memoryFraction: number;
  readonly diskFraction: number;
  readonly policies: string;
  readonly objectHitRatio: number;
  readonly byteHitRatio: number;
  readonly writtenPerRequested: number;
}

export function readTierBaselines(folder: string): readonly TierBaseline[] {
  return rowsOf(join(folder, 'baselines-tiers.tsv')).map(
    ([trace = '', memory, disk, policies = '', objects, bytes, , written]) => ({
      trace,
      memoryFraction: Number(memory),
      diskFraction: Number(disk),
      policies,
      objectHitRatio: Number(objects),
      byteHitRatio: Number(bytes),
      writtenPerRequested: Number(written),
    }),
  );
}

function rowsOf(path: string): readonly (readonly string[])[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split('\t'));
}
