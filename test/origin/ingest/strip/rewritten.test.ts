/** Which pieces of a PNG, GIF, WebP or JPEG are kept, byte by byte. */
import t from 'tap';
import { orientationOnly, turnOf } from '../../../../origin/ingest/strip/exif.js';
import { keepGif } from '../../../../origin/ingest/strip/gif.js';
import { keepJpeg } from '../../../../origin/ingest/strip/jpeg.js';
import { keepPng } from '../../../../origin/ingest/strip/png.js';
import { keepWebp } from '../../../../origin/ingest/strip/webp.js';
import { readOrientation } from '../../../../src/media/exif.js';
import { pngChunk } from '../../../../src/media/png.js';
import { hex, join, latin1 } from '../../../kit/bytes.js';

type Keeper = (bytes: Buffer) => readonly Buffer[] | undefined;
const kept = (keep: Keeper, ...parts: readonly Buffer[]): Buffer | undefined => {
  const pieces = keep(join(...parts));
  return pieces && Buffer.concat(pieces);
};
/** A TIFF structure in which a camera says more than the orientation. */
const tiff = (orientation: number): Buffer =>
  hex(
    `4d4d002a 00000008 0002 0112 0003 00000001 000${orientation} 0000 8825 0004 00000001 00000026 00000000 5345435245`,
  );

void t.test('an EXIF block of an orientation alone is read back', async (t) => {
  for (let orientation = 1; orientation <= 8; orientation += 1) {
    t.equal(readOrientation(orientationOnly(orientation)), orientation);
    t.equal(turnOf(tiff(orientation)), orientation === 1 ? undefined : orientation);
  }
  t.equal(turnOf(latin1('none')), undefined);
  t.equal(orientationOnly(6).length, 26, 'a head, one entry, and no further directory');
});

void t.test('PNG: the chunks that are needed to decode stay, in their order', async (t) => {
  const mark = hex('89504e470d0a1a0a');
  const stay = 'IHDR PLTE tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD hIST pHYs sPLT acTL fcTL IDAT fdAT';
  const chunks = stay.split(' ').map((type) => pngChunk(type, latin1(type)));
  const end = pngChunk('IEND', Buffer.alloc(0));
  t.same(kept(keepPng, mark, ...chunks, end), join(mark, ...chunks, end));
  for (const type of ['tEXt', 'zTXt', 'iTXt', 'tIME', 'dSIG', 'eXIF', 'prVt', 'caBX']) {
    t.same(kept(keepPng, mark, ...chunks, pngChunk(type, latin1('SECRET')), end), join(mark, ...chunks, end), type);
  }
  t.same(kept(keepPng, mark, end, latin1('SECRET')), join(mark, end), 'behind the end');
  const turned = pngChunk('eXIf', orientationOnly(6));
  t.same(kept(keepPng, mark, pngChunk('eXIf', tiff(6)), end), join(mark, turned, end));
  t.same(kept(keepPng, mark, pngChunk('eXIf', tiff(1)), end), join(mark, end), 'an upright picture');
  t.same(
    kept(keepPng, mark, pngChunk('eXIf', tiff(6).subarray(0, 22)), end),
    join(mark, turned, end),
    'the checksum is not read',
  );
  t.equal(kept(keepPng, mark, pngChunk('eXIf', tiff(6).subarray(0, 21)), end)?.length, 20);
  t.same(kept(keepPng, mark, pngChunk('tEXt', tiff(6)), end), join(mark, end), 'EXIF in another chunk');
  for (const [name, ...parts] of [
    ['an unknown critical chunk', mark, pngChunk('CgBI', Buffer.alloc(4)), end],
    ['no end', mark, ...chunks],
    ['an end that claims more', mark, ...chunks, hex('00000005 49454e44 ae426082')],
    ['an end that is cut', mark, ...chunks, end.subarray(0, 11)],
    ['a chunk that is cut', mark, pngChunk('tEXt', latin1('SECRET')).subarray(0, 17)],
    ['another mark', hex('89504e480d0a1a0a'), end],
    ['no chunk', mark],
    ['half a mark', mark.subarray(0, 7)],
  ] as const) {
    t.equal(kept(keepPng, ...parts), undefined, name);
  }
});

