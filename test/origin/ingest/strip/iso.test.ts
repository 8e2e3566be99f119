/** ISO base media files, box by box: which boxes are freed, which samples stay, and what is not understood. */
import t from 'tap';
import { readIso } from '../../../../origin/ingest/strip/iso.js';
import { boxesIn } from '../../../../origin/ingest/strip/iso-boxes.js';
import { extentsUpToNext, readChunks } from '../../../../origin/ingest/strip/iso-samples.js';
import type { InPlace } from '../../../../origin/ingest/strip/overwrites.js';
import { readBytes } from '../../../../src/media/reading.js';
import { hex, join, latin1, u16 } from '../../../kit/bytes.js';
import { box, iinf, iprp } from '../../../kit/heif.js';
import { u32 } from '../../../kit/origin/film.js';
import { longIsoBox } from '../../../kit/recordings.js';

const SECRET = latin1('SECRET');
/** What a box becomes that is freed. */
const free = (given: Buffer, headBytes = 8): Buffer => {
  const copy = Buffer.alloc(given.length);
  given.copy(copy, 0, 0, headBytes);
  copy.write('free', 4, 'latin1');
  return copy;
};

function changed(file: Buffer, descriptionMaxBytes = 10_000): Buffer | string {
  const change: InPlace | undefined = readBytes(readIso(file.length, descriptionMaxBytes), file);
  if (change?.kind !== 'overwritten') return String(change?.kind);
  const copy = Buffer.from(file);
  for (const { at, bytes, length } of change.overwrites) (bytes ?? Buffer.alloc(length)).copy(copy, at);
  return copy;
}

void t.test('boxes are listed with their places, or not at all', async (t) => {
  const [one, two] = [box('abcd', latin1('x')), longIsoBox('efgh', latin1('yz'))];
  t.same(boxesIn(join(one, two), 100), [
    { type: 'abcd', at: 100, end: 109, data: latin1('x'), dataAt: 108 },
    { type: 'efgh', at: 109, end: 127, data: latin1('yz'), dataAt: 125 },
  ]);
  const open = Buffer.from(one);
  open.writeUInt32BE(0, 0);
  t.match(boxesIn(join(two, open), 0), [{ type: 'efgh' }, { type: 'abcd', at: 18, end: 27 }]);
  t.same(boxesIn(join(one, Buffer.alloc(7, 9)), 0)?.length, 1, 'fewer than eight bytes may follow');
  t.same(
    boxesIn(join(box('abcd'), longIsoBox('efgh')), 0)?.map(({ end }) => end),
    [8, 24],
    'empty ones',
  );
  t.same(boxesIn(Buffer.alloc(0), 0), []);
  const short = longIsoBox('abcd');
  short.writeUInt32BE(15, 12);
  for (const [name, bytes] of [
    ['longer than what is around it', one.subarray(0, -1)],
    ['shorter than its head', join(u32(7), latin1('abcd'))],
    ['shorter than its long head', short],
    ['a long head that is cut', two.subarray(0, 15)],
  ] as const) {
    t.equal(boxesIn(bytes, 0), undefined, name);
  }
  const many = (count: number): Buffer => Buffer.alloc(8 * count, box('free'));
  t.equal(boxesIn(many(65_536), 0)?.length, 65_536);
  t.equal(boxesIn(many(65_537), 0), undefined, 'more boxes than any file has');
});

type Tables = Readonly<Record<string, Buffer>>;
const chunksOf = (tables: Tables): unknown =>
  readChunks(boxesIn(join(...Object.entries(tables).map(([type, data]) => box(type, data))), 0) ?? []);

