/** The heads of boxes, elements and pages, byte by byte: where each ends, and what a size that is odd means. */
import t from 'tap';
import { readElement } from '../../../src/media/ebml.js';
import { readIsoTracks } from '../../../src/media/iso-tracks.js';
import { readMatroskaTracks } from '../../../src/media/matroska-tracks.js';
import { readOggTracks } from '../../../src/media/ogg-tracks.js';
import { type Reading, readBytes } from '../../../src/media/reading.js';
import { hex } from '../../kit/bytes.js';
import { isoBox, longIsoBox } from '../../kit/recordings.js';

const handler = (type: string): Buffer => isoBox('hdlr', Buffer.alloc(8), type, Buffer.alloc(13));
const track = (type: string): Buffer => isoBox('trak', isoBox('mdia', handler(type)));
const read = <T>(reading: Reading<T>, ...parts: readonly Buffer[]): T | undefined =>
  readBytes(reading, Buffer.concat(parts));
const withSize = (box: Buffer, size: number): Buffer => {
  const copy = Buffer.from(box);
  copy.writeUInt32BE(size, 0);
  return copy;
};
const SOUND = { picture: false, sound: true };
const PICTURE = { picture: true, sound: false };
const NEITHER = { picture: false, sound: false };

void t.test('the handler of an ISO track says what it holds', async (t) => {
  for (const type of ['vide', 'pict', 'auxv'])
    t.same(read(readIsoTracks(), isoBox('moov', track(type))), PICTURE, type);
  t.same(read(readIsoTracks(), isoBox('moov', track('soun'))), SOUND);
  for (const type of ['text', 'meta', 'hint', 'Vide', 'sou ']) {
    t.same(read(readIsoTracks(), isoBox('moov', track(type))), NEITHER, type);
  }
  t.same(read(readIsoTracks(), isoBox('moov')), NEITHER, 'no track');
  t.same(read(readIsoTracks(), isoBox('moov', isoBox('trak'))), NEITHER, 'a track without media');
  t.same(read(readIsoTracks(), isoBox('moov', isoBox('trak', isoBox('mdia')))), NEITHER, 'media without a handler');
});

void t.test('an ISO box ends where its size says, and no later than the box around it', async (t) => {
  const movie = isoBox('moov', track('soun'));
  t.same(read(readIsoTracks(), longIsoBox('moov', track('soun'))), SOUND, 'a size of 64 bits');
  t.same(read(readIsoTracks(), withSize(movie, 0)), SOUND, 'to the end of the file');
  t.same(read(readIsoTracks(), isoBox('free'), movie), SOUND, 'behind an empty box');
  t.same(read(readIsoTracks(), longIsoBox('free'), movie), SOUND, 'behind an empty box of 64 bits');
  t.equal(read(readIsoTracks(), withSize(isoBox('free'), 7), movie), undefined, 'a size less than the head');
  t.equal(read(readIsoTracks(), hex('00000007 616263'), movie), undefined, 'even where a movie would follow');
  const short = longIsoBox('free');
  short.writeUInt32BE(15, 12);
  t.equal(read(readIsoTracks(), short, movie), undefined, 'a long size less than the head');
  t.equal(read(readIsoTracks(), withSize(isoBox('free'), 0), movie), undefined, 'a box to the end hides what follows');
  t.same(read(readIsoTracks(), hex('00000001 6d6f6f76')), undefined, 'a long size that is not there');
  t.same(read(readIsoTracks(), hex('00000008 6d6f6f76')), NEITHER, 'a box that ends with the file');
  t.same(read(readIsoTracks(), hex('00000008 6d6f6f')), undefined, 'a head that is cut');
  t.same(read(readIsoTracks(), movie, isoBox('moov', track('vide'))), SOUND, 'the first movie alone');
  const overlong = withSize(isoBox('trak', isoBox('mdia')), 500);
  t.same(
    read(readIsoTracks(), isoBox('moov', overlong), track('vide')),
    NEITHER,
    'a track that claims what follows the movie',
  );
  t.same(read(readIsoTracks(), isoBox('moov', isoBox('trak'), track('vide'))), PICTURE, 'the second track');
  t.same(
    read(readIsoTracks(), isoBox('moov', isoBox('trak', isoBox('mdia')), isoBox('free'), handler('vide'))),
    NEITHER,
  );
  t.same(read(readIsoTracks(), isoBox('moov', isoBox('trak', isoBox('mdia'), handler('vide')))), NEITHER);
});