void t.test('GIF: pictures and what controls them stay', async (t) => {
  const screen = (packed = 0): Buffer => join(latin1('GIF89a'), hex('0500 0400'), Buffer.from([packed, 0, 0]));
  const image = join(hex('2c 0000 0000 0500 0400 00 02 02 4c01 00'));
  const tabled = join(hex('2c 0000 0000 0500 0400 81'), Buffer.alloc(12, 0x3b), hex('02 02 4c01 00'));
  const control = hex('21f9 04 00000000 00');
  const application = (name: string, ...blocks: readonly string[]): Buffer =>
    join(
      hex('21ff 0b'),
      latin1(name),
      ...blocks.map((block) => join(Buffer.from([block.length]), latin1(block))),
      hex('00'),
    );
  const comment = join(hex('21fe 06'), latin1('SECRET'), hex('00'));
  const short = join(hex('21fe 04'), latin1('SECR'), hex('00'));
  const text = join(hex('2101 0c'), Buffer.alloc(12), hex('06'), latin1('SECRET'), hex('00'));
  const end = hex('3b');
  const plain = [screen(), application('NETSCAPE2.0', '\x01\0\0'), control, image, control, tabled, end];
  t.same(kept(keepGif, ...plain), join(...plain));
  t.same(
    kept(keepGif, latin1('GIF87a'), screen().subarray(6), image, end),
    join(latin1('GIF87a'), screen().subarray(6), image, end),
  );
  // Colours that would be dropped as comments.
  for (const [packed, bytes] of [
    [0x80, 6],
    [0x82, 24],
    [0xf7, 768],
  ] as const) {
    const table = Buffer.alloc(bytes, hex('21fe00'));
    t.same(kept(keepGif, screen(packed), table, comment, image, end), join(screen(packed), table, image, end));
    const own = join(image.subarray(0, 9), Buffer.from([packed]), table, image.subarray(10));
    t.same(kept(keepGif, screen(), own, comment, image, end), join(screen(), own, image, end), `${bytes} in a picture`);
    t.same(
      kept(keepGif, screen(packed & 0x7f), table, image, end),
      join(screen(packed & 0x7f), image, end),
      'no table',
    );
  }
  for (const name of ['ANIMEXTS1.0', 'ICCRGBG1012']) {
    t.same(
      kept(keepGif, screen(), application(name, 'x', 'y'), image, end),
      join(screen(), application(name, 'x', 'y'), image, end),
    );
  }
  for (const [name, dropped] of [
    ['a comment', comment],
    ['a comment as long as a control', short],
    ['a text whose control is before a comment', join(control, comment, text)],
    ['another application', application('XMP DataXMP', 'SECRET')],
    ['a text', text],
    ['a text with its control', join(control, text)],
    ['a control of another length', hex('21f9 05 0000000000 00')],
    ['an unknown extension', hex('2142 01 42 00')],
    ['an extension of a known name under another label', join(hex('21fd 0b'), latin1('NETSCAPE2.0'), hex('00'))],
  ] as const) {
    t.same(kept(keepGif, screen(), dropped, image, end), join(screen(), image, end), name);
    t.same(
      kept(keepGif, screen(), control, image, dropped, image, end),
      join(screen(), control, image, image, end),
      name,
    );
  }
  t.same(
    kept(keepGif, screen(), control, comment, image, end),
    join(screen(), control, image, end),
    'a control stays with its picture',
  );
  t.same(kept(keepGif, screen(), control, image, text, image, end), join(screen(), control, image, image, end));
  t.same(kept(keepGif, screen(), control, text, text, image, end), join(screen(), image, end));
  const loop = application('NETSCAPE2.0', '\x01\0\0');
  t.same(kept(keepGif, screen(), control, text, loop, text, image, end), join(screen(), loop, image, end));
  t.same(kept(keepGif, screen(), control, loop, text, image, end), join(screen(), loop, image, end));
  t.same(kept(keepGif, screen(), image, end, latin1('SECRET')), join(screen(), image, end), 'behind the end');
  t.same(kept(keepGif, screen(), image, latin1('SECRET')), join(screen(), image), 'a block that there is not');
  t.same(kept(keepGif, screen(), image, comment.subarray(0, 5)), join(screen(), image), 'an extension that is cut');
  t.same(kept(keepGif, screen(), image, application('NETSCAPE2.0', '\x01\0\0').subarray(0, -1)), join(screen(), image));
  t.same(
    kept(keepGif, screen(), image, image.subarray(0, -2)),
    join(screen(), image, image.subarray(0, -2)),
    'a picture that is cut',
  );
  t.same(kept(keepGif, screen(), image, image.subarray(0, 11)), join(screen(), image), 'a picture without data');
  t.same(
    kept(keepGif, screen(), image, image.subarray(0, 12)),
    join(screen(), image, image.subarray(0, 12)),
    'a byte of data',
  );
  for (const [name, ...parts] of [
    ['no picture', screen(), control, end],
    ['a screen that is cut', screen().subarray(0, 12), image, end],
    ['the screen alone', screen()],
    ['another version', latin1('GIF88a'), screen().subarray(6), image, end],
    ['a picture behind the end', screen(), end, image],
  ] as const) {
    if (name === 'a screen that is cut') t.equal(keepGif(screen().subarray(0, 12)), undefined, name);
    else t.equal(kept(keepGif, ...parts), undefined, name);
  }
});

