/** The boxes of an ISO base media file (ISO/IEC 14496-12 4.2) with their places. */
import { type Overwrite, put, zeros } from './overwrites.js';

export interface IsoBox {
  readonly type: string;
  /** The offset of its head in the file. */
  readonly at: number;
  /** The offset after it in the file. */
  readonly end: number;
  /** Its content, and the offset of that in the file. */
  readonly data: Buffer;
  readonly dataAt: number;
}

/** More boxes than a box of an intact file has. */
const BOXES_MAX = 65_536;

/**
 * The boxes in `bytes`, which are at `base` in the file; undefined if a box is malformed. Fewer than eight bytes may
 * follow the last box, as in QuickTime.
 */
export function boxesIn(bytes: Buffer, base: number): readonly IsoBox[] | undefined {
  const boxes: IsoBox[] = [];
  for (let at = 0; at + 8 <= bytes.length; ) {
    const short = bytes.readUInt32BE(at);
    if (short === 1 && at + 16 > bytes.length) return undefined;
    const headBytes = short === 1 ? 16 : 8;
    const size = short === 1 ? Number(bytes.readBigUInt64BE(at + 8)) : short === 0 ? bytes.length - at : short;
    if (size < headBytes || at + size > bytes.length || boxes.length >= BOXES_MAX) return undefined;
    const end = at + size;
    const type = bytes.toString('latin1', at + 4, at + 8);
    boxes.push({
      type,
      at: base + at,
      end: base + end,
      data: bytes.subarray(at + headBytes, end),
      dataAt: base + at + headBytes,
    });
    at = end;
  }
  return boxes;
}

/** Makes a box free space, so that no other byte changes its place (8.1.2). */
export function freed({ at, dataAt, end }: Pick<IsoBox, 'at' | 'dataAt' | 'end'>): readonly Overwrite[] {
  return [put(at + 4, Buffer.from('free', 'latin1')), zeros({ from: dataAt, to: end })];
}

export function boxOf(boxes: readonly IsoBox[], type: string): IsoBox | undefined {
  return boxes.find((each) => each.type === type);
}