void t.test('an EBML id and size have as many bytes as their first bits say', async (t) => {
  const cases: readonly (readonly [string, object | undefined])[] = [
    ['81 80', { id: 0x81, from: 2, to: 2 }],
    ['81 85', { id: 0x81, from: 2, to: 7 }],
    ['4286 fe', { id: 0x4286, from: 3, to: 3 + 0x7e }],
    ['2ad7b1 4001', { id: 0x2ad7b1, from: 5, to: 6 }],
    ['1a45dfa3 200102', { id: 0x1a45dfa3, from: 7, to: 7 + 0x102 }],
    ['1a45dfa3 10010203', { id: 0x1a45dfa3, from: 8, to: 8 + 0x10203 }],
    ['ec 0801020304', { id: 0xec, from: 6, to: 6 + 0x1020304 }],
    ['ec 040102030405', { id: 0xec, from: 7, to: 7 + 0x102030405 }],
    ['ec 02010203040506', { id: 0xec, from: 8, to: 8 + 0x10203040506 }],
    ['1a45dfa3 0100000000000005', { id: 0x1a45dfa3, from: 12, to: 17 }],
    ['ec ff', { id: 0xec, from: 2, to: Number.POSITIVE_INFINITY }],
    ['ec 7fff', { id: 0xec, from: 3, to: Number.POSITIVE_INFINITY }],
    ['ec 01ffffffffffffff', { id: 0xec, from: 9, to: Number.POSITIVE_INFINITY }],
    ['ec 7ffe', { id: 0xec, from: 3, to: 3 + 0x3ffe }],
    ['ec 5fff', { id: 0xec, from: 3, to: 3 + 0x1fff }],
    ['ec 3ffeff', { id: 0xec, from: 4, to: 4 + 0x1ffeff }],
    ['0842868181 81', undefined],
    ['ec 00ffffffffffffffff', undefined],
    ['ec 40', undefined],
    ['ec', undefined],
    ['4286', undefined],
    ['00', undefined],
    ['', undefined],
  ];
  for (const [digits, expected] of cases) t.same(readBytes(readElement(0), hex(digits)), expected, digits);
  t.same(readBytes(readElement(3), hex('000000 81 85')), { id: 0x81, from: 5, to: 10 }, 'further on in the file');
});

void t.test('a Matroska element ends where its size says, and no later than the element around it', async (t) => {
  const sized = (id: string, ...parts: readonly Buffer[]): Buffer => {
    const data = Buffer.concat(parts);
    return Buffer.concat([hex(id), Buffer.from([0x80 | data.length]), data]);
  };
  const ebml = sized('1a45dfa3');
  const entry = (type: number): Buffer => sized('ae', sized('d7', Buffer.from([1])), sized('83', Buffer.from([type])));
  const file = (...entries: readonly Buffer[]): Buffer =>
    Buffer.concat([ebml, sized('18538067', sized('1654ae6b', ...entries))]);
  t.same(read(readMatroskaTracks(), file(entry(1))), PICTURE);
  t.same(read(readMatroskaTracks(), file(entry(2))), SOUND);
  t.same(read(readMatroskaTracks(), file(entry(3))), { picture: true, sound: true }, 'both in one track');
  for (const type of [0, 4, 16, 17, 18, 32]) t.same(read(readMatroskaTracks(), file(entry(type))), NEITHER, `${type}`);
  t.same(read(readMatroskaTracks(), file()), NEITHER, 'an empty list');
  t.same(read(readMatroskaTracks(), file(entry(17), entry(2))), SOUND, 'the second track');
  t.same(read(readMatroskaTracks(), file(sized('ae'), entry(2))), SOUND, 'behind a track without a type');
  t.equal(read(readMatroskaTracks(), file(entry(1)).subarray(ebml.length)), undefined, 'no EBML head');
  t.equal(read(readMatroskaTracks(), ebml, sized('1654ae6b', entry(1))), undefined, 'a list outside of a segment');
  t.equal(
    read(readMatroskaTracks(), ebml, sized('18538067', sized('ec')), sized('1654ae6b', entry(1))),
    undefined,
    'a list behind the segment',
  );
  const claims = hex('ae 90 d7 81 01');
  t.same(
    read(readMatroskaTracks(), ebml, sized('18538067', sized('1654ae6b', claims), sized('83', Buffer.from([1])))),
    NEITHER,
    'a track that claims what follows the list',
  );
});