void t.test('WebP: pictures stay, and the orientation where the format has a place for it', async (t) => {
  const chunk = (type: string, data: Buffer): Buffer => {
    const head = Buffer.alloc(8);
    head.write(type, 'latin1');
    head.writeUInt32LE(data.length, 4);
    return join(head, data, Buffer.alloc(data.length % 2));
  };
  const webp = (...chunks: readonly Buffer[]): Buffer => {
    const head = latin1('RIFF....');
    head.writeUInt32LE(4 + join(...chunks).length, 4);
    return join(head, latin1('WEBP'), ...chunks);
  };
  const extended = (flags: number): Buffer =>
    chunk('VP8X', hex(`${flags.toString(16).padStart(2, '0')}000000 040000 030000`));
  const picture = chunk('VP8 ', latin1('pixel'));
  const [secret, xmp] = [chunk('SECR', latin1('ET')), chunk('XMP ', latin1('SECRET'))];
  const turned = chunk('EXIF', orientationOnly(6));
  const mark = latin1('Exif\0\0');
  const all = [
    extended(0x32),
    chunk('ICCP', latin1('icc')),
    chunk('ANIM', Buffer.alloc(6)),
    chunk('ALPH', latin1('a')),
    picture,
  ];
  t.same(kept(keepWebp, webp(...all)), webp(...all));
  t.same(kept(keepWebp, webp(chunk('VP8L', latin1('x')))), webp(chunk('VP8L', latin1('x'))));
  t.same(kept(keepWebp, webp(secret, picture, xmp)), webp(picture));
  t.same(
    kept(keepWebp, webp(extended(0xff), picture, chunk('EXIF', tiff(6)), xmp)),
    webp(extended(0xfb), picture, turned),
  );
  t.same(
    kept(keepWebp, webp(extended(0xff), picture, chunk('EXIF', join(mark, tiff(6))))),
    webp(extended(0xfb), picture, turned),
  );
  t.same(
    kept(keepWebp, webp(extended(0), picture, chunk('EXIF', tiff(6)))),
    webp(extended(8), picture, turned),
    'not announced',
  );
  t.same(
    kept(keepWebp, webp(extended(0xff), picture, chunk('EXIF', tiff(1)))),
    webp(extended(0xf3), picture),
    'upright',
  );
  t.same(
    kept(keepWebp, webp(extended(8), picture, chunk('EXIF', tiff(1)), chunk('EXIF', tiff(6)))),
    webp(extended(8), picture, turned),
  );
  t.same(kept(keepWebp, webp(picture, chunk('EXIF', tiff(6)))), webp(picture), 'a simple picture is not turned');
  const short = chunk('VP8X', Buffer.alloc(9));
  t.same(kept(keepWebp, webp(short, picture, chunk('EXIF', tiff(6)))), webp(short, picture), 'a canvas that is cut');
  const frame = (...chunks: readonly Buffer[]): Buffer => chunk('ANMF', join(Buffer.alloc(16, 7), ...chunks));
  const inFrame = [chunk('ALPH', latin1('a')), picture, chunk('VP8L', latin1('x'))];
  t.same(
    kept(keepWebp, webp(extended(2), frame(...inFrame, secret, xmp), frame(picture))),
    webp(extended(2), frame(...inFrame), frame(picture)),
  );
  t.same(
    kept(keepWebp, webp(extended(2), frame(chunk('ICCP', latin1('x')), picture))),
    webp(extended(2), frame(picture)),
  );
  const whole = webp(picture);
  t.same(kept(keepWebp, whole, latin1('SECRET')), whole, 'behind the end');
  const longer = Buffer.from(whole);
  longer.writeUInt32LE(whole.length - 7, 4);
  for (const [name, bytes] of [
    ['longer than the file', longer],
    ['a head of a chunk that is cut', webp(picture, secret.subarray(0, 7))],
    ['a chunk that is cut', webp(picture, secret.subarray(0, 9))],
    ['a padding byte that is not there', webp(picture.subarray(0, -1))],
    ['a chunk of a frame that is cut', webp(extended(2), frame(picture.subarray(0, -2)))],
    ['another kind of RIFF', join(whole.subarray(0, 8), latin1('WEBX'), whole.subarray(12))],
    ['another byte order', join(latin1('RIFX'), whole.subarray(4))],
    ['too short', webp(chunk('VP8 ', Buffer.alloc(0))).subarray(0, 19)],
  ] as const) {
    t.equal(kept(keepWebp, bytes), undefined, name);
  }
  const empty = webp(chunk('VP8 ', Buffer.alloc(0)));
  t.same(kept(keepWebp, empty), empty, 'the shortest file');
});

