/** HEIF box by box: brands, items, properties and references in each of their versions, cut and damaged ones among them. */
import t from 'tap';
import { asAvifStill, heifTypeOf, readHeif, withPrimaryAlone } from '../../../src/media/heif.js';
import { hex, join, latin1, u16 } from '../../kit/bytes.js';
import { box } from '../../kit/heif.js';
import { longIsoBox } from '../../kit/recordings.js';

const u32 = (value: number): Buffer => hex((value >>> 0).toString(16).padStart(8, '0'));
/** The version and the flags with which a box begins. */
const version = (number: number, flags = 0): Buffer => u32(number * 2 ** 24 + flags);

const ftyp = box('ftyp', latin1('heic'), u32(0), latin1('mif1'), latin1('heic'));
const handler = (type: string): Buffer => box('hdlr', u32(0), u32(0), latin1(type), Buffer.alloc(13));
const extent = (width: number, height: number): Buffer => box('ispe', u32(0), u32(width), u32(height));
const ALPHA = 'urn:mpeg:mpegB:cicp:systems:auxiliary:alpha';
const auxiliary = (urn: string): Buffer => box('auxC', u32(0), latin1(`${urn}\0`));
const pitm = (item = 1): Buffer => box('pitm', version(0), u16(item));
/** Associations of two bytes for an item, and one byte for each index. */
const ipma = (...items: readonly (readonly [item: number, ...indexes: number[]])[]): Buffer =>
  box(
    'ipma',
    version(0),
    u32(items.length),
    ...items.map(([item, ...indexes]) => join(u16(item), Buffer.from([indexes.length, ...indexes]))),
  );
const iprp = (properties: readonly Buffer[], ...associations: readonly Buffer[]): Buffer =>
  box('iprp', box('ipco', ...properties), ...associations);
const file = (...boxes: readonly Buffer[]): Buffer => join(ftyp, box('meta', u32(0), handler('pict'), ...boxes));
const size = (width: number, height: number, alpha = false) => ({ width, height, alpha });

void t.test('the primary item is named in two bytes or in four', async (t) => {
  const properties = iprp([extent(7, 5), extent(70, 50)], ipma([1, 1], [2, 2]));
  const primary = (...parts: readonly Buffer[]): unknown => readHeif(file(box('pitm', ...parts), properties));
  t.same(primary(version(0), u16(1)), size(7, 5));
  t.same(primary(version(0), u16(2)), size(70, 50));
  t.same(primary(version(0), u16(2), u16(9)), size(70, 50), 'two bytes too many');
  t.same(primary(version(1), u32(2)), size(70, 50));
  t.same(primary(version(1), u32(0x10002)), undefined, 'an item that there is not');
  t.same(primary(version(0)), undefined);
  t.same(primary(version(0), hex('00')), undefined);
  t.same(readHeif(file(properties)), undefined, 'no primary item');
  t.same(readHeif(join(ftyp, pitm(), properties)), undefined, 'outside of their box');
});