void t.test('the samples of a chunk are where the tables say', async (t) => {
  const stco = u32(0, 3, 100, 200, 300);
  const stsc = u32(0, 2, 1, 2, 1, 3, 1, 1);
  const stsz = u32(0, 0, 5, 1, 2, 3, 4, 5);
  const expected = {
    offsets: [100, 200, 300],
    extents: [
      { from: 100, to: 103 },
      { from: 200, to: 207 },
      { from: 300, to: 305 },
    ],
  };
  t.same(chunksOf({ stco, stsc, stsz }), expected);
  t.same(chunksOf({ co64: u32(0, 3, 0, 100, 0, 200, 0, 300), stsc, stsz }), expected, 'offsets of 64 bits');
  t.same(chunksOf({ co64: u32(0, 1, 1, 0), stsc, stsz }), {
    offsets: [2 ** 32],
    extents: [{ from: 2 ** 32, to: 2 ** 32 + 3 }],
  });
  for (const [bits, sizes] of [
    [4, hex('12 34 50')],
    [8, hex('01 02 03 04 05')],
    [16, u16(1, 2, 3, 4, 5)],
    [32, u32(1, 2, 3, 4, 5)],
  ] as const) {
    t.same(chunksOf({ stco, stsc, stz2: join(u32(0, bits, 5), sizes) }), expected, `sizes of ${bits} bits`);
  }
  t.same(
    chunksOf({ stco, stsc, stsz: u32(0, 0, 2, 1, 2) }),
    {
      offsets: [100, 200, 300],
      extents: [
        { from: 100, to: 103 },
        { from: 200, to: 200 },
        { from: 300, to: 300 },
      ],
    },
    'fewer samples than chunks',
  );
  t.same(
    chunksOf({ stco, stsc: u32(0, 0), stsz }),
    {
      offsets: [100, 200, 300],
      extents: [
        { from: 100, to: 100 },
        { from: 200, to: 200 },
        { from: 300, to: 300 },
      ],
    },
    'no runs of chunks',
  );
  t.same(chunksOf({ stco, stsc, stsz: u32(0, 7, 5) }), { offsets: [100, 200, 300], extents: undefined }, 'of one size');
  t.same(chunksOf({ stco: u32(0, 0), stsc: u32(0, 0), stsz: u32(0, 0, 0) }), { offsets: [], extents: [] }, 'none');
  t.same(
    chunksOf({ stco, stsc: u32(0, 2, 1, 2, 1, 2, 1, 1), stsz: u32(0, 0, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1) }),
    {
      offsets: [100, 200, 300],
      extents: [
        { from: 100, to: 102 },
        { from: 200, to: 201 },
        { from: 300, to: 301 },
      ],
    },
    'a run is for its chunk and those behind it',
  );
});

void t.test('tables that claim more than they hold are refused', async (t) => {
  const good = { stco: u32(0, 1, 100), stsc: u32(0, 1, 1, 1, 1), stsz: u32(0, 0, 1, 4) };
  t.same(chunksOf(good), { offsets: [100], extents: [{ from: 100, to: 104 }] });
  const wrong: readonly Tables[] = [
    { ...good, stco: u32(0, 2, 100) },
    { ...good, stco: u32(0) },
    { ...good, stsc: u32(0, 2, 1, 1, 1) },
    { ...good, stsc: u32(0) },
    { ...good, stsz: u32(0, 0, 2, 4) },
    { ...good, stsz: u32(0, 0) },
    { stco: good.stco, stsc: good.stsc },
    { stco: good.stco, stsz: good.stsz },
    { stsc: good.stsc, stsz: good.stsz },
    { stsc: good.stsc, stsz: good.stsz, co64: u32(0, 1, 0) },
    { stco: good.stco, stsc: good.stsc, stz2: u32(0, 5, 1, 4) },
    { stco: good.stco, stsc: good.stsc, stz2: u32(0, 0, 0) },
    { stco: good.stco, stsc: good.stsc, stz2: join(u32(0, 4, 3), hex('11')) },
    { stco: good.stco, stsc: good.stsc, stz2: join(u32(0, 16, 1), hex('11')) },
  ];
  for (const tables of wrong) t.equal(chunksOf(tables), undefined, JSON.stringify(tables));
});

