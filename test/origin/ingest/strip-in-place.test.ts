import * as fc from 'fast-check';
import sharp from 'sharp';
import t from 'tap';
import { STRIPPED_TYPES } from '../../../origin/ingest/strip/metadata.js';
import { readDimensions } from '../../../src/media/dimensions.js';
import { readOrientation } from '../../../src/media/exif.js';
import { box, type CodedPicture, codedIn, type HeifOptions, heifOf, transformationsOf } from '../../kit/heif.js';
import { type FilmTrack, filmOf, u32, webmElement } from '../../kit/origin/film.js';
import { strip } from '../../kit/origin/strip.js';
import { isoBox } from '../../kit/recordings.js';

const TELLTALE = Buffer.from('TELLTALE +51.5-000.1/');

/** Every place in which EXIF tells a location, behind the offset of its TIFF structure. */
async function exifItem(orientation: number): Promise<Buffer> {
  const { exif } = await sharp({ create: { width: 1, height: 1, channels: 3, background: 'red' } })
    .withMetadata({ orientation })
    .withExifMerge({
      IFD0: { Copyright: 'TELLTALE', Orientation: String(orientation) },
      IFD3: { GPSMapDatum: 'TELLTALE', GPSLatitude: '51/1 30/1 3230/100' },
    })
    .jpeg()
    .toBuffer()
    .then((jpeg) => sharp(jpeg).metadata());
  return Buffer.concat([u32(6), exif ?? Buffer.alloc(0)]);
}

async function codedPicture(): Promise<CodedPicture> {
  const pixels = Buffer.from(Array.from({ length: 40 * 24 * 3 }, (_, at) => (at * 7) % 256));
  return codedIn(
    await sharp(pixels, { raw: { width: 40, height: 24, channels: 3 } })
      .avif()
      .toBuffer(),
  );
}

/** As `heifOf`, with data behind the items to which nothing refers, and boxes behind that. */
async function withMetadata(
  coded: CodedPicture,
  turned: number,
  exif: number,
  options: HeifOptions = {},
): Promise<Buffer> {
  const described = [
    { type: 'Exif', data: await exifItem(exif) },
    { type: 'mime', data: Buffer.concat([Buffer.from('<x:xmpmeta xmlns:x="adobe:ns:meta/">'), TELLTALE]) },
  ] as const;
  const items = [{ coded, transformations: [...transformationsOf(turned), box('udes', u32(0), TELLTALE)] }];
  const file = heifOf(items, { ...options, described });
  const mdat = file.lastIndexOf('mdat') - 4;
  file.writeUInt32BE(file.readUInt32BE(mdat) + TELLTALE.length, mdat);
  return Buffer.concat([file, TELLTALE, box('mpvd', TELLTALE), box('uuid', TELLTALE), TELLTALE]);
}

