import * as fc from 'fast-check';
import t from 'tap';
import { readDimensions } from '../../../src/media/dimensions.js';
import { asAvifStill, heifTypeOf, readHeif, withPrimaryAlone } from '../../../src/media/heif.js';
import { box, clap, heifOf, imir, irot, transformationsOf } from '../../kit/heif.js';

const coded = {
  type: 'hvc1',
  configuration: box('hvcC', Buffer.alloc(4)),
  width: 96,
  height: 64,
  data: Buffer.alloc(9),
};

void t.test('the size of a HEIF picture comes from its own transformations, and never from EXIF', async (t) => {
  for (let orientation = 1; orientation <= 8; orientation += 1) {
    const size = orientation < 5 ? [96, 64] : [64, 96];
    for (const exif of [undefined, 1, 6, 8]) {
      const transformations = transformationsOf(orientation);
      const file = heifOf([{ coded, transformations }], exif === undefined ? {} : { exif });
      const found = readDimensions(file);
      t.same([found?.width, found?.height], size, `${orientation} with EXIF ${exif}`);
      t.equal(found?.orientation, 1);
    }
  }
});

void t.test('a clean aperture crops once, in the order in which the transformations are listed', async (t) => {
  const middle = clap(32, 1, 20, 1, 0, 1, 0, 1);
  const cases: readonly (readonly [string, readonly Buffer[], readonly [number, number]])[] = [
    ['in the middle', [middle], [32, 20]],
    ['then turned', [middle, irot(1)], [20, 32]],
    ['turned before', [irot(1), middle], [32, 20]],
    ['turned and mirrored', [middle, irot(3), imir(0)], [20, 32]],
    ['at the left and the top', [clap(32, 1, 32, 1, -32, 1, -16, 1)], [32, 32]],
    ['with fractions', [clap(65, 2, 41, 2, 0, 1, 0, 1)], [33, 21]],
    ['beyond an edge', [clap(32, 1, 64, 1, 48, 1, 0, 1)], [16, 64]],
    ['that is larger than the picture', [clap(200, 1, 200, 1, 0, 1, 0, 1)], [96, 64]],
    ['without a denominator', [clap(32, 0, 20, 1, 0, 1, 0, 1)], [96, 64]],
    ['of nothing', [clap(0, 1, 20, 1, 0, 1, 0, 1)], [96, 64]],
    ['that is cut short', [middle.subarray(0, 20)], [96, 64]],
  ];
  for (const [name, transformations, size] of cases) {
    const picture = readHeif(heifOf([{ coded, transformations }]));
    t.same([picture?.width, picture?.height], size, name);
  }
});

void t.test('the primary item decides, whatever stands first or is larger', async (t) => {
  const items = [{ coded: { ...coded, width: 4_000 } }, { coded }, { coded: { ...coded, width: 10 }, alpha: true }];
  t.same(readHeif(heifOf(items, { primary: 1 })), { width: 4_000, height: 64, alpha: false });
  t.same(readHeif(heifOf(items, { primary: 2 })), { width: 96, height: 64, alpha: true });
  t.equal(readHeif(heifOf(items, { primary: 9 })), undefined, 'there is no such item');
});

void t.test('a file with the primary picture alone shows nothing else to a converter', async (t) => {
  const file = heifOf([{ coded }, { coded }, { coded, alpha: true }], { primary: 2, exif: 6 });
  const alone = withPrimaryAlone(file);
  t.equal(alone.length, file.length, 'no byte changes its place');
  const infos = alone.toString('latin1').split('infe').slice(1);
  t.same(
    infos.map((info) => [info.charCodeAt(3) === 1, info.charCodeAt(5), info.slice(8, 12)]),
    [
      [true, 1, 'hvc1'],
      [false, 2, 'hvc1'],
      [true, 3, 'hvc1'],
      [true, 4, 'skip'],
    ],
    'hidden, item, type',
  );
  t.same(readHeif(alone), readHeif(file));
  t.equal(withPrimaryAlone(heifOf([{ coded }], { brands: ['mif3', 'heic'] })).toString('latin1', 8, 12), 'mif1');
  t.equal(alone.toString('latin1', 8, 12), 'heic');
});

const fileType = (major: string, ...compatible: readonly string[]): Buffer =>
  box('ftyp', ...[major, '\0\0\0\0', ...compatible].map((brand) => Buffer.from(brand, 'latin1')));