void t.test('a chunk of samples of one size ends where the next chunk of any track begins', async (t) => {
  t.same(extentsUpToNext([10, 40], [40, 10, 25, 25]), [
    { from: 10, to: 25 },
    { from: 40, to: Number.POSITIVE_INFINITY },
  ]);
});

const handler = (type: string): Buffer => box('hdlr', u32(0, 0), latin1(type), Buffer.alloc(4));
const tables = (offset: number, bytes: number): readonly Buffer[] => [
  box('stco', u32(0, 1, offset)),
  box('stsc', u32(0, 1, 1, 1, 1)),
  box('stsz', u32(0, 0, 1, bytes)),
];
const trak = (id: number, type: string, offset: number, bytes: number, ...more: readonly Buffer[]): Buffer =>
  box(
    'trak',
    box('tkhd', u32(0, 0, 0, id)),
    box('mdia', handler(type), box('minf', box('stbl', ...tables(offset, bytes)))),
    ...more,
  );
const ftyp = box('ftyp', latin1('mp42'));
/** A film of one track whose samples are the first bytes of the media data behind it. */
const film = (media: Buffer, ...inMovie: readonly Buffer[]): Buffer => {
  const movie = (offset: number): Buffer => box('moov', ...inMovie, trak(1, 'vide', offset, 4));
  return join(ftyp, movie(ftyp.length + movie(0).length + 8), box('mdat', media));
};

void t.test('at the top only what plays a film stays', async (t) => {
  const whole = film(latin1('good'));
  t.same(changed(whole), whole);
  t.same(changed(film(latin1('goodSECRET'))), film(latin1('good\0\0\0\0\0\0')), 'media data without a track');
  for (const type of ['styp', 'pdin', 'sidx', 'ssix', 'mfra', 'wide']) {
    t.same(changed(join(whole, box(type, SECRET))), join(whole, box(type, SECRET)), type);
  }
  for (const type of ['free', 'skip', 'uuid', 'udta', 'emsg', 'meta']) {
    t.same(changed(join(whole, box(type, SECRET))), join(whole, free(box(type, SECRET))), type);
  }
  t.same(changed(join(whole, longIsoBox('uuid', SECRET))), join(whole, free(longIsoBox('uuid', SECRET), 16)));
  t.same(
    changed(join(whole, u32(0), latin1('uuid'), SECRET)),
    join(whole, u32(0), latin1('free'), Buffer.alloc(6)),
    'to the end',
  );
  t.same(
    changed(join(whole, u32(99), latin1('uuid'), SECRET)),
    join(whole, u32(99), latin1('free'), Buffer.alloc(6)),
    'further than the end',
  );
  t.same(changed(join(whole, u32(7), SECRET)), join(whole, Buffer.alloc(10)), 'what is no box');
  t.same(changed(join(whole, latin1('uuid'))), join(whole, Buffer.alloc(4)), 'half a head');
  t.same(changed(join(whole, u32(1), latin1('uuid'), u32(0))), join(whole, Buffer.alloc(12)), 'half a long head');
  t.same(changed(join(ftyp, box('mdat', SECRET))), 'broken', 'no description');
  t.same(changed(Buffer.alloc(0)), 'broken');
  t.same(changed(join(whole, whole.subarray(ftyp.length))), 'unsupported', 'two descriptions');
  const size = whole.indexOf('mdat') - 4 - ftyp.length;
  t.same(changed(whole, size - 8), whole, 'a description as long as the limit');
  t.same(changed(whole, size - 9), 'unsupported', 'and one byte longer');
  t.same(changed(join(whole, box('meta', Buffer.alloc(size))), size - 8), 'unsupported', 'a longer one of items');
});