void t.test('JPEG: the segments that are needed to decode stay, and the orientation', async (t) => {
  const segment = (code: number, ...data: readonly Buffer[]): Buffer => {
    const content = join(...data);
    return join(Buffer.from([0xff, code, (content.length + 2) >> 8, (content.length + 2) & 255]), content);
  };
  const [start, end] = [hex('ffd8'), hex('ffd9')];
  const exif = (orientation: number): Buffer => segment(0xe1, latin1('Exif\0\0'), tiff(orientation));
  const turned = segment(0xe1, latin1('Exif\0\0'), orientationOnly(6));
  const jfif = segment(0xe0, latin1('JFIF\0\x01\x02'));
  const icc = segment(0xe2, latin1('ICC_PROFILE\0\x01\x01'));
  const adobe = segment(0xee, latin1('Adobe\0d'));
  const table = segment(0xdb, Buffer.alloc(5));
  const scan = join(segment(0xda, Buffer.alloc(6)), hex('11 ff00 22 ffd0 33 ffff00 44 ffd7 55'));
  const picture = join(table, segment(0xc0, Buffer.alloc(9)), scan, segment(0xc4, Buffer.alloc(3)), scan, end);
  t.same(kept(keepJpeg, start, jfif, icc, adobe, picture), join(start, jfif, icc, adobe, picture));
  t.same(kept(keepJpeg, start, jfif, exif(6), icc, picture), join(start, jfif, icc, turned, picture));
  t.same(kept(keepJpeg, start, exif(1), exif(6), picture), join(start, turned, picture), 'the first one that turns it');
  t.same(kept(keepJpeg, start, exif(1), picture), join(start, picture));
  const elsewhere = segment(0xe2, latin1('Exif\0\0'), tiff(6));
  t.same(kept(keepJpeg, start, elsewhere, picture), join(start, picture), 'EXIF in another segment');
  t.same(
    kept(keepJpeg, start, segment(0xe1, latin1('Exif\0 '), tiff(6)), picture),
    join(start, picture),
    'another mark',
  );
  t.same(
    kept(keepJpeg, start, table, exif(6), adobe, picture),
    join(start, turned, table, adobe, picture),
    'behind a table',
  );
  const dropped = [
    segment(0xe0, latin1('JFXX\0')),
    segment(0xe1, latin1('http://ns.adobe.com/xap/1.0/\0SECRET')),
    segment(0xe2, latin1('MPF\0')),
    segment(0xe2, latin1('urn:iso:std:iso:ts:21496:-1\0\0')),
    segment(0xe3, Buffer.alloc(0)),
    segment(0xed, latin1('Photoshop 3.0\0')),
    segment(0xee, latin1('Other')),
    segment(0xef, latin1('SECRET')),
    segment(0xfe, latin1('SECRET')),
    latin1('SECRET between markers'),
    hex('00ff0001'),
  ];
  for (const each of dropped) {
    t.same(kept(keepJpeg, start, each, jfif, picture), join(start, jfif, picture));
    t.same(kept(keepJpeg, start, jfif, table, each, picture), join(start, jfif, table, picture));
  }
  t.same(
    kept(keepJpeg, start, segment(0xf0, latin1('x')), picture),
    join(start, segment(0xf0, latin1('x')), picture),
    'no application segment',
  );
  t.same(
    kept(keepJpeg, start, hex('ff01 ffd3'), picture),
    join(start, hex('ff01 ffd3'), picture),
    'markers that stand alone',
  );
  t.same(kept(keepJpeg, start, picture, latin1('SECRET')), join(start, picture), 'behind the end');
  const open = picture.subarray(0, -2);
  t.same(kept(keepJpeg, start, open), join(start, open), 'no end');
  t.same(kept(keepJpeg, start, open, hex('ff')), join(start, open, hex('ff')), 'half a marker at the end');
  for (const [name, ...parts] of [
    ['no scan', start, table],
    ['a segment that is cut', start, scan, table.subarray(0, 5)],
    ['a length that is cut', start, scan, hex('ffdb00')],
    ['another start', hex('ffd9'), picture],
    ['too short', start, hex('ff')],
  ] as const) {
    t.equal(kept(keepJpeg, ...parts), undefined, name);
  }
  t.same(kept(keepJpeg, start, end), join(start, end), 'an end and nothing before it');
});