void t.test('stripping HEIC and AVIF', async (t) => {
  const coded = await codedPicture();

  await t.test('keeps every pixel and every transformation, and no metadata', async (t) => {
    for (let orientation = 1; orientation <= 8; orientation += 1) {
      const original = await withMetadata(coded, orientation, 9 - orientation);
      const { outcome, bytes } = await strip(original, 'image/avif');
      t.same(outcome, { kind: 'stripped' });
      t.equal(bytes.length, original.length, 'every byte keeps its place');
      for (const mark of ['TELLTALE', '51.5', 'adobe:ns', 'GPS']) t.notOk(bytes.includes(mark), mark);
      t.same(await sharp(bytes).raw().toBuffer(), await sharp(original).raw().toBuffer(), 'the pixels');
      t.same(readDimensions(bytes), readDimensions(original), 'the size');
      const exif = bytes.subarray(bytes.indexOf('4d4d002a', 0, 'hex'));
      t.equal(readOrientation(exif), 9 - orientation, 'EXIF has the orientation');
      t.same((await strip(bytes, 'image/avif')).outcome, { kind: 'clean' }, 'a stripped file is clean');
    }
  });

  await t.test('reads every brand', async (t) => {
    const hevc = { ...coded, type: 'hvc1' };
    for (const [mime, brand] of [
      ['image/heic', 'heic'],
      ['image/heic', 'heix'],
      ['image/heif', 'mif1'],
      ['image/heif', 'mif3'],
      ['image/heic-sequence', 'hevc'],
      ['image/heif-sequence', 'msf1'],
    ] as const) {
      const original = await withMetadata(hevc, 6, 6, { brands: [brand, 'mif1'] });
      const { outcome, bytes } = await strip(original, mime);
      t.same(outcome, { kind: 'stripped' }, brand);
      t.notOk(bytes.includes('TELLTALE'), brand);
      t.ok(bytes.includes(coded.data), `${brand}: the picture`);
    }
  });

  await t.test('leaves a file without metadata unchanged', async (t) => {
    const plain = await sharp({ create: { width: 9, height: 9, channels: 4, background: '#00808080' } })
      .avif()
      .toBuffer();
    t.same((await strip(plain, 'image/avif')).outcome, { kind: 'clean' });
    t.same((await strip(heifOf([{ coded }], { exif: 6 }), 'image/avif')).outcome, { kind: 'clean' });
  });

  await t.test('reports what may hold metadata that is not found', async (t) => {
    const plain = heifOf([{ coded }]);
    const outcomeOf = async (bytes: Buffer): Promise<string> => (await strip(bytes, 'image/heif')).outcome.kind;
    t.equal(
      await outcomeOf(heifOf([{ coded: { ...coded, type: 'jpeg' } }])),
      'unsupported',
      'a JPEG, which has its own',
    );
    t.equal(await outcomeOf(heifOf([{ coded: { ...coded, type: 'abcd' } }])), 'unsupported', 'an unknown picture');
    const mini = (flags: number): Buffer =>
      Buffer.concat([box('ftyp', Buffer.from('mif3\0\0\0\0')), box('mini', Buffer.from([0, flags, 0, 0, 0, 0, 0]))]);
    t.equal(await outcomeOf(mini(0)), 'clean');
    t.equal(await outcomeOf(mini(0x40)), 'unsupported', 'a minimised picture with EXIF');
    t.equal(await outcomeOf(mini(0x20)), 'unsupported', 'a minimised picture with XMP');
    t.equal(await outcomeOf(plain.subarray(0, 120)), 'unsupported', 'a description that is cut short');
    t.equal(await outcomeOf(plain.subarray(0, 28)), 'broken', 'no description');
    t.equal(await outcomeOf(Buffer.alloc(0)), 'broken');
    const shared = heifOf([{ coded }], { described: [{ type: 'mime', data: Buffer.from('x') }] });
    // The last place in the table is that of the XMP; it becomes the place of the picture.
    const place = shared.indexOf('iinf') - 4 - 8;
    shared.writeUInt32BE(shared.indexOf(coded.data), place);
    t.equal(await outcomeOf(shared), 'unsupported', 'metadata that is also a picture');
    const sized = await strip(plain, 'image/heif', 64);
    t.same(sized.outcome, { kind: 'unsupported' }, 'a description that is larger than the limit');
  });
});

const noise = (seed: number, length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, index) => ((index + 1) * seed) & 255 || 1));
const VIDEO: FilmTrack = { handler: 'vide', chunks: [noise(7, 90), noise(11, 60)] };
const SOUND: FilmTrack = { handler: 'soun', chunks: [noise(13, 40), noise(17, 30)] };
const PLACES: FilmTrack = { handler: 'meta', chunks: [TELLTALE, Buffer.concat([TELLTALE, TELLTALE])] };

/** User data of QuickTime and 3GPP, metadata of QuickTime and MP4, and a box of somebody's own. */
const TOLD = [
  isoBox('udta', isoBox('\xa9xyz', TELLTALE), isoBox('loci', TELLTALE), u32(0)),
  isoBox('meta', isoBox('hdlr', u32(0, 0), 'mdta'), isoBox('keys', 'com.apple.quicktime.location.ISO6709', TELLTALE)),
  isoBox('meta', u32(0), isoBox('hdlr', u32(0, 0), 'mdir'), isoBox('ilst', TELLTALE)),
  isoBox('uuid', TELLTALE),
  isoBox('gps ', TELLTALE),
];

