/**
 * Animated PNG (PNG, third edition, 11.3.3), which the picture library reads as
 * a still: splits the file into one plain PNG per frame, and composes the
 * decoded frames as a browser would show them.
 *
 * Promises: for a file with an inconsistent animation the result is undefined,
 * so that the caller makes a still. Decoding a frame is left to the caller.
 */
import { pngChunk } from '../../../src/media/png.js';

export interface ApngFrame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly delayMs: number;
  /** What happens to the region of the frame before the next frame: it stays, is cleared, or is restored. */
  readonly dispose: 'none' | 'background' | 'previous';
  /** Whether the frame replaces the pixels below or is composited over them. */
  readonly blend: 'source' | 'over';
  /** The frame as a PNG file. */
  readonly png: Buffer;
}

export interface Apng {
  readonly width: number;
  readonly height: number;
  /** 0: for ever. */
  readonly plays: number;
  readonly frames: readonly ApngFrame[];
}

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** Chunks that describe how to read and show pixels, and are copied into the file of every frame. */
const SHARED = new Set(['PLTE', 'tRNS', 'gAMA', 'cHRM', 'sRGB', 'iCCP', 'cICP', 'sBIT', 'eXIf']);

interface Chunk {
  readonly type: string;
  readonly data: Buffer;
}

/** The animation, if it has as many frames as it says, at least two and at most `framesMax`. */
export function parseApng(file: Buffer, framesMax: number): Apng | undefined {
  const apng = readFrames(file, framesMax);
  return apng === undefined || apng.frames.length < 2 || apng.frames.length !== apng.framesStated ? undefined : apng;
}

/**
 * The animation with its first frame alone, if the picture that decoders of plain
 * PNG show, the default image, is not part of the animation. Browsers never show it.
 */
export function openingOfApng(file: Buffer): Apng | undefined {
  const types = [...chunksOf(file)].map(({ type }) => type);
  const [animated, pixels, frame] = ['acTL', 'IDAT', 'fcTL'].map((type) => types.indexOf(type)) as [
    number,
    number,
    number,
  ];
  return pixels < animated || frame < pixels ? undefined : readFrames(file, 1, 'stop');
}

interface ReadApng extends Apng {
  readonly framesStated: number;
}

/** `beyond`: whether more than `framesMax` frames make it undefined, or are left out. */
function readFrames(file: Buffer, framesMax: number, beyond: 'refuse' | 'stop' = 'refuse'): ReadApng | undefined {
  const chunks = [...chunksOf(file)];
  const header = chunks[0];
  const control = chunks.find(({ type }) => type === 'acTL');
  if (header?.type !== 'IHDR' || header.data.length !== 13 || control === undefined || control.data.length !== 8) {
    return undefined;
  }
  const canvas = { width: header.data.readUInt32BE(0), height: header.data.readUInt32BE(4) };
  const shared = chunks.filter(({ type }) => SHARED.has(type));
  const frames: ApngFrame[] = [];
  let open: { control: Buffer; data: Buffer[] } | undefined;
  for (const { type, data } of [...chunks, { type: 'IEND', data: Buffer.alloc(0) }]) {
    if (type === 'fcTL' || type === 'IEND') {
      if (open !== undefined) {
        const frame = frameOf(open.control, open.data, header.data, shared, canvas);
        if (frame === undefined || frames.length === framesMax) return undefined;
        frames.push(frame);
        if (beyond === 'stop' && frames.length === framesMax) break;
      }
      if (type === 'IEND') break;
      if (data.length !== 26) return undefined;
      open = { control: data, data: [] };
    } else if (type === 'IDAT') {
      open?.data.push(data);
    } else if (type === 'fdAT') {
      if (open === undefined || data.length < 4) return undefined;
      open.data.push(data.subarray(4));
    }
  }
  return { ...canvas, plays: control.data.readUInt32BE(4), frames, framesStated: control.data.readUInt32BE(0) };
}

function* chunksOf(file: Buffer): Generator<Chunk> {
  let at = SIGNATURE.length;
  while (at + 12 <= file.length) {
    const length = file.readUInt32BE(at);
    if (at + 12 + length > file.length) return;
    const type = file.toString('latin1', at + 4, at + 8);
    yield { type, data: file.subarray(at + 8, at + 8 + length) };
    if (type === 'IEND') return;
    at += 12 + length;
  }
}