void t.test('in a film only what plays its pictures and its sound stays', async (t) => {
  const stay: Readonly<Record<string, string>> = {
    moov: 'mvhd mvex iods',
    trak: 'edts tapt clip matt load',
    mdia: 'mdhd elng',
    minf: 'vmhd smhd nmhd gmhd hdlr dinf',
    stbl: 'stsd stts ctts cslg stss stps stsh sdtp sgpd sbgp subs saiz saio padb stdp',
  };
  const withBox = (parent: string, added: Buffer): Buffer => {
    const [inStbl, inMinf, inMdia, inTrak, inMoov] = ['stbl', 'minf', 'mdia', 'trak', 'moov'].map((name) =>
      name === parent ? [added] : [],
    );
    const make = (offset: number): Buffer => {
      const stbl = box('stbl', ...tables(offset, 4), ...(inStbl ?? []));
      const mdia = box('mdia', handler('soun'), box('minf', stbl, ...(inMinf ?? [])), ...(inMdia ?? []));
      return box('moov', box('trak', box('tkhd', u32(0, 0, 0, 1)), mdia, ...(inTrak ?? [])), ...(inMoov ?? []));
    };
    return join(make(make(0).length + 8), box('mdat', latin1('good')));
  };
  for (const [parent, types] of Object.entries(stay)) {
    for (const type of types.split(' ')) {
      // Its content is not read as boxes.
      const stays = box(type, u32(99), SECRET);
      t.same(changed(withBox(parent, stays)), withBox(parent, stays), `${type} in ${parent}`);
    }
    for (const type of ['udta', 'meta', 'uuid', 'cdsc']) {
      t.same(
        changed(withBox(parent, box(type, SECRET))),
        withBox(parent, free(box(type, SECRET))),
        `${type} in ${parent}`,
      );
    }
    const malformed = join(u32(99), latin1('udta'), SECRET);
    t.same(changed(withBox(parent, malformed)), 'unsupported', `a box in ${parent} that is malformed`);
  }
  t.same(changed(film(latin1('good'), box('cmov', SECRET))), 'unsupported', 'a description that is compressed');
});

void t.test('a track of another kind goes with its samples, and with the references to it', async (t) => {
  const media = latin1('vidSOUNplaces');
  const make = (offset: number, gone: (track: Buffer) => Buffer, tref: readonly Buffer[]): Buffer =>
    box(
      'moov',
      trak(1, 'vide', offset, 3, box('tref', ...tref)),
      gone(trak(7, 'meta', offset + 7, 6)),
      trak(2, 'soun', offset + 3, 4),
      gone(trak(8, 'text', offset + 7, 6)),
    );
  const refs = [box('cdsc', u32(2)), box('cdsc', u32(2, 7)), box('subt', u32(8)), box('auxl', u32(1))];
  const kept = [refs[0], free(refs[1] ?? ftyp), free(refs[2] ?? ftyp), refs[3]].filter((each) => each !== undefined);
  const offset = make(0, (each) => each, refs).length + 8;
  const original = join(
    make(offset, (each) => each, refs),
    box('mdat', media),
  );
  const expected = join(
    make(offset, (each) => free(each), kept),
    box('mdat', latin1('vidSOUN'), Buffer.alloc(6)),
  );
  t.same(changed(original), expected);
  const only = (type: string): Buffer | string => {
    const movie = (at: number): Buffer => box('moov', trak(1, type, at, 4));
    return changed(join(movie(movie(0).length + 8), box('mdat', latin1('good'))));
  };
  for (const type of ['vide', 'soun', 'pict', 'auxv']) t.type(only(type), Buffer, type);
  for (const type of ['meta', 'text', 'sbtl', 'tmcd', 'hint']) t.equal(only(type), 'unsupported', type);
  const long = (id: number): Buffer => box('tkhd', hex('01000000'), u32(0, 0, 0, 0, id));
  const second = (header: Buffer, type: string): Buffer =>
    box('trak', header, box('mdia', handler(type), box('minf', box('stbl', ...tables(0, 0)))));
  const film64 = (header: Buffer, ...references: readonly Buffer[]): Buffer =>
    box('moov', second(header, 'text'), trak(1, 'vide', 0, 0, box('tref', ...references)));
  t.same(
    changed(film64(long(5), box('cdsc', u32(5)))),
    box('moov', free(second(long(5), 'text')), trak(1, 'vide', 0, 0, box('tref', free(box('cdsc', u32(5)))))),
  );
  t.equal(changed(box('moov', second(long(5).subarray(0, -1), 'vide'))), 'unsupported', 'a header that is cut');
  t.equal(changed(box('moov', second(box('tkhd', u32(0, 0, 0)), 'vide'))), 'unsupported', 'a header without an id');
});

