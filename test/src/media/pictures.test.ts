/** The heads of pictures, byte by byte: what their size, orientation and number of frames are read from. */
import t from 'tap';
import { readDimensions } from '../../../src/media/dimensions.js';
import { countScans, hasSegment, nextMarker } from '../../../src/media/jpeg.js';
import { pngChunk } from '../../../src/media/png.js';
import { hex, join, latin1 } from '../../kit/bytes.js';

const u32 = (value: number): Buffer => hex((value >>> 0).toString(16).padStart(8, '0'));
const tiff = (orientation: number): Buffer => hex(`4d4d002a 00000008 0001 0112 0003 00000001 000${orientation} 0000`);
/** Behind what decides, so that no file is shorter than the heads that are told apart. */
const REST = Buffer.alloc(12);
const size = (...parts: readonly Buffer[]) => readDimensions(join(...parts));
const upright = (width: number, height: number, frames: number | null = 1) => ({
  width,
  height,
  orientation: 1,
  frames,
});

void t.test('a chunk of a PNG has its length before it and its checksum behind it', async (t) => {
  t.same(pngChunk('IEND', Buffer.alloc(0)), hex('00000000 49454e44 ae426082'));
  t.same(pngChunk('tEXt', latin1('a')), hex('00000001 74455874 61 75f38b29'));
});

void t.test('PNG: the size is in IHDR, and frames and orientation before the pixels', async (t) => {
  const mark = hex('89504e470d0a1a0a');
  const chunk = (type: string, data: Buffer = Buffer.alloc(0)): Buffer =>
    join(u32(data.length), latin1(type), data, Buffer.alloc(4));
  const header = chunk('IHDR', join(u32(70_000), u32(3), hex('0802000000')));
  const frames = (count: number): Buffer => chunk('acTL', join(u32(count), u32(0)));
  const idat = chunk('IDAT', latin1('pixels'));
  const still = upright(70_000, 3);
  t.same(size(mark, header, idat), still);
  t.same(size(mark, header, chunk('IEND')), still, 'without pixels');
  t.same(size(mark, header, chunk('tEXt', latin1('IDAT acTL')), frames(2), idat), { ...still, frames: 2 });
  t.same(size(mark, header, idat, frames(2)), still, 'frames announced behind the pixels');
  t.same(size(mark, header, frames(0), idat), still);
  t.same(size(mark, header, frames(1), idat), still);
  t.same(size(mark, header, frames(0x7fffffff), idat), { ...still, frames: 0x7fffffff });
  t.same(size(mark, header, frames(0x80000000), idat), still, 'more than a PNG integer holds');
  t.same(size(mark, header, frames(2).subarray(0, 10)), undefined, 'cut in the number of frames');
  const turned = { width: 3, height: 70_000, frames: 1 };
  t.same(size(mark, header, chunk('eXIf', tiff(8)), idat), { ...turned, orientation: 8 });
  t.same(size(mark, header, chunk('eXIf', tiff(5)), idat), { ...turned, orientation: 5 });
  t.same(size(mark, header, chunk('eXIf', tiff(4)), idat), { ...still, orientation: 4 });
  t.same(size(mark, header, chunk('eXIf', tiff(9)), idat), still, 'an orientation that there is not');
  t.same(size(mark, header, idat, chunk('eXIf', tiff(8))), still, 'EXIF behind the pixels');
  t.same(size(mark, header, idat.subarray(0, 8)), still, 'the head of the pixels');
  t.equal(size(mark, header, idat.subarray(0, 7)), undefined);
  t.equal(size(mark, header), undefined);
  t.equal(size(mark, header.subarray(0, 15)), undefined, 'half a size');
  t.equal(size(mark, idat, header), undefined, 'IHDR is not first');
  t.equal(size(hex('89504e480d0a1a0a'), header, idat), undefined, 'another name');
  t.equal(size(hex('89504e470d0a1a0b'), header, idat), undefined, 'another mark');
  for (const [width, height] of [
    [0, 3],
    [3, 0],
  ] as const) {
    t.equal(
      size(mark, chunk('IHDR', join(u32(width), u32(height), hex('0802000000'))), idat),
      undefined,
      'an empty one',
    );
  }
});