void t.test('every brand of a picture names a picture, as the major brand and as a compatible one', async (t) => {
  const types: Readonly<Record<string, string>> = {
    'image/heic': 'heic heix heim heis MiHE',
    'image/heic-sequence': 'hevc hevx hevm hevs',
    'image/avif': 'avif avis MA1A MA1B',
    'image/heif': 'mif1 mif2 mif3 miaf MiHB MiPr avci jpeg j2ki vvic evbi evmi 1pic',
    'image/heif-sequence': 'msf1 avcs jpgs j2is vvis evbs evms',
  };
  for (const [type, brands] of Object.entries(types)) {
    for (const brand of brands.split(' ')) {
      t.equal(heifTypeOf(fileType(brand, 'isom', 'mp42')), type, `${brand}, major`);
      t.equal(heifTypeOf(fileType('isom', 'iso8', brand)), type, `${brand}, compatible`);
      t.equal(heifTypeOf(fileType('abcd', brand)), type, `${brand}, beside an unknown one`);
    }
  }
  const pictures: readonly (readonly [string, readonly string[], string])[] = [
    ['mif3', ['avif'], 'image/avif'],
    ['mif1', ['heic', 'miaf'], 'image/heif'],
    ['mif1', ['miaf', 'avif'], 'image/avif'],
    ['avci', ['mif1', 'avci', 'miaf'], 'image/heif'],
    ['isom', ['mif1', 'miaf', 'heic'], 'image/heic'],
  ];
  const minimised = (codec: string): Buffer => box('ftyp', Buffer.from(`mif3${codec}`, 'latin1'));
  t.equal(heifTypeOf(minimised('avif')), 'image/avif', 'a minimised file names its codec as its minor version');
  t.equal(heifTypeOf(minimised('heic')), 'image/heif');
  t.equal(heifTypeOf(fileType('mif1')), 'image/heif');
  for (const [major, compatible, type] of pictures) t.equal(heifTypeOf(fileType(major, ...compatible)), type, major);
});

void t.test('a film is no picture, and items of a picture are one under any brand', async (t) => {
  t.equal(heifTypeOf(fileType('isom', 'mp42')), undefined);
  t.equal(heifTypeOf(Buffer.concat([fileType('mp42', 'mif1'), box('moov', Buffer.alloc(8))])), undefined);
  t.equal(heifTypeOf(heifOf([{ coded }], { brands: ['abcd', 'efgh'] })), 'image/heif');
  t.equal(heifTypeOf(heifOf([{ coded }], { brands: ['isom', 'mif1'] })), 'image/heif');
  t.equal(heifTypeOf(Buffer.from('not one')), undefined);
});

void t.test('a minimised file has the size in its first bits', async (t) => {
  const minimised = (hex: string): Buffer =>
    Buffer.concat([fileType('mif3', 'avif'), box('mini', Buffer.from(hex, 'hex'))]);
  t.same(readHeif(minimised('0c9880ff01fe0a7e')), { width: 256, height: 256, alpha: true });
  // Side lengths of seven bits: 3 and 5 pixels; turned by the orientation in the bits before them.
  t.same(readHeif(minimised('080002080000000000')), { width: 3, height: 5, alpha: false });
  t.same(readHeif(minimised('080502080000000000')), { width: 5, height: 3, alpha: false });
});

void t.test('an AVIF sequence is given to a decoder of stills as a still', async (t) => {
  t.same(asAvifStill(fileType('avis', 'msf1', 'mif1')), fileType('avif', 'avif', 'mif1'));
  t.same(asAvifStill(fileType('avif', 'avis', 'mif1')), fileType('avif', 'avif', 'mif1'));
  t.same(asAvifStill(fileType('mif3', 'avif')), fileType('avif', 'avif'));
  const minimised = Buffer.concat([box('ftyp', Buffer.from('mif3avif')), box('mini', Buffer.alloc(8))]);
  t.same(withPrimaryAlone(minimised), minimised, 'a minimised file has one picture, and is known by its brand');
  for (const other of [fileType('heic', 'mif1'), fileType('avif', 'mif1'), Buffer.from('neither'), minimised]) {
    t.equal(asAvifStill(other), other);
  }
});

void t.test('any bytes of HEIF are read without an error', async () => {
  const start = heifOf(
    [
      { coded, transformations: [clap(32, 1, 20, 1, 0, 1, 0, 1), irot(1)] },
      { coded, alpha: true },
    ],
    { exif: 6 },
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }), fc.nat(), (changes, cut) => {
      const bytes = Buffer.from(start.subarray(0, 1 + (cut % start.length)));
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      heifTypeOf(bytes);
      readHeif(bytes);
      return withPrimaryAlone(bytes).length === bytes.length;
    }),
    { numRuns: 1_000 },
  );
});