void t.test('properties are found by their index, in every form of the list', async (t) => {
  const all = [box('hvcC'), extent(7, 5), box('irot', hex('01'))];
  const listed = (...boxes: readonly Buffer[]): unknown => readHeif(file(pitm(), iprp(all, ...boxes)));
  t.same(listed(ipma([1, 1, 2, 3])), size(5, 7));
  t.same(listed(ipma([1, 0x81, 0x82, 0x83])), size(5, 7), 'essential ones');
  t.same(listed(ipma([2, 1], [1, 2])), size(7, 5), 'behind another item');
  t.same(listed(ipma([2, 2]), ipma([1, 2])), size(7, 5), 'in a second list');
  t.same(listed(ipma([1, 0, 9, 2])), size(7, 5), 'indexes that name none');
  t.same(listed(ipma([2, 2])), undefined, 'none of the item');
  t.same(listed(ipma([1, 1, 3])), undefined, 'no size');
  const one = join(u16(1), hex('02'));
  t.same(listed(box('ipma', version(0, 1), u32(1), one, u16(0x8002), u16(3))), size(5, 7), 'indexes of two bytes');
  t.same(listed(box('ipma', version(0, 1), u32(2), u16(2), hex('01'), u16(1), one, u16(2), u16(0x8003))), size(5, 7));
  t.same(listed(box('ipma', version(0, 2), u32(1), one, hex('0203'))), size(5, 7), 'another flag');
  t.same(listed(box('ipma', version(1), u32(1), u32(1), hex('02 02 83'))), size(5, 7), 'items of four bytes');
  t.same(listed(box('ipma', version(1, 1), u32(1), u32(1), hex('02 0002 8003'))), size(5, 7), 'both');
  t.same(listed(box('ipma', version(0), u32(1), u16(1), hex('02 02'))), undefined, 'an index that is cut off');
  t.same(listed(box('ipma', version(0), u32(1), u16(1), hex('01 02'), u16(1))), size(7, 5), 'a tail that is cut off');
  t.same(
    listed(box('ipma', version(0), u32(1), u16(2), hex('00'), u16(1), hex('01 02'))),
    size(7, 5),
    'an item of none',
  );
  t.same(listed(box('ipma', hex('000000'))), undefined, 'no list');
  t.same(listed(box('free', u32(0), u32(1), u16(1), hex('01 02'))), undefined, 'another box');
  t.same(readHeif(file(pitm())), undefined, 'no properties');
  t.same(readHeif(file(pitm(), box('iprp', ipma([1, 1])))), undefined, 'a list of none');
  const many = [...Array.from({ length: 299 }, () => box('free')), extent(7, 5)];
  const wide = box('ipma', version(0, 1), u32(1), u16(1), hex('01'), u16(300));
  t.same(readHeif(file(pitm(), iprp(many, wide))), size(7, 5), 'the three hundredth property');
  const short = box('ispe', u32(0), u32(7), hex('000000'));
  t.same(readHeif(file(pitm(), iprp([short], ipma([1, 1])))), undefined, 'a size that is cut');
  t.same(readHeif(file(pitm(), iprp([short, extent(9, 9)], ipma([1, 1, 2])))), undefined, 'the first size counts');
});

