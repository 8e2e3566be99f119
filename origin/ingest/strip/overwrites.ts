/**
 * Changes of a file that leave every byte in its place, for formats in which offsets
 * point at other bytes: metadata is overwritten, and its container marked as free.
 */

/** The bytes from one offset up to another one. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

export interface Overwrite {
  readonly at: number;
  /** Undefined: zeros. */
  readonly bytes: Buffer | undefined;
  readonly length: number;
}

/** How a file is overwritten. */
export type InPlace =
  | { readonly kind: 'overwritten'; readonly overwrites: readonly Overwrite[] }
  /** It may hold metadata that is not found here. */
  | { readonly kind: 'unsupported' }
  /** It is malformed. */
  | { readonly kind: 'broken' };

export const UNSUPPORTED: InPlace = { kind: 'unsupported' };
export const BROKEN: InPlace = { kind: 'broken' };

export function zeros({ from, to }: Extent): Overwrite {
  return { at: from, bytes: undefined, length: Math.max(0, to - from) };
}

export function put(at: number, bytes: Buffer): Overwrite {
  return { at, bytes, length: bytes.length };
}

/** In order, without those that are empty, and joined where they touch or overlap. */
export function joined(extents: readonly Extent[]): readonly Extent[] {
  const found: { from: number; to: number }[] = [];
  for (const { from, to } of extents.filter((each) => each.to > each.from).toSorted((a, b) => a.from - b.from)) {
    const last = found.at(-1);
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to);
    else found.push({ from, to });
  }
  return found;
}

/** The index of the first extent that begins behind `at`, in a list in order. */
export function indexAfter(extents: readonly Extent[], at: number): number {
  let [low, high] = [0, extents.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((extents[middle]?.from ?? 0) <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What is left of `whole` without `taken`, which is joined. */
export function without(whole: Extent, taken: readonly Extent[]): readonly Extent[] {
  const left: Extent[] = [];
  let { from } = whole;
  for (let index = Math.max(0, indexAfter(taken, from) - 1); index < taken.length; index += 1) {
    const each = taken[index];
    if (each === undefined || each.from >= whole.to) break;
    if (each.to <= from) continue;
    if (each.from > from) left.push({ from, to: each.from });
    from = each.to;
  }
  return from < whole.to ? [...left, { from, to: whole.to }] : left;
}