void t.test('the first pages of an Ogg file tell its streams, until another page comes', async (t) => {
  const page = (
    flags: number,
    lengths: readonly number[],
    codec: string,
    bytes = lengths.reduce((a, b) => a + b, 0),
  ) => {
    const data = Buffer.alloc(bytes);
    data.write(codec, 'latin1');
    const head = Buffer.alloc(27);
    head.write('OggS', 'latin1');
    head[5] = flags;
    head[26] = lengths.length;
    return Buffer.concat([head, Buffer.from(lengths), data]);
  };
  const codecs: Readonly<Record<string, object>> = {
    '\x80theora': PICTURE,
    '\x80daala': PICTURE,
    'BBCD\0': PICTURE,
    OVP80: PICTURE,
    OVP90: PICTURE,
    '\x01video\0\0': PICTURE,
    YUV4MPEG: PICTURE,
    '\x8bJNG': PICTURE,
    '\x8aMNG': PICTURE,
    OpusHead: SOUND,
    '\x01vorbis': SOUND,
    '\x7fFLAC': SOUND,
    fLaC: SOUND,
    'Speex   ': SOUND,
    'CELT    ': SOUND,
    '\x01audio\0\0': SOUND,
    'PCM     ': SOUND,
    OpusTags: NEITHER,
    'fishead\0': NEITHER,
    '\x80kate\0\0\0': NEITHER,
    ' OpusHea': NEITHER,
  };
  for (const [codec, expected] of Object.entries(codecs)) {
    t.same(read(readOggTracks(), page(2, [30], codec)), expected, JSON.stringify(codec));
  }
  const [sound, picture] = ['OpusHead', '\x80theora'];
  t.same(read(readOggTracks(), page(2, [255, 3], 'fishead\0'), page(2, [30], sound)), SOUND, 'behind two segments');
  t.same(read(readOggTracks(), page(6, [30], sound)), SOUND, 'the last page too');
  for (const flags of [0, 1, 4, 5]) t.same(read(readOggTracks(), page(flags, [30], sound)), NEITHER, 'no first page');
  t.same(read(readOggTracks(), page(2, [30], picture), page(2, [30], sound)), { picture: true, sound: true });
  t.same(read(readOggTracks(), page(2, [30], sound), page(0, [30], ''), page(2, [30], picture)), SOUND);
  const many = page(
    2,
    Array.from({ length: 255 }, () => 1),
    sound,
  );
  t.same(
    read(readOggTracks(), many, page(2, [30], picture)),
    { picture: true, sound: true },
    'a full table of segments',
  );
  t.same(read(readOggTracks(), page(2, [30], sound), Buffer.from('Oggs'), page(2, [30], picture).subarray(4)), SOUND);
  const noSegments = page(2, [], '');
  t.same(read(readOggTracks(), noSegments, page(2, [30], sound)), SOUND, 'an empty page of 27 bytes');
  t.same(read(readOggTracks(), page(2, [30], sound), noSegments.subarray(0, 26)), SOUND, 'a head that is cut');
});
