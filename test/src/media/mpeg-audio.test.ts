/** The frames of MPEG audio and ADTS by their lengths, and what may stand before and behind them. */
import t from 'tap';
import { readMpegAudio } from '../../../src/media/mpeg-audio.js';
import { readBytes } from '../../../src/media/reading.js';
import { adtsFrames, id3Tag, mp3Frames } from '../../kit/recordings.js';

const found = (...parts: readonly Buffer[]): string | undefined => readBytes(readMpegAudio(), Buffer.concat(parts));

type Version = 1 | 2 | 2.5;
type Layer = 1 | 2 | 3;

/** Bit rates double every four steps from 64 kbit/s on, or grow evenly (ISO/IEC 11172-3 2.4.2.3, 13818-3 2.4.2.3). */
const DOUBLING = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const EVEN = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

function bitRates(version: Version, layer: Layer): readonly number[] {
  if (version === 1 && layer === 1) return DOUBLING.map((_, index) => 32 * (index + 1));
  if (version === 1 && layer === 2) return [32, ...DOUBLING.slice(2), 384];
  if (version === 1) return DOUBLING;
  return layer === 1 ? [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256] : EVEN;
}

/** Hz at which each version samples, by its index. */
const SAMPLE_RATES: Readonly<Record<Version, readonly number[]>> = {
  1: [44_100, 48_000, 32_000],
  2: [22_050, 24_000, 16_000],
  2.5: [11_025, 12_000, 8_000],
};

/** Samples of a frame: 384 in layer I, 1,152 in the others, half of that in layer III of the lower rates. */
function frameBytes(version: Version, layer: Layer, kbits: number, rate: number, padding: number): number {
  if (layer === 1) return 4 * (Math.floor(((384 / 32) * kbits * 1_000) / rate) + padding);
  const samples = layer === 3 && version !== 1 ? 576 : 1_152;
  return Math.floor(((samples / 8) * kbits * 1_000) / rate) + padding;
}

const VERSION_BITS: Readonly<Record<Version, number>> = { 1: 3, 2: 2, 2.5: 0 };

function head(version: Version, layer: Layer, rateIndex: number, sampleIndex: number, padding = 0): Buffer {
  const second = 0xe0 | (VERSION_BITS[version] << 3) | ((4 - layer) << 1) | 1;
  return Buffer.from([0xff, second, (rateIndex << 4) | (sampleIndex << 2) | (padding << 1), 0x64]);
}

void t.test('each MPEG frame ends where its bit rate and sample rate say', async (t) => {
  for (const version of [1, 2, 2.5] as const) {
    for (const layer of [1, 2, 3] as const) {
      const wrong: string[] = [];
      for (const [index, kbits] of bitRates(version, layer).entries()) {
        for (const [sampleIndex, rate] of SAMPLE_RATES[version].entries()) {
          for (const padding of [0, 1]) {
            const length = frameBytes(version, layer, kbits, rate, padding);
            const first = head(version, layer, index + 1, sampleIndex, padding);
            const framesEvery = (bytes: number): Buffer =>
              Buffer.concat(Array.from({ length: 3 }, () => Buffer.concat([first, Buffer.alloc(bytes - 4)])));
            const right = found(framesEvery(length)) === 'audio/mpeg' && found(framesEvery(length + 1)) === undefined;
            if (!right) wrong.push(`${kbits} kbit/s at ${rate} Hz with padding of ${padding}`);
          }
        }
      }
      t.same(wrong, [], `MPEG-${version} layer ${layer}`);
    }
  }
});

void t.test('a head that names no bit rate, sample rate, version or layer is no frame', async (t) => {
  const frames = (first: Buffer): Buffer =>
    Buffer.concat(Array.from({ length: 4 }, () => Buffer.concat([first, Buffer.alloc(413)])));
  const good = Buffer.from('fffb9064', 'hex');
  t.equal(found(frames(good)), 'audio/mpeg');
  // As long as a frame of the version that its bits are closest to.
  const reserved = Buffer.concat([Buffer.from('ffeb9064', 'hex'), Buffer.alloc(518)]);
  t.equal(found(reserved, reserved, reserved), undefined, 'the reserved version');
  for (const [name, hex] of [
    ['a free bit rate', 'fffb0064'],
    ['the last bit rate', 'fffbf064'],
    ['the last sample rate', 'fffb9c64'],
    ['no layer', 'fff99064'],
    ['a bit missing from the mark', 'ffdb9064'],
    ['another first byte', 'fefb9064'],
  ] as const) {
    t.equal(found(frames(Buffer.from(hex, 'hex'))), undefined, name);
  }
});

void t.test('three frames in a row are proof, and two before other bytes are not', async (t) => {
  const junk = Buffer.alloc(600);
  t.equal(found(mp3Frames(2), junk), undefined);
  t.equal(found(mp3Frames(3), junk), 'audio/mpeg');
  t.equal(found(adtsFrames(2), junk), undefined);
  t.equal(found(adtsFrames(3), junk), 'audio/aac');
});