void t.test('GIF: each image is a frame, and the first one may enlarge the screen', async (t) => {
  const screen = (packed: number): Buffer => join(latin1('GIF89a'), hex('0500 0400'), Buffer.from([packed, 0, 0]));
  const image = (packed = 0): Buffer =>
    join(
      hex('2c 0100 0200 0400 0200'),
      Buffer.from([packed]),
      Buffer.alloc(packed < 128 ? 0 : 3 * 2 ** ((packed & 7) + 1), 0x3b),
      hex('02 02 3b3b 01 3b 00'),
    );
  const control = hex('21f9 04 00000000 00');
  const comment = join(hex('21fe 03'), latin1(';,!'), hex('00'));
  const end = hex('3b');
  t.same(size(screen(0), image(), end), upright(5, 4));
  t.same(size(screen(0), control, image(), comment, image(), image(), end), upright(5, 4, 3));
  t.same(size(latin1('GIF87a'), screen(0).subarray(6), image(), image(), end), upright(5, 4, 2));
  t.same(size(screen(0x80), Buffer.alloc(6, 0x2c), image(), end), upright(5, 4), 'a colour table of two');
  t.same(size(screen(0x77), image(), image(), end), upright(5, 4, 2), 'a table that is announced by size alone');
  t.same(size(screen(0xf7), Buffer.alloc(768, 0x2c), image(), end), upright(5, 4), 'a colour table of 256');
  t.same(size(screen(0), image(0x82), image(0x87), image(0x47), end), upright(5, 4, 3), 'tables of the images');
  t.same(size(screen(0), image()), upright(5, 4, null), 'without an end the number of frames is not known');
  t.same(size(screen(0), image(), comment.subarray(0, 3)), upright(5, 4, null));
  t.same(size(screen(0), end), upright(5, 4), 'no image');
  t.same(size(screen(0)), upright(5, 4, null), 'the screen alone');
  t.equal(size(screen(0).subarray(0, 12)), undefined, 'a screen that is cut');
  t.equal(size(latin1('GIF88a'), screen(0).subarray(6), image(), end), undefined);
  const larger = hex('2c 0300 0400 0300 0900 00 02 00');
  t.same(size(screen(0), larger, end), upright(6, 13), 'the place and the size of the first frame');
  t.same(size(screen(0), image(), larger, end), upright(5, 4, 2), 'a second frame is cut');
  t.same(size(screen(0), larger.subarray(0, 9)), upright(6, 13, null), 'a descriptor that is there as far as its size');
  t.same(size(screen(0), larger.subarray(0, 8)), upright(5, 4, null), 'and one that is not');
});

void t.test('WebP: the chunks tell the size, EXIF behind the pixels, and the frames', async (t) => {
  const chunk = (type: string, data: Buffer): Buffer => {
    const head = Buffer.alloc(8);
    head.write(type, 'latin1');
    head.writeUInt32LE(data.length, 4);
    return join(head, data, Buffer.alloc(data.length % 2));
  };
  const webp = (...chunks: readonly Buffer[]): Buffer => {
    const body = join(latin1('WEBP'), ...chunks);
    const head = latin1('RIFF....');
    head.writeUInt32LE(body.length, 4);
    return join(head, body);
  };
  const lossy = chunk('VP8 ', hex('000000 9d012a ffc1 0340'));
  const lossless = chunk('VP8L', hex('2f 2a400000'));
  const extended = (flags: number): Buffer => chunk('VP8X', join(Buffer.from([flags, 0, 0, 0]), hex('102700 020001')));
  const frame = chunk('ANMF', Buffer.alloc(31));
  const [EXIF, MOVES] = [0x08, 0x02];
  t.same(size(webp(lossy)), upright(0x1ff, 3), 'fourteen bits of each side; two say how to scale');
  t.same(size(webp(lossless)), upright(0x2b, 2), 'fourteen bits of each side, less one');
  t.same(size(webp(chunk('VP8L', hex('2f ffffff3f')))), upright(0x4000, 0x4000));
  t.same(size(webp(chunk('VP8L', hex('2f 00c0ff0f')))), upright(1, 0x4000));
  t.same(size(webp(extended(0), chunk('ICCP', Buffer.alloc(3)), lossy)), upright(10_001, 0x10003), 'the canvas');
  t.same(size(webp(chunk('ICCP', Buffer.alloc(3)), lossy)), upright(0x1ff, 3), 'behind a chunk with a padding byte');
  t.same(size(webp(chunk('ALPH', Buffer.alloc(40)), lossy)), upright(0x1ff, 3));
  const exif = chunk('EXIF', tiff(6));
  const turned = { width: 0x10003, height: 10_001, orientation: 6, frames: 1 };
  t.same(size(webp(extended(EXIF), lossy, exif)), turned);
  t.same(size(webp(extended(EXIF), lossy, chunk('EXIF', join(latin1('Exif\0\0'), tiff(6))))), turned, 'with a mark');
  t.same(size(webp(extended(EXIF), lossy, chunk('EXIF', tiff(9)))), upright(10_001, 0x10003), 'no valid orientation');
  t.same(size(webp(extended(0), lossy, exif)), upright(10_001, 0x10003), 'EXIF that the head does not announce');
  t.same(size(webp(extended(0xf5), lossy, exif)), upright(10_001, 0x10003), 'every flag but the two');
  t.same(size(webp(extended(EXIF), lossy, chunk('XMP ', tiff(6)))), upright(10_001, 0x10003), 'not in another chunk');
  t.same(size(webp(chunk('ALPH', hex('2f 2a400000')), lossy)), upright(0x1ff, 3), 'a size in another chunk');
  t.same(size(webp(extended(EXIF), lossy)), upright(10_001, 0x10003), 'EXIF that is not there');
  t.same(size(webp(extended(MOVES), frame, frame, frame)), upright(10_001, 0x10003, 3));
  t.same(size(webp(extended(MOVES))), upright(10_001, 0x10003), 'a picture without frames');
  t.same(size(webp(extended(EXIF | MOVES), frame, frame, exif)), { ...turned, frames: 2 });
  const whole = webp(extended(EXIF | MOVES), frame, frame, exif);
  t.equal(size(whole.subarray(0, -1)), undefined, 'EXIF that may not be whole');
  t.same(size(webp(extended(MOVES), frame, frame).subarray(0, -1)), upright(10_001, 0x10003, null), 'cut in a frame');
  t.same(size(webp(extended(MOVES), frame, frame).subarray(0, -33)), upright(10_001, 0x10003, null), 'cut in a head');
  t.same(size(webp(extended(MOVES), frame), frame), upright(10_001, 0x10003), 'a frame behind the end does not count');
  t.equal(size(webp(lossy).subarray(0, 29)), undefined, 'a head that is cut');
  t.equal(size(webp(chunk('VP8 ', hex('000000 9d012b ff01 0300 0000')))), undefined, 'another start code');
  t.equal(size(webp(chunk('VP8 ', hex('000000 9d012a ff01 03')))), undefined, 'a key frame that is too short');
  t.equal(size(webp(chunk('VP8L', hex('2e 2a400000')))), undefined, 'another signature');
  t.equal(size(webp(chunk('VP8L', hex('2f 2a4000')))), undefined, 'a head of four bytes');
  t.equal(size(webp(chunk('VP8X', Buffer.alloc(9)))), undefined, 'a canvas of nine bytes');
  t.equal(size(webp(chunk('VP8Y', hex('000000 9d012a ff01 0300 0000')))), undefined, 'another chunk');
  t.equal(size(webp()), undefined, 'no chunk');
  t.equal(size(latin1('RIFF'), webp(lossy).subarray(4, 8), latin1('WAVE'), lossy), undefined, 'another kind of RIFF');
  t.equal(size(latin1('RIFX'), webp(lossy).subarray(4)), undefined, 'in the other byte order');
  t.same(size(webp(lossy, chunk('EXIF', tiff(6)))), upright(0x1ff, 3), 'a simple picture has no orientation');
});