function frameOf(
  control: Buffer,
  data: readonly Buffer[],
  header: Buffer,
  shared: readonly Chunk[],
  canvas: { readonly width: number; readonly height: number },
): ApngFrame | undefined {
  const [width, height, left, top] = [4, 8, 12, 16].map((at) => control.readUInt32BE(at)) as [
    number,
    number,
    number,
    number,
  ];
  const dispose = (['none', 'background', 'previous'] as const)[control[24] ?? 3];
  const blend = (['source', 'over'] as const)[control[25] ?? 2];
  const inside = width > 0 && height > 0 && left + width <= canvas.width && top + height <= canvas.height;
  if (!inside || dispose === undefined || blend === undefined || data.length === 0) return undefined;
  const ownHeader = Buffer.from(header);
  ownHeader.writeUInt32BE(width, 0);
  ownHeader.writeUInt32BE(height, 4);
  const png = Buffer.concat([
    SIGNATURE,
    pngChunk('IHDR', ownHeader),
    ...shared.map((each) => pngChunk(each.type, each.data)),
    ...data.map((each) => pngChunk('IDAT', each)),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
  return { left, top, width, height, delayMs: delayOf(control), dispose, blend, png };
}

/** A fraction of a second; a denominator of 0 means hundredths. */
function delayOf(control: Buffer): number {
  const denominator = control.readUInt16BE(22);
  return Math.round((control.readUInt16BE(20) * 1_000) / (denominator === 0 ? 100 : denominator));
}

/**
 * Every frame as it is shown, in RGBA, one below the other. `decode` returns the
 * RGBA pixels of a frame, not premultiplied.
 */
export async function composeApng(apng: Apng, decode: (png: Buffer) => Promise<Buffer>): Promise<Buffer> {
  const { width, height, frames } = apng;
  const pageBytes = width * height * 4;
  const pages = Buffer.alloc(pageBytes * frames.length);
  const canvas = Buffer.alloc(pageBytes);
  for (const [index, frame] of frames.entries()) {
    const pixels = await decode(frame.png);
    if (pixels.length !== frame.width * frame.height * 4)
      throw new Error('a decoded frame has another size than its header says');
    // Before the first frame the canvas is empty, so restoring it clears it (11.3.3.2).
    const dispose = index === 0 && frame.dispose === 'previous' ? 'background' : frame.dispose;
    const before = dispose === 'previous' ? Buffer.from(canvas) : undefined;
    draw(canvas, width, frame, pixels);
    canvas.copy(pages, index * pageBytes);
    if (before !== undefined) before.copy(canvas);
    if (dispose === 'background') clear(canvas, width, frame);
  }
  return pages;
}

function draw(canvas: Buffer, canvasWidth: number, frame: ApngFrame, pixels: Buffer): void {
  const rowBytes = frame.width * 4;
  for (let row = 0; row < frame.height; row += 1) {
    const to = ((frame.top + row) * canvasWidth + frame.left) * 4;
    const source = pixels.subarray(row * rowBytes, (row + 1) * rowBytes);
    if (frame.blend === 'source') source.copy(canvas, to);
    else composite(canvas.subarray(to, to + rowBytes), source);
  }
}

/** The `over` operation on pixels that are not premultiplied (13.16). */
function composite(below: Buffer, above: Buffer): void {
  for (let at = 0; at < above.length; at += 4) {
    const alpha = above[at + 3] ?? 0;
    if (alpha === 0) continue;
    const belowAlpha = below[at + 3] ?? 0;
    if (alpha === 255 || belowAlpha === 0) {
      above.copy(below, at, at, at + 4);
      continue;
    }
    const kept = belowAlpha * (255 - alpha);
    const total = alpha * 255 + kept;
    for (let channel = at; channel < at + 3; channel += 1) {
      below[channel] = Math.round(((above[channel] ?? 0) * alpha * 255 + (below[channel] ?? 0) * kept) / total);
    }
    below[at + 3] = Math.round(total / 255);
  }
}

function clear(canvas: Buffer, canvasWidth: number, frame: ApngFrame): void {
  for (let row = 0; row < frame.height; row += 1) {
    const from = ((frame.top + row) * canvasWidth + frame.left) * 4;
    canvas.fill(0, from, from + frame.width * 4);
  }
}