void t.test('samples of one size are kept up to the next chunk of any track', async (t) => {
  const uniform = (offset: number): readonly Buffer[] => [
    box('stco', u32(0, 1, offset)),
    box('stsc', u32(0, 1, 1, 4, 1)),
    box('stsz', u32(0, 1, 4)),
  ];
  const sound = (offset: number): Buffer =>
    box(
      'trak',
      box('tkhd', u32(0, 0, 0, 1)),
      box('mdia', handler('soun'), box('minf', box('stbl', ...uniform(offset)))),
    );
  const movie = (at: number): Buffer => box('moov', sound(at + 3), trak(2, 'text', at + 13, 6));
  const offset = movie(0).length + 8;
  const gone = join(free(trak(2, 'text', offset + 13, 6)));
  t.same(
    changed(join(movie(offset), box('mdat', latin1('xxxten bytesSECRET')))),
    join(box('moov', sound(offset + 3), gone), box('mdat', Buffer.alloc(3), latin1('ten bytesS'), Buffer.alloc(5))),
  );
});

void t.test('a part of a track that nobody reads must be well-formed too', async (t) => {
  const malformed = box('mdia', u32(99, 0));
  t.equal(changed(box('moov', trak(1, 'vide', 0, 0, malformed))), 'unsupported');
});

void t.test('samples outside of media data are not understood, and those beyond the file are left out', async (t) => {
  const at = (offset: number, bytes: number, ...more: readonly Buffer[]): Buffer =>
    join(box('moov', trak(1, 'vide', offset, bytes)), box('mdat', latin1('goodSECRET')), ...more);
  const data = at(0, 0).indexOf('goodSECRET');
  const rest = box('mdat', latin1('SECRET'));
  t.same(changed(at(data, 4)), at(data, 4).fill(0, data + 4));
  t.same(changed(at(data + 4, 99)), at(data + 4, 99).fill(0, data, data + 4), 'longer than the file');
  t.same(changed(at(data, 99, box('skip'))), join(at(data, 99), free(box('skip'))), 'longer than the media data');
  t.same(changed(at(9_999, 4)), at(9_999, 4).fill(0, data), 'behind the end');
  t.same(changed(at(data, 0)), at(data, 0).fill(0, data), 'of no length');
  t.equal(changed(at(4, 4)), 'unsupported', 'in the description');
  t.equal(changed(at(data - 1, 4)), 'unsupported', 'in a head');
  t.same(changed(at(data + 18, 6, rest)), at(data + 18, 6, rest).fill(0, data, data + 10), 'in the second media data');
  t.equal(changed(at(data + 10, 6, rest)), 'unsupported', 'between two');
});

void t.test('fragments keep their data, and lose every box that does not play it', async (t) => {
  const stay = 'tfhd tfdt trun sdtp sbgp sgpd subs saiz saio senc'.split(' ').map((type) => box(type, SECRET));
  const moof = (...extra: readonly Buffer[]): Buffer =>
    box('moof', box('mfhd'), box('traf', ...stay, ...extra), ...extra);
  const movie = box('moov', trak(1, 'soun', 0, 0));
  const gone = [box('uuid', SECRET), box('meta', SECRET)];
  const data = box('mdat', latin1('anything'));
  t.same(changed(join(movie, moof(...gone), data)), join(movie, moof(...gone.map((each) => free(each))), data));
  t.equal(changed(join(movie, box('moof', u32(99)), data)) instanceof Buffer, true, 'fewer than eight bytes');
  t.equal(changed(join(movie, box('moof', u32(99, 0)), data)), 'unsupported', 'a fragment that is malformed');
  const removed = box('moov', trak(1, 'soun', 0, 0), trak(2, 'text', 0, 0));
  t.equal(changed(join(removed, moof(), data)), 'unsupported', 'its samples may be in any fragment');
});