const segment = (code: number, data: Buffer): Buffer =>
  join(Buffer.from([0xff, code, (data.length + 2) >> 8, (data.length + 2) & 255]), data);
const START = hex('ffd8');
const FRAME = hex('08 0003 0200 01 011100');
const inJpeg = upright(0x200, 3);

void t.test('JPEG: the first frame header has the size, wherever it stands', async (t) => {
  for (let code = 0xc0; code <= 0xcf; code += 1) {
    const isFrame = ![0xc4, 0xc8, 0xcc].includes(code);
    t.same(size(START, segment(code, FRAME), REST), isFrame ? inJpeg : undefined, code.toString(16));
  }
  for (const code of [0xbf, 0xd0, 0xdb, 0xe0, 0xf0, 0xfe]) t.equal(size(START, segment(code, FRAME), REST), undefined);
  const wrong: number[] = [];
  for (let before = 0; before < 600; before += 1) {
    const found = size(START, Buffer.alloc(before, 0x11), segment(0xc0, FRAME), REST);
    if (found?.width !== 0x200 || found.height !== 3) wrong.push(before);
  }
  t.same(wrong, [], 'behind any number of other bytes');
  t.same(size(START, segment(0xc0, FRAME).subarray(0, 9), Buffer.alloc(0)), undefined, 'shorter than any picture');
  const behind = segment(0xe5, Buffer.alloc(300, 0xff));
  t.same(size(START, behind, segment(0xc2, FRAME).subarray(0, 9)), inJpeg, 'the last byte of the width ends the file');
  t.equal(size(START, behind, segment(0xc2, FRAME).subarray(0, 8)), undefined, 'one byte less');
  t.same(size(START, hex('ff01 ffd0 ffd7 ffd8'), segment(0xc0, FRAME), REST), inJpeg, 'markers that stand alone');
  t.same(size(START, hex('ffffff'), segment(0xc0, FRAME), REST), inJpeg, 'fill bytes');
  t.equal(size(START, hex('ffd9'), segment(0xc0, FRAME), REST), undefined, 'behind the end');
  t.equal(size(START, segment(0xda, Buffer.alloc(4)), segment(0xc0, FRAME), REST), undefined, 'behind a scan');
  t.same(
    size(START, segment(0xdb, segment(0xc0, Buffer.alloc(9))), segment(0xc0, FRAME), REST),
    inJpeg,
    'not in a table',
  );
});