void t.test('a picture is transparent if an item of alpha refers to it', async (t) => {
  const alphaOf = (reference: Buffer, urn = ALPHA, property = auxiliary(urn)): unknown =>
    readHeif(file(pitm(), iprp([extent(7, 5), property], ipma([1, 1], [2, 1, 2])), box('iref', version(0), reference)));
  const refer = (kind: string, from: number, ...to: readonly number[]): Buffer =>
    box(kind, u16(from), u16(to.length), ...to.map((value) => u16(value)));
  const [yes, no] = [size(7, 5, true), size(7, 5)];
  t.same(alphaOf(refer('auxl', 2, 1)), yes);
  t.same(alphaOf(join(refer('thmb', 2, 1), refer('auxl', 2, 5, 1, 6))), yes, 'among others');
  t.same(alphaOf(refer('auxl', 2, 5)), no, 'to another item');
  t.same(alphaOf(refer('auxl', 1, 2)), no, 'the other way');
  t.same(alphaOf(refer('thmb', 2, 1)), no, 'another kind of reference');
  t.same(alphaOf(refer('auxl', 3, 1)), no, 'from an item without the property');
  for (const urn of ['urn:mpeg:hevc:2015:auxid:1', 'urn:mpeg:avc:2015:auxid:1'])
    t.same(alphaOf(refer('auxl', 2, 1), urn), yes, urn);
  for (const urn of [
    'urn:mpeg:hevc:2015:auxid:2',
    'urn:mpeg:hevc:2015:auxid:12',
    'urn:com:apple:photo:2020:aux:hdrgainmap',
    '',
  ]) {
    t.same(alphaOf(refer('auxl', 2, 1), urn), no, urn);
  }
  t.same(alphaOf(refer('auxl', 2, 1), ALPHA, box('auxC', u32(0), latin1(ALPHA))), yes, 'without an end');
  t.same(alphaOf(refer('auxl', 2, 1), ALPHA, box('auxC', u32(0), latin1(`${ALPHA}\0more`))), yes, 'with a subtype');
  t.same(alphaOf(refer('auxl', 2, 1), ALPHA, box('auxi', u32(0), latin1(`${ALPHA}\0`))), no, 'in another property');
  t.same(alphaOf(box('auxl', u16(2), u16(9), u16(1))), yes, 'more items claimed than there are');
  t.same(alphaOf(box('auxl', u16(2), u16(1), hex('00'))), no, 'half an item');
  t.same(alphaOf(join(box('auxl', hex('0002 00')), refer('auxl', 2, 1))), yes, 'behind a reference that is cut');
  const wide = (reference: Buffer): unknown =>
    readHeif(
      file(pitm(), iprp([extent(7, 5), auxiliary(ALPHA)], ipma([1, 1], [2, 2])), box('iref', version(1), reference)),
    );
  t.same(wide(box('auxl', u32(2), u16(2), u32(0x10001), u32(1))), yes, 'references of four bytes');
  t.same(wide(box('auxl', u32(2), u16(1), u32(0x10001))), no);
  t.same(wide(box('auxl', u32(2), hex('00'))), no, 'no number of items');
  const empty = file(pitm(), iprp([extent(7, 5), auxiliary(ALPHA)], ipma([1, 1], [2, 2])), box('iref', hex('000000')));
  t.same(readHeif(empty), no, 'no references');
});

void t.test('a box has a size of 32 or 64 bits, or reaches to the end', async (t) => {
  const inner = [u32(0), handler('pict'), pitm(), iprp([extent(7, 5)], ipma([1, 1]))];
  t.same(readHeif(join(ftyp, longIsoBox('meta', ...inner))), size(7, 5));
  const open = join(ftyp, box('meta', ...inner));
  open.writeUInt32BE(0, ftyp.length);
  t.same(readHeif(open), size(7, 5));
  t.same(
    readHeif(join(ftyp, box('free'), longIsoBox('free'), box('meta', ...inner))),
    size(7, 5),
    'behind empty boxes',
  );
  for (let short = 2; short < 8; short += 1) {
    t.same(readHeif(join(ftyp, u32(short), latin1('free'), box('meta', ...inner))), undefined, `a size of ${short}`);
  }
  // Read on from the seventh byte, a box of these would begin there.
  t.same(readHeif(join(u32(7), latin1('abc'), box('meta', ...inner))), undefined);
  const shortLong = longIsoBox('free', Buffer.alloc(4));
  shortLong.writeUInt32BE(15, 12);
  t.same(readHeif(join(ftyp, shortLong, box('meta', ...inner))), undefined, 'a long size of less than its head');
  const whole = join(ftyp, box('meta', ...inner));
  whole.writeUInt32BE(9_999, ftyp.length);
  t.same(readHeif(whole), size(7, 5), 'a last box that claims more');
  t.same(readHeif(join(ftyp, latin1('meta'))), undefined, 'half a head');
  t.same(readHeif(join(ftyp, u32(1), latin1('meta'), u32(0))), undefined, 'a long size that is cut');
});

