/** Removes metadata from a WebP (RFC 9649). Kept are the chunks needed to decode pixels, and the orientation. */
import { orientationOnly, turnOf, withoutMark } from './exif.js';

const STAYS = new Set(['VP8 ', 'VP8L', 'VP8X', 'ICCP', 'ALPH', 'ANIM', 'ANMF']);
const STAYS_IN_FRAME = new Set(['VP8 ', 'VP8L', 'ALPH']);
/** What stands before the chunks of a frame (2.7.1.1). */
const FRAME_HEAD_BYTES = 16;
/** The flags of VP8X for EXIF and XMP chunks (2.7.1). */
const EXIF_FLAG = 0x08;
const XMP_FLAG = 0x04;

interface Chunk {
  readonly type: string;
  /** With its head and its padding. */
  readonly whole: Buffer;
  readonly data: Buffer;
}

/** The pieces of the file that are kept, in order; undefined if it is malformed. */
export function keepWebp(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 20 || bytes.toString('latin1', 0, 4) !== 'RIFF' || bytes.toString('latin1', 8, 12) !== 'WEBP') {
    return undefined;
  }
  const end = 8 + bytes.readUInt32LE(4);
  const chunks = end > bytes.length ? undefined : chunksIn(bytes.subarray(12, end));
  if (chunks === undefined) return undefined;
  const [orientation] = chunks
    .filter(({ type }) => type === 'EXIF')
    .map(({ data }) => turnOf(withoutMark(data)))
    .filter((turn) => turn !== undefined);
  const kept: Buffer[] = [];
  let extended = false;
  for (const chunk of chunks.filter(({ type }) => STAYS.has(type))) {
    const isExtended = chunk.type === 'VP8X' && chunk.data.length >= 10;
    extended ||= isExtended;
    const piece = isExtended ? withFlags(chunk, orientation) : chunk.type === 'ANMF' ? keepFrame(chunk) : chunk.whole;
    if (piece === undefined) return undefined;
    kept.push(piece);
  }
  // A picture can only be turned in the extended format.
  if (extended && orientation !== undefined) kept.push(chunkOf('EXIF', orientationOnly(orientation)));
  return [chunkHead('RIFF', 4 + kept.reduce((sum, { length }) => sum + length, 0)), Buffer.from('WEBP'), ...kept];
}

/** Undefined if the last chunk is cut short. */
function chunksIn(bytes: Buffer): readonly Chunk[] | undefined {
  const chunks: Chunk[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (at + 8 > bytes.length) return undefined;
    const length = bytes.readUInt32LE(at + 4);
    const next = at + 8 + length + (length % 2);
    if (next > bytes.length) return undefined;
    const type = bytes.toString('latin1', at, at + 4);
    chunks.push({ type, whole: bytes.subarray(at, next), data: bytes.subarray(at + 8, at + 8 + length) });
    at = next;
  }
  return chunks;
}

function withFlags({ whole }: Chunk, orientation: number | undefined): Buffer {
  const copy = Buffer.from(whole);
  copy[8] = ((copy[8] ?? 0) & ~(EXIF_FLAG | XMP_FLAG)) | (orientation === undefined ? 0 : EXIF_FLAG);
  return copy;
}

/** A frame may hold unknown chunks behind its picture (2.7.1.1). */
function keepFrame({ data }: Chunk): Buffer | undefined {
  const chunks = chunksIn(data.subarray(FRAME_HEAD_BYTES));
  const kept = chunks?.filter(({ type }) => STAYS_IN_FRAME.has(type)).map(({ whole }) => whole);
  return kept && chunkOf('ANMF', Buffer.concat([data.subarray(0, FRAME_HEAD_BYTES), ...kept]));
}

/** A chunk of data of even length, which needs no padding. */
function chunkOf(type: string, data: Buffer): Buffer {
  return Buffer.concat([chunkHead(type, data.length), data]);
}

function chunkHead(type: string, length: number): Buffer {
  const head = Buffer.alloc(8);
  head.write(type, 0, 'latin1');
  head.writeUInt32LE(length, 4);
  return head;
}
