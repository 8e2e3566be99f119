/**
 * Removes metadata from a GIF (GIF89a): comments, texts, XMP and all other
 * application extensions but those that repeat the animation or hold the colour
 * profile. Data after the end is dropped.
 */

const [EXTENSION, IMAGE, TRAILER] = [0x21, 0x2c, 0x3b] as const;
const [PLAIN_TEXT, GRAPHIC_CONTROL, APPLICATION] = [0x01, 0xf9, 0xff] as const;
const APPLICATIONS = new Set(['NETSCAPE2.0', 'ANIMEXTS1.0', 'ICCRGBG1012']);

/** The pieces of the file that are kept, in order; undefined if it is malformed. */
export function keepGif(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 13 || !/^GIF8[79]a$/.test(bytes.toString('latin1', 0, 6))) return undefined;
  const start = 13 + colourTableBytes(bytes[10] ?? 0);
  const kept = [bytes.subarray(0, start)];
  /** The place of a graphic control, which belongs to the picture or the text that follows it (23). */
  let controlAt: number | undefined;
  let images = 0;
  for (let at = start; at < bytes.length; ) {
    const introducer = bytes[at];
    if (introducer === TRAILER) {
      kept.push(bytes.subarray(at, at + 1));
      break;
    }
    const end = introducer === IMAGE ? endOfImage(bytes, at) : introducer === EXTENSION ? endOfExtension(bytes, at) : 0;
    // Decoders show the pictures before a damaged block, and what there is of a picture that is cut short.
    if (end === 0) break;
    const block = bytes.subarray(at, end);
    at = end;
    const label = introducer === IMAGE ? undefined : block[1];
    if (label === PLAIN_TEXT && controlAt !== undefined) kept.splice(controlAt, 1);
    if (label === undefined || label === PLAIN_TEXT) controlAt = undefined;
    if (label === undefined) images += 1;
    else if (label === GRAPHIC_CONTROL && block.length === 8) controlAt = kept.length;
    else if (label !== APPLICATION || !APPLICATIONS.has(block.toString('latin1', 3, 14))) continue;
    kept.push(block);
  }
  return images > 0 ? kept : undefined;
}

/** The size of the table that a packed field announces (18, 20). */
function colourTableBytes(packed: number): number {
  return (packed & 0x80) === 0 ? 0 : 3 * 2 ** ((packed & 7) + 1);
}

/** What there is of it, if it is cut short; 0 if it has no data. */
function endOfImage(bytes: Buffer, at: number): number {
  const data = at + 10 + colourTableBytes(bytes[at + 9] ?? 0) + 1;
  return data >= bytes.length ? 0 : Math.min(endOfSubBlocks(bytes, data), bytes.length);
}

/** 0 if the extension is cut short. */
function endOfExtension(bytes: Buffer, at: number): number {
  const end = endOfSubBlocks(bytes, at + 2);
  return end > bytes.length ? 0 : end;
}

/** The offset after the block of length 0 that ends a sequence of blocks (15). Beyond the bytes if they end before. */
function endOfSubBlocks(bytes: Buffer, start: number): number {
  let at = start;
  for (let length = bytes[at] ?? 0; length !== 0; length = bytes[at] ?? 0) at += 1 + length;
  return at + 1;
}