void t.test('stripping films and sound', async (t) => {
  await t.test('keeps pictures and sound in their places, and nothing else', async (t) => {
    const tracks = [
      { ...VIDEO, boxes: [...TOLD, isoBox('tref', isoBox('cdsc', u32(3)), isoBox('auxl', u32(2)))] },
      { ...SOUND, boxes: TOLD },
      PLACES,
      { ...PLACES, handler: 'text' },
    ];
    for (const fastStart of [false, true]) {
      for (const long of [false, true]) {
        const options = {
          inMovie: TOLD,
          atTop: [...TOLD, isoBox('free', TELLTALE)],
          between: TELLTALE,
          fastStart,
          long,
        };
        const original = filmOf(tracks, options);
        const { outcome, bytes } = await strip(original, 'video/mp4');
        t.same(outcome, { kind: 'stripped' });
        t.equal(bytes.length, original.length);
        for (const mark of ['TELLTALE', '51.5', 'ISO6709', 'xyz', 'loci', 'cdsc']) t.notOk(bytes.includes(mark), mark);
        t.ok(bytes.includes('auxl'), 'a reference to a track that stays');
        for (const chunk of [...VIDEO.chunks, ...SOUND.chunks]) {
          t.equal(bytes.indexOf(chunk), original.indexOf(chunk), 'a chunk in its place');
        }
        t.equal(bytes.toString('latin1').split('trak').length - 1, 2, 'two tracks');
        t.same((await strip(bytes, 'video/mp4')).outcome, { kind: 'clean' }, 'a stripped file is clean');
      }
    }
  });

  await t.test('knows films and sound by each of their names', async (t) => {
    for (const mime of [
      'video/mp4',
      'video/quicktime',
      'video/3gpp',
      'video/3gpp2',
      'audio/mp4',
      'audio/3gpp',
      'audio/3gpp2',
    ]) {
      t.ok(STRIPPED_TYPES.includes(mime), mime);
      const { outcome, bytes } = await strip(filmOf([VIDEO], { inMovie: TOLD }), mime);
      t.same(outcome, { kind: 'stripped' }, mime);
      t.notOk(bytes.includes('TELLTALE'), mime);
    }
    t.same((await strip(filmOf([VIDEO], { inMovie: TOLD }), 'video/ogg')).outcome, { kind: 'unsupported' });
  });

  await t.test('never overwrites sound whose samples are counted in other units than bytes', async (t) => {
    const original = filmOf([VIDEO, { ...SOUND, uniform: 1 }], { inMovie: TOLD });
    const { bytes } = await strip(original, 'video/quicktime');
    t.notOk(bytes.includes('TELLTALE'));
    for (const chunk of [...VIDEO.chunks, ...SOUND.chunks]) t.ok(bytes.includes(chunk));
  });

  await t.test('reads voice messages in fragments', async (t) => {
    const fragment = Buffer.concat([
      isoBox('moof', isoBox('mfhd', u32(0, 1)), isoBox('traf', isoBox('tfhd', u32(0, 1)), isoBox('uuid', TELLTALE))),
      isoBox('mdat', noise(19, 50)),
    ]);
    const atTop = [fragment, isoBox('emsg', TELLTALE), fragment];
    const original = filmOf([{ handler: 'soun', chunks: [] }], { inMovie: TOLD, atTop, fastStart: true });
    const { outcome, bytes } = await strip(original, 'audio/mp4');
    t.same(outcome, { kind: 'stripped' });
    t.notOk(bytes.includes('TELLTALE'));
    t.equal(bytes.lastIndexOf(noise(19, 50)), original.lastIndexOf(noise(19, 50)));
    const withPlaces = filmOf([VIDEO, PLACES], { atTop, fastStart: true });
    t.same((await strip(withPlaces, 'video/mp4')).outcome, { kind: 'unsupported' }, 'places may be in any fragment');
  });

  await t.test('reports what may hold metadata that is not found', async (t) => {
    const outcomeOf = async (bytes: Buffer): Promise<string> => (await strip(bytes, 'video/mp4')).outcome.kind;
    t.equal(await outcomeOf(filmOf([PLACES])), 'unsupported', 'neither pictures nor sound');
    t.equal(await outcomeOf(filmOf([VIDEO], { inMovie: [isoBox('cmov', 'x')] })), 'unsupported', 'compressed');
    const film = filmOf([VIDEO]);
    t.equal(await outcomeOf(film.subarray(0, -40)), 'unsupported', 'a description that is cut short');
    t.equal(await outcomeOf(film.subarray(0, 80)), 'broken', 'no description');
    const elsewhere = filmOf([VIDEO]);
    elsewhere.write('skip', elsewhere.indexOf('mdat'), 'latin1');
    t.equal(await outcomeOf(elsewhere), 'unsupported', 'samples in a box that holds none');
  });

  await t.test('removes tags, attachments, chapters and titles from WebM', async (t) => {
    const track = (type: number): Buffer =>
      webmElement('ae', webmElement('d7', Buffer.from([1])), webmElement('83', Buffer.from([type])));
    const seek = (id: string): Buffer =>
      webmElement('4dbb', webmElement('53ab', Buffer.from(id, 'hex')), webmElement('53ac', u32(1_000)));
    const told = [
      webmElement('1254c367', webmElement('7373', TELLTALE)),
      webmElement('1941a469', TELLTALE),
      webmElement('1043a770', TELLTALE),
      webmElement('ec', TELLTALE),
    ];
    const block = webmElement('a3', noise(7, 300));
    const opening = webmElement('1a45dfa3', webmElement('4282', Buffer.from('webm')));
    const head = [
      webmElement('114d9b74', webmElement('bf', u32(1)), seek('1654ae6b'), seek('1254c367')),
      webmElement(
        '1549a966',
        webmElement('bf', u32(1)),
        webmElement('7ba9', TELLTALE),
        webmElement('4d80', Buffer.from('program')),
      ),
      webmElement('1654ae6b', track(1), track(2)),
    ];
    const cluster = [webmElement('1f43b675', webmElement('e7', Buffer.from([0])), block), ...told];
    const live = [
      webmElement('1f43b675'),
      webmElement('e7', Buffer.from([0])),
      block,
      webmElement('ec', TELLTALE),
      webmElement('1f43b675'),
      block,
    ];
    const whole = Buffer.concat([opening, webmElement('18538067', ...head, ...told, ...cluster), TELLTALE]);
    const recorded = Buffer.concat([opening, webmElement('18538067'), ...head, ...live, ...told]);
    for (const [original, blocks] of [
      [whole, 1],
      [recorded, 2],
    ] as const) {
      const { outcome, bytes } = await strip(original, 'video/webm');
      t.same(outcome, { kind: 'stripped' });
      t.equal(bytes.length, original.length);
      t.notOk(bytes.includes('TELLTALE'));
      t.ok(bytes.includes('program'));
      t.notOk(bytes.includes('1254c367', 0, 'hex'), 'nothing points to the tags');
      t.equal(bytes.toString('latin1').split(block.toString('latin1')).length - 1, blocks);
      t.same((await strip(bytes, 'video/webm')).outcome, { kind: 'clean' });
    }
    const subtitles = Buffer.concat([opening, webmElement('18538067', webmElement('1654ae6b', track(1), track(17)))]);
    t.same((await strip(subtitles, 'video/matroska')).outcome, { kind: 'unsupported' }, 'subtitles may tell anything');
    t.same((await strip(opening, 'video/webm')).outcome, { kind: 'broken' });
  });
});