void t.test('frames agree in version, layer, protection and sample rate, and may differ in bit rate', async (t) => {
  const frame = (hex: string, bytes: number): Buffer =>
    Buffer.concat([Buffer.from(hex, 'hex'), Buffer.alloc(bytes - 4)]);
  const first = frame('fffb9064', 417);
  const junk = Buffer.alloc(600);
  t.equal(found(first, frame('fffba064', 522), first, junk), 'audio/mpeg', 'another bit rate');
  t.equal(found(first, frame('fffa9064', 417), first, junk), 'audio/mpeg', 'with a checksum');
  t.equal(found(first, frame('fffb9164', 417), first, junk), 'audio/mpeg', 'with a private bit');
  t.equal(found(first, frame('00fb9064', 417), first, junk), undefined, 'another first byte');
  t.equal(found(first, frame('fffb9464', 384), first, junk), undefined, 'another sample rate');
  t.equal(found(first, frame('fffd9064', 417), first, junk), undefined, 'another layer');
  const adts = adtsFrames(1);
  const other = Buffer.from(adts);
  other[2] = 0x4c;
  t.equal(found(adts, adts, other, junk), undefined, 'another sample rate of AAC');
});

void t.test('the length of an ADTS frame has thirteen bits, and covers its head', async (t) => {
  const adts = (length: number, rate = 4, second = 0xf1): Buffer => {
    const bytes = Buffer.alloc(Math.max(7, length));
    bytes.set([
      0xff,
      second,
      0x40 | (rate << 2),
      0x80 | (length >> 11),
      (length >> 3) & 0xff,
      ((length & 7) << 5) | 0x1f,
    ]);
    return bytes;
  };
  const three = (...values: Parameters<typeof adts>): Buffer =>
    Buffer.concat([adts(...values), adts(...values), adts(...values), Buffer.alloc(20)]);
  for (const length of [7, 8, 255, 256, 2_047, 2_048, 8_191]) t.equal(found(three(length)), 'audio/aac', `${length}`);
  t.equal(found(three(6)), undefined, 'shorter than its head');
  t.equal(found(three(100, 12)), 'audio/aac', 'the lowest sample rate');
  t.equal(found(three(100, 13)), undefined, 'no sample rate');
  t.equal(found(three(100, 4, 0xf8)), 'audio/aac', 'MPEG-2, with a checksum');
  t.equal(found(three(100, 4, 0xf3)), undefined, 'a layer');
});

void t.test('tags may stand before the frames and behind them', async (t) => {
  const frames = mp3Frames(4);
  const footed = (tag: Buffer): Buffer => {
    const copy = Buffer.concat([tag, Buffer.alloc(10, '3DI')]);
    copy[5] = 0x10;
    return copy;
  };
  // The gap behind the tag would end before the frames if the footer were not counted.
  const gap = Buffer.alloc(8 * 1_024 - 1);
  t.equal(found(id3Tag(20), gap, frames), 'audio/mpeg', 'the last place at which the first frame may begin');
  t.equal(found(id3Tag(20), gap, Buffer.alloc(1), frames), undefined, 'one byte further');
  t.equal(found(footed(id3Tag(20)), gap, frames), 'audio/mpeg', 'a tag with a footer');
  t.equal(found(gap, frames), undefined, 'without a tag the first frame is at the beginning');
  t.equal(found(id3Tag(70_000), gap, frames), 'audio/mpeg', 'a tag whose size takes three bytes');
  t.equal(found(id3Tag(3_000_000), frames), 'audio/mpeg', 'a tag whose size takes four bytes');
  const flagged = id3Tag(20);
  flagged[5] = 0xef;
  t.equal(found(flagged, gap, frames), 'audio/mpeg', 'every flag but that of a footer');
  t.equal(found(flagged, gap, Buffer.alloc(1), frames), undefined, 'and no footer is skipped');
  t.equal(found(id3Tag(20), Buffer.from([0xff]), frames), 'audio/mpeg', 'a byte like the first one of a frame');
  t.equal(found(Buffer.alloc(1), frames), undefined, 'a byte before the frames, and no tag');
  const eight = Array.from({ length: 8 }, () => id3Tag(9_000));
  t.equal(found(...eight, frames), 'audio/mpeg', 'eight tags');
  t.equal(found(...eight, id3Tag(9_000), frames), undefined, 'nine tags');
  const one = mp3Frames(1);
  for (const mark of ['TAG', 'APE', 'LYR']) t.equal(found(one, Buffer.from(`${mark} and more`)), 'audio/mpeg', mark);
  t.equal(found(one, Buffer.from('RIF and more')), undefined);
  t.equal(found(one, Buffer.from(' TAG and more')), undefined, 'a tag one byte behind the frame');
});

void t.test('the last frame may be cut, unless it is the first', async (t) => {
  t.equal(found(mp3Frames(1)), 'audio/mpeg', 'one whole frame');
  t.equal(found(mp3Frames(1).subarray(0, -1)), undefined, 'one frame without its last byte');
  t.equal(found(mp3Frames(2).subarray(0, -1)), 'audio/mpeg');
  t.equal(found(mp3Frames(2), Buffer.alloc(1)), undefined, 'a byte behind the second');
  t.equal(found(mp3Frames(2).subarray(0, 417 + 6)), 'audio/mpeg', 'six bytes of the second');
  t.equal(found(mp3Frames(2).subarray(0, 417 + 5)), undefined, 'fewer bytes than tell the length');
});
