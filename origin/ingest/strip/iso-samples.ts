/**
 * Where the samples of a track are in a file (ISO/IEC 14496-12 8.7). Samples of one
 * size are often counted in other units than bytes, as in QuickTime sound. So a
 * chunk of them is taken to end where the next chunk of any track begins.
 */
import { boxOf, type IsoBox } from './iso-boxes.js';
import { type Extent, indexAfter } from './overwrites.js';

export interface Chunks {
  readonly offsets: readonly number[];
  /** The extents of chunks whose samples differ in size; undefined if all have one size. */
  readonly extents: readonly Extent[] | undefined;
}

/** Undefined if the tables are malformed. */
export function readChunks(tables: readonly IsoBox[]): Chunks | undefined {
  const offsets = readOffsets(tables);
  const sizes = readSizes(tables);
  const runs = boxOf(tables, 'stsc')?.data;
  if (offsets === undefined || sizes === undefined || runs === undefined || runs.length < 8) return undefined;
  if (sizes === 'uniform') return { offsets, extents: undefined };
  const runsCount = runs.readUInt32BE(4);
  if (runsCount > (runs.length - 8) / 12) return undefined;
  const extents: Extent[] = [];
  let [run, sample, perChunk] = [0, 0, 0];
  for (const [index, from] of offsets.entries()) {
    while (run < runsCount && runs.readUInt32BE(8 + run * 12) <= index + 1) {
      perChunk = runs.readUInt32BE(8 + run * 12 + 4);
      run += 1;
    }
    const last = Math.min(sample + perChunk, sizes.length);
    let to = from;
    for (; sample < last; sample += 1) to += sizes[sample] ?? 0;
    extents.push({ from, to });
  }
  return { offsets, extents };
}

/** The extents of chunks of samples of one size: each ends where the next chunk of any track begins. */
export function extentsUpToNext(offsets: readonly number[], allOffsets: readonly number[]): readonly Extent[] {
  const starts = allOffsets.toSorted((a, b) => a - b).map((from) => ({ from, to: from }));
  return offsets.map((from) => ({ from, to: starts[indexAfter(starts, from)]?.from ?? Number.POSITIVE_INFINITY }));
}

function readOffsets(tables: readonly IsoBox[]): readonly number[] | undefined {
  const short = boxOf(tables, 'stco')?.data;
  const data = short ?? boxOf(tables, 'co64')?.data;
  if (data === undefined || data.length < 8) return undefined;
  const bytes = short === undefined ? 8 : 4;
  const count = data.readUInt32BE(4);
  if (count > (data.length - 8) / bytes) return undefined;
  return Array.from({ length: count }, (_, index) =>
    bytes === 4 ? data.readUInt32BE(8 + index * 4) : Number(data.readBigUInt64BE(8 + index * 8)),
  );
}

function readSizes(tables: readonly IsoBox[]): Uint32Array | 'uniform' | undefined {
  const plain = boxOf(tables, 'stsz')?.data;
  const compact = boxOf(tables, 'stz2')?.data;
  const data = plain ?? compact;
  if (data === undefined || data.length < 12) return undefined;
  if (plain !== undefined && plain.readUInt32BE(4) !== 0) return 'uniform';
  const bits = compact === undefined ? 32 : (compact[7] ?? 0);
  const count = data.readUInt32BE(8);
  if (![4, 8, 16, 32].includes(bits) || count > ((data.length - 12) * 8) / bits) return undefined;
  return Uint32Array.from({ length: count }, (_, index) => {
    if (bits === 4) return ((data[12 + (index >> 1)] ?? 0) >> (index % 2 === 0 ? 4 : 0)) & 15;
    return data.readUIntBE(12 + (index * bits) / 8, bits / 8);
  });
}