const pict = handler('pict');

void t.test('the data of items that are no pictures becomes zeros, and EXIF an orientation', async (t) => {
  const tiff = hex('4d4d002a 00000008 0001 0112 0003 00000001 0006 0000 00000000 534543524554');
  const upright = Buffer.from(tiff);
  upright[19] = 1;
  const only = tiff.subarray(0, 26);
  const file = (exif: Buffer, mime: Buffer): Buffer => {
    const make = (at: number): Buffer => {
      const place = (id: number, offset: number, length: number): Buffer => join(u16(id, 0, 1), u32(offset, length));
      const iloc = box(
        'iloc',
        u32(0),
        hex('4400'),
        u16(3),
        place(1, at, 5),
        place(2, at + 5, exif.length),
        place(3, at + 5 + exif.length, mime.length),
      );
      return box('meta', u32(0), pict, box('pitm', u32(0), u16(1)), iinf('hvc1', 'Exif', 'mime'), iprp(), iloc);
    };
    return join(make(make(0).length + 8), box('mdat', latin1('image'), exif, mime));
  };
  const zeros = (bytes: Buffer): Buffer => Buffer.alloc(bytes.length);
  for (const [name, exif, kept] of [
    ['at once', join(u32(0), tiff), join(u32(0), only, Buffer.alloc(6))],
    ['behind a mark', join(u32(6), latin1('Exif\0\0'), tiff), join(u32(0), only, Buffer.alloc(12))],
    ['behind a mark that is not counted', join(u32(0), latin1('Exif\0\0'), tiff), join(u32(0), only, Buffer.alloc(12))],
    ['behind other bytes', join(u32(2), latin1('xx'), tiff), join(u32(0), only, Buffer.alloc(8))],
    ['upright', join(u32(0), upright), join(u32(0), upright.subarray(0, 26), Buffer.alloc(6))],
    ['no orientation', Buffer.alloc(40, 7), join(u32(0), upright.subarray(0, 26), Buffer.alloc(10))],
    ['as short as an orientation', join(u32(0), only), join(u32(0), only)],
    ['too short for one', latin1('SECRET'), Buffer.alloc(6)],
    ['hardly anything', latin1('S'), Buffer.alloc(1)],
  ] as const) {
    t.same(
      changed(file(exif, SECRET)),
      file(exif, SECRET).fill(join(kept, zeros(SECRET)), file(exif, SECRET).indexOf('image') + 5),
      name,
    );
  }
  const whole = file(join(u32(0), tiff), SECRET);
  t.equal(changed(join(whole, whole)), 'unsupported', 'two descriptions of pictures');
  t.equal(changed(join(box('free'), whole)), 'unsupported', 'places that are elsewhere');
  const tags = box('meta', u32(0), handler('mdta'), SECRET);
  t.same(changed(join(film(latin1('good')), tags)), join(film(latin1('good')), free(tags)), 'the tags of a film');
});

void t.test('a minimised picture stays if its flags tell of no EXIF and no XMP', async (t) => {
  const mini = (...bytes: readonly number[]): Buffer => box('mini', Buffer.from(bytes));
  t.same(changed(mini(0xff, 0x9f)), mini(0xff, 0x9f));
  for (const flags of [0x20, 0x40, 0x60]) t.equal(changed(mini(0, flags)), 'unsupported');
  t.equal(changed(mini(0)), 'unsupported', 'flags that are cut');
});