void t.test('JPEG: the first EXIF segment before the frame header has the orientation', async (t) => {
  const exif = (orientation: number): Buffer => segment(0xe1, join(latin1('Exif\0\0'), tiff(orientation)));
  const turned = { width: 3, height: 0x200, orientation: 6, frames: 1 };
  const frame = join(segment(0xc0, FRAME), REST);
  t.same(size(START, exif(6), frame), turned);
  t.same(size(START, exif(6), exif(3), frame), turned, 'the first one counts');
  t.same(size(START, exif(9), exif(6), frame), turned, 'unless it has none');
  t.same(size(START, segment(0xe1, latin1('http://ns.adobe.com/xap/1.0/\0')), exif(6), frame), turned, 'behind XMP');
  t.same(size(START, segment(0xe1, Buffer.alloc(0)), exif(6), frame), turned, 'behind an empty segment');
  t.same(size(START, frame, exif(6)), inJpeg, 'behind the frame header');
  t.same(size(START, segment(0xe2, join(latin1('Exif\0\0'), tiff(6))), frame), inJpeg, 'in another segment');
  t.same(size(START, segment(0xe1, join(latin1('Exif\0 '), tiff(6))), frame), inJpeg, 'under another mark');
});

void t.test('a marker is found behind other bytes, stuffing and fill bytes', async (t) => {
  const cases: readonly (readonly [string, number, object | undefined])[] = [
    ['ffd8', 0, { code: 0xd8, start: 0, end: 2 }],
    ['ffd8ffe1', 1, { code: 0xe1, start: 2, end: 4 }],
    ['0011ffc0', 0, { code: 0xc0, start: 2, end: 4 }],
    ['ffffffc0', 0, { code: 0xc0, start: 0, end: 4 }],
    ['ff00ff00ffda', 0, { code: 0xda, start: 4, end: 6 }],
    ['ff00ffda', 0, { code: 0xda, start: 2, end: 4 }],
    ['ffff00ffda', 0, { code: 0xda, start: 3, end: 5 }],
    ['ff01', 0, { code: 1, start: 0, end: 2 }],
    ['ff', 0, undefined],
    ['ffff', 0, undefined],
    ['ff00ff', 0, undefined],
    ['1234', 0, undefined],
    ['', 0, undefined],
  ];
  for (const [digits, from, expected] of cases) t.same(nextMarker(hex(digits), from), expected, digits);
  const alone = [0x01, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9];
  const codes = Array.from({ length: 254 }, (_, index) => index + 1);
  t.same(
    codes.filter((code) => !hasSegment(code)),
    alone,
    'Table B.1',
  );
});

void t.test('scans are counted up to one more than the limit, and not within headers', async (t) => {
  const scan = join(segment(0xda, hex('ffda ffda')), hex('11 ff00 22 ffd0 33'));
  const jpeg = (scans: number): Buffer =>
    join(START, segment(0xdb, hex('ffda')), ...Array.from({ length: scans }, () => scan), hex('ffd9'));
  for (const scans of [0, 1, 2, 3, 7]) t.equal(countScans(jpeg(scans), 9), scans);
  t.equal(countScans(jpeg(3), 3), 3);
  t.equal(countScans(jpeg(4), 3), 4);
  t.equal(countScans(jpeg(9), 3), 4, 'the rest is not looked at');
  t.equal(countScans(join(jpeg(2), scan), 9), 2, 'behind the end');
  t.equal(countScans(jpeg(2).subarray(0, -2), 9), 2, 'no end');
  t.equal(countScans(join(START, hex('ffda')), 9), 1, 'cut behind the marker');
  t.equal(countScans(join(START, hex('ffda 0000'), scan, hex('ffd9')), 9), 2, 'a length of less than itself');
  t.equal(countScans(join(hex('ffda'), scan), 9), 1, 'the first marker is that of the start');
});

void t.test('what is shorter than any picture, or begins otherwise, is none', async (t) => {
  for (const [name, bytes] of [
    ['nothing', Buffer.alloc(0)],
    ['eleven bytes', hex('ffd8ffc0000b0800030200')],
    ['another mark', join(hex('ffd9'), segment(0xc0, FRAME), REST)],
    ['zeros', Buffer.alloc(200)],
  ] as const) {
    t.equal(readDimensions(bytes), undefined, name);
  }
  const whole = join(START, segment(0xc0, FRAME), REST);
  const within = new Uint8Array(join(Buffer.alloc(7), whole)).subarray(7);
  t.same(readDimensions(within), inJpeg, 'a view of other bytes');
});