void t.test('the sides of a minimised picture have seven bits or fifteen', async (t) => {
  const mini = (bits: string): unknown => {
    const bytes =
      bits
        .replaceAll(' ', '')
        .padEnd(56, '0')
        .match(/.{8}/g)
        ?.map((byte) => Number.parseInt(byte, 2)) ?? [];
    return readHeif(join(box('ftyp', latin1('mif3avif')), box('mini', Buffer.from(bytes))));
  };
  // Two bits of version, flags, and three bits of orientation, as ISO/IEC 23008-12 lists them.
  t.same(mini('00000000 00000 000 0 0000010 0000100'), size(3, 5));
  t.same(mini('00000000 00000 000 0 1111111 0000000'), size(128, 1));
  t.same(mini('00000000 00000 000 1 000000010000000 000000000000001'), size(129, 2));
  t.same(mini('00000000 00000 000 1 111111111111111 000000000000000'), size(32_768, 1));
  for (const [orientation, swapped] of [
    ['011', false],
    ['100', true],
    ['101', true],
    ['110', true],
    ['111', true],
  ] as const) {
    t.same(mini(`00000000 00000 ${orientation} 0 0000010 0000100`), swapped ? size(5, 3) : size(3, 5), orientation);
  }
  t.same(mini('00000100 00000 000 0 0000010 0000100'), size(3, 5, true), 'with alpha');
  t.same(mini('11111011 11111 000 0 0000010 0000100'), size(3, 5), 'every flag but that');
  t.same(readHeif(join(box('ftyp', latin1('mif3avif')), box('mini', Buffer.alloc(6)))), undefined);
});

void t.test(
  'the type is that of the major brand, then of a compatible one with a codec, then of the first one',
  async (t) => {
    const type = (major: string, compatible: readonly string[], ...boxes: readonly Buffer[]): unknown =>
      heifTypeOf(join(box('ftyp', latin1(major), u32(0), ...compatible.map(latin1)), ...boxes));
    t.equal(type('heic', ['avif']), 'image/heic', 'only a brand without a codec gives way to AVIF');
    t.equal(type('msf1', ['avif']), 'image/heif-sequence');
    t.equal(type('mif1', ['heic', 'avis']), 'image/avif');
    t.equal(type('isom', ['msf1', 'mif1', 'heic']), 'image/heic');
    t.equal(type('isom', ['msf1', 'mif1', 'hevc']), 'image/heic-sequence');
    t.equal(type('isom', ['msf1', 'mif1']), 'image/heif-sequence', 'the first one');
    t.equal(type('isom', ['mif1', 'msf1']), 'image/heif');
    const meta = (handlerType: string): Buffer => box('meta', u32(0), handler(handlerType));
    t.equal(type('isom', [], meta('pict')), 'image/heif');
    t.equal(type('isom', [], meta('mdta')), undefined, 'the tags of a film');
    t.equal(type('isom', [], box('free'), meta('pict')), 'image/heif');
    t.equal(type('isom', [], box('uuid', u32(0), handler('pict'))), undefined, 'the like in another box');
    t.equal(type('isom', [], box('mini')), 'image/heif');
    t.equal(type('isom', ['heic'], meta('mdta'), box('moov')), undefined, 'a film with tags');
    t.equal(type('isom', ['heic'], meta('pict'), box('moov')), 'image/heic', 'a picture with a film behind it');
    t.equal(type('mif1', [], box('moov')), 'image/heif', 'a film under the brand of a picture');
    t.equal(heifTypeOf(box('ftyp', latin1('mif1avif'))), 'image/heif', 'a minor version is no brand');
    t.equal(heifTypeOf(box('ftyp', latin1('abcdheic'))), undefined);
    t.equal(heifTypeOf(box('ftyp', latin1('mif1'))), 'image/heif', 'a brand and nothing else');
    t.equal(heifTypeOf(box('ftyp', latin1('mif'))), undefined);
    t.equal(heifTypeOf(join(box('ftyp', latin1('mif')), meta('pict'))), undefined, 'no brand at all');
    t.equal(heifTypeOf(longIsoBox('ftyp', latin1('heic'), u32(0))), undefined, 'a size of 64 bits');
    t.equal(heifTypeOf(join(box('free'), ftyp)), undefined, 'not at the beginning');
    t.equal(heifTypeOf(Buffer.alloc(0)), undefined);
  },
);