void t.test('metadata outside of the media data is not written over, as a box may be there', async (t) => {
  const whole = await withMetadata(await codedPicture(), 6, 6);
  const sizeAt = whole.indexOf('mdat') - 4;
  // What follows the shorter media data counts as a box that becomes free, with the EXIF item in it.
  whole.writeUInt32BE(111, sizeAt);
  const { outcome } = await strip(whole, 'image/avif');
  t.equal(outcome.kind, 'unsupported');
});

void t.test('no damaged file makes stripping throw, and what it writes is clean', async () => {
  const wholes = [
    ['image/avif', await withMetadata(await codedPicture(), 6, 6)],
    ['video/mp4', filmOf([VIDEO, SOUND, PLACES], { inMovie: TOLD, between: TELLTALE })],
  ] as const;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...wholes),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(),
      async ([mime, whole], changes, cut) => {
        const damaged = Buffer.from(whole.subarray(0, cut % 3 === 0 ? cut % whole.length : whole.length));
        for (const [at, value] of changes) if (damaged.length > 0) damaged[at % damaged.length] = value;
        const once = await strip(damaged, mime);
        if (once.outcome.kind !== 'stripped') return true;
        return once.bytes.length === damaged.length && (await strip(once.bytes, mime)).outcome.kind === 'clean';
      },
    ),
    { numRuns: 100 },
  );
});
