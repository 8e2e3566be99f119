/**
 * Recognises MPEG audio (MP3, and layers I and II) and AAC in ADTS. Their frames
 * begin with only eleven or twelve fixed bits, so several frames in a row must agree
 * with each other.
 */
import type { Reading, Span } from './reading.js';

export type MpegAudio = 'audio/mpeg' | 'audio/aac';

const ID3_BYTES = 10;
const ID3_FOOTER = 0x10;
const ID3_TAGS_MAX = 8;
/** How far behind a tag the first frame may be. Some writers make the tag too short, or leave padding behind it. */
const GAP_MAX_BYTES = 8 * 1_024;
/** Frames that must follow each other, unless the file ends before. */
const FRAMES_PROOF = 3;

/** The first frame is at the beginning of the file, or behind its ID3 tags. */
export function* readMpegAudio(): Reading<MpegAudio> {
  const start = yield* skipTags();
  const window = yield { at: start, length: start === 0 ? 1 : GAP_MAX_BYTES };
  for (let at = window.indexOf(0xff); at >= 0; at = window.indexOf(0xff, at + 1)) {
    const found = yield* readFrames(start + at);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The offset behind all ID3v2 tags (ID3v2.4.0 3.1). */
function* skipTags(): Generator<Span, number, Buffer> {
  let at = 0;
  for (let tags = 0; tags < ID3_TAGS_MAX; tags += 1) {
    const tag = yield { at, length: ID3_BYTES };
    if (tag.toString('latin1', 0, 3) !== 'ID3') break;
    const size = tag.subarray(6).reduce((sum, byte) => sum * 128 + (byte & 0x7f), 0);
    const footer = ((tag[5] ?? 0) & ID3_FOOTER) === 0 ? 0 : ID3_BYTES;
    at += ID3_BYTES + size + footer;
  }
  return at;
}

/** The type of the frames at `start`; undefined if they prove nothing. */
function* readFrames(start: number): Reading<MpegAudio> {
  const first = yield* readFrame(start);
  if (first === undefined) return undefined;
  let at = start + first.bytes;
  for (let frames = 1; frames < FRAMES_PROOF; frames += 1) {
    if (yield* endsAt(at, frames)) return first.type;
    const next = yield* readFrame(at);
    if (next?.kind !== first.kind) return undefined;
    at += next.bytes;
  }
  return first.type;
}

interface Frame {
  readonly type: MpegAudio;
  /** What all frames of a stream have in common. */
  readonly kind: string;
  readonly bytes: number;
}

function* readFrame(at: number): Reading<Frame> {
  const head = yield { at, length: 6 };
  if (head.length < 6 || head[0] !== 0xff) return undefined;
  return (head.readUInt8(1) & 0xf6) === 0xf0 ? adtsFrame(head) : mpegFrame(head);
}

/** Whether the audio ends here: with the file, with a tag, or, after a whole frame, within the next one. */
function* endsAt(at: number, frames: number): Generator<Span, boolean, Buffer> {
  // The last byte of the frame before, which must be there, and what follows it.
  const rest = yield { at: at - 1, length: 4 };
  if (rest.length <= 1) return rest.length === 1 || frames > 1;
  return /^(?:TAG|APE|LYR)/.test(rest.toString('latin1', 1, 4));
}

/** ADTS: fixed header, then the length of the frame (ISO/IEC 13818-7 6.2). */
function adtsFrame(head: Buffer): Frame | undefined {
  const bytes = (head.readUIntBE(3, 3) >>> 5) & 0x1fff;
  const third = head.readUInt8(2);
  const rate = (third >>> 2) & 0x0f;
  if (rate > 12 || bytes < 7) return undefined;
  return { type: 'audio/aac', kind: `${head[1]} ${third & 0xfc}`, bytes };
}

/** kbit/s by the bit rate index less one, for layers I, II and III of MPEG-1, and for layers I and II/III of MPEG-2 (ISO/IEC 11172-3 2.4.2.3). */
const RATES_1: readonly (readonly number[])[] = [
  Array.from({ length: 14 }, (_, index) => 32 * (index + 1)),
  [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
];
const LOW_RATES = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
const RATES_2: readonly (readonly number[])[] = [
  [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
  LOW_RATES,
  LOW_RATES,
];
const SAMPLE_RATES = [44_100, 48_000, 32_000];

function mpegFrame(head: Buffer): Frame | undefined {
  const [second, third] = [head.readUInt8(1), head.readUInt8(2)];
  // Version: 0 is MPEG-2.5, 2 is MPEG-2, 3 is MPEG-1. Layer: 0 is I, 1 is II, 2 is III.
  const version = (second >>> 3) & 3;
  const layer = 3 - ((second >>> 1) & 3);
  const kbits = (version === 3 ? RATES_1 : RATES_2)[layer]?.[(third >>> 4) - 1];
  const rate = SAMPLE_RATES[(third >>> 2) & 3];
  if (second < 0xe0 || version === 1 || kbits === undefined || rate === undefined) return undefined;
  const samples = rate / (version === 3 ? 1 : version === 2 ? 2 : 4);
  const padding = (third >>> 1) & 1;
  const slots = layer === 0 ? 12 : layer === 2 && version !== 3 ? 72 : 144;
  const bytes = (Math.floor((slots * kbits * 1_000) / samples) + padding) * (layer === 0 ? 4 : 1);
  return { type: 'audio/mpeg', kind: `${second & 0xfe} ${third & 0x0c}`, bytes };
}