void t.test('only the primary item is shown to a converter, and only a known brand', async (t) => {
  const entry = (number: number, item: Buffer, type: string, flags = 0): Buffer =>
    box('infe', version(number, flags), item, u16(0), latin1(type), hex('00'));
  const entries = (number: number, count: Buffer, ...all: readonly Buffer[]): Buffer =>
    box('iinf', version(number), count, ...all);
  const alone = (infos: Buffer): Buffer => withPrimaryAlone(file(pitm(2), infos));
  const given = [
    entry(2, u16(1), 'hvc1'),
    entry(2, u16(2), 'hvc1', 5),
    entry(3, u32(3), 'Exif', 4),
    entry(3, u32(2), 'hvc1', 1),
  ];
  const made = [
    entry(2, u16(1), 'hvc1', 1),
    entry(2, u16(2), 'hvc1', 4),
    entry(3, u32(3), 'skip', 5),
    entry(3, u32(2), 'hvc1'),
  ];
  t.same(alone(entries(0, u16(4), ...given)), file(pitm(2), entries(0, u16(4), ...made)));
  t.same(alone(entries(1, u32(4), ...given)), file(pitm(2), entries(1, u32(4), ...made)), 'counted in four bytes');
  const untouched = [
    box('infe', version(1), u16(1), u16(0), latin1('a name\0image/jpeg\0')),
    box('infx', version(2), u16(1), u16(0), latin1('Exif'), hex('00')),
    box('infe', version(2), u16(1), u16(0), latin1('Exi')),
    box('infe', version(3), u32(1), u16(0), latin1('Exi')),
    box('infe'),
  ];
  t.same(alone(entries(0, u16(5), ...untouched)), file(pitm(2), entries(0, u16(5), ...untouched)), 'what is not known');
  const shortest = box('infe', version(2), u16(1), u16(0), latin1('Exif'));
  const hidden = box('infe', version(2, 1), u16(1), u16(0), latin1('skip'));
  t.same(alone(entries(0, u16(1), shortest)), file(pitm(2), entries(0, u16(1), hidden)), 'the shortest entry');
  for (const brand of ['heic', 'heix', 'avif']) {
    const kept = box('ftyp', latin1(brand), u32(0));
    t.same(withPrimaryAlone(kept), kept, brand);
  }
  const other = box('ftyp', latin1('MiHE'), u32(0), latin1('heic'));
  t.same(withPrimaryAlone(other), box('ftyp', latin1('mif1'), u32(0), latin1('heic')));
  t.same(withPrimaryAlone(latin1('too short')), latin1('too short'));
  for (const boxes of [[pitm(2)], [entries(0, u16(1), shortest)], [pitm(2), box('iinf', hex('00000000 00'))]]) {
    t.same(withPrimaryAlone(file(...boxes)), file(...boxes), 'nothing to hide');
  }
  const original = file(pitm(2), entries(0, u16(4), ...given));
  const before = Buffer.from(original);
  withPrimaryAlone(original);
  t.same(original, before, 'the file itself is not changed');
});

void t.test('an AVIF that says that it is a sequence loses every brand of one', async (t) => {
  const brands = (...names: readonly string[]): Buffer =>
    box('ftyp', latin1(names[0] ?? ''), u32(7), ...names.slice(1).map(latin1));
  t.same(asAvifStill(brands('avis', 'avif', 'msf1', 'miaf')), brands('avif', 'avif', 'avif', 'miaf'));
  t.same(asAvifStill(brands('mif1', 'avif')), brands('avif', 'avif'), 'a brand without a codec');
  const rest = join(brands('avis'), box('mdat', latin1('avis')));
  t.same(asAvifStill(rest), join(brands('avif'), box('mdat', latin1('avis'))), 'and nothing else changes');
  const before = Buffer.from(rest);
  t.same(rest, before);
  const still = brands('avif', 'mif1');
  t.equal(asAvifStill(still), still);
  const film = join(brands('isom', 'avis'), box('moov'));
  t.equal(asAvifStill(film), film);
});
