/** Removes metadata from a PNG. Kept are the chunks needed to decode pixels, and the orientation. */
import { pngChunk } from '../../../src/media/png.js';
import { orientationOnly, turnOf } from './exif.js';

/** The chunks needed to decode pixels or to order frames (PNG, third edition, 11). */
const STAYS = new Set(
  'IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD hIST pHYs sPLT acTL fcTL fdAT'.split(' '),
);

/** The pieces of the file that are kept, in order; undefined if it is malformed. */
export function keepPng(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 8 || bytes.toString('latin1', 1, 4) !== 'PNG') return undefined;
  const kept = [bytes.subarray(0, 8)];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const end = at + 12 + length;
    if (end > bytes.length) return undefined;
    const type = bytes.toString('latin1', at + 4, at + 8);
    if (STAYS.has(type)) kept.push(bytes.subarray(at, end));
    // An unknown critical chunk (5.4) can neither be kept nor dropped safely.
    else if (/^[A-Z]/.test(type)) return undefined;
    else if (type === 'eXIf') {
      const orientation = turnOf(bytes.subarray(at + 8, end - 4));
      if (orientation !== undefined) kept.push(pngChunk('eXIf', orientationOnly(orientation)));
    }
    if (type === 'IEND') return kept;
    at = end;
  }
  return undefined;
}
