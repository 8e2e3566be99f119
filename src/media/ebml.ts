/** Reads the heads of EBML elements (RFC 8794), of which Matroska and WebM files are made. */
import type { Reading } from './reading.js';

/** The content of an element. */
export interface ElementExtent {
  readonly from: number;
  readonly to: number;
}

export interface Element extends ElementExtent {
  readonly id: number;
}

/** An element's id and size (RFC 8794 4, 5 and 6). Without a size it ends where its parent ends. */
export function* readElement(at: number): Reading<Element> {
  const head = yield { at, length: 12 };
  const idBytes = Math.clz32(head[0] ?? 0) - 23;
  const sizeBytes = Math.clz32(head[idBytes] ?? 0) - 23;
  const headBytes = idBytes + sizeBytes;
  if (idBytes > 4 || sizeBytes > 8 || headBytes > head.length) return undefined;
  const from = at + headBytes;
  return { id: head.readUIntBE(0, idBytes), from, to: from + readSize(head.subarray(idBytes, headBytes)) };
}

/** The value of a size; infinite if all its bits are set, which means unknown (RFC 8794 6.2). */
function readSize(field: Buffer): number {
  let size = (field[0] ?? 0) & (0xff >> field.length);
  let known = size !== 0xff >> field.length;
  for (const byte of field.subarray(1)) {
    size = size * 256 + byte;
    known ||= byte !== 0xff;
  }
  return known ? size : Number.POSITIVE_INFINITY;
}
