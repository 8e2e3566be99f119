/** The items of a HEIF within their file: pictures in the description, EXIF in several pieces, and data in odd places. */
import t from 'tap';
import { orientationOnly } from '../../../../origin/ingest/strip/exif.js';
import { readIso } from '../../../../origin/ingest/strip/iso.js';
import { readBytes } from '../../../../src/media/reading.js';
import { hex, join, latin1, u16 } from '../../../kit/bytes.js';
import { box } from '../../../kit/heif.js';
import { u32 } from '../../../kit/origin/film.js';

function changed(file: Buffer): Buffer | string {
  const change = readBytes(readIso(file.length, 10_000), file);
  if (change?.kind !== 'overwritten') return String(change?.kind);
  const copy = Buffer.from(file);
  for (const { at, bytes, length } of change.overwrites) (bytes ?? Buffer.alloc(length)).copy(copy, at);
  return copy;
}

type Item = { readonly type: string; readonly extents: readonly (readonly [from: number, length: number])[] };

/** A description of these items, whose places are counted from the beginning of the file or of `idat`. */
function described(items: readonly Item[], idat?: Buffer): Buffer {
  const method = idat === undefined ? 0 : 1;
  const infos = items.map(({ type }, index) =>
    box('infe', hex('02000000'), u16(index + 1, 0), latin1(type), hex('00')),
  );
  const places = items.map(({ extents }, index) =>
    join(u16(index + 1, method, 0, extents.length), ...extents.map(([from, length]) => u32(from, length))),
  );
  return box(
    'meta',
    u32(0),
    box('hdlr', u32(0, 0), latin1('pict'), Buffer.alloc(4)),
    box('pitm', u32(0), u16(1)),
    box('iinf', u32(0), u16(items.length), ...infos),
    box('iprp', box('ipco')),
    box('iloc', hex('01000000'), hex('4400'), u16(items.length), ...places),
    ...(idat === undefined ? [] : [box('idat', idat)]),
  );
}

/** The items, whose places are counted from the content of the media data, with that media data. */
function fileOf(items: readonly Item[], data: Buffer, behind: Buffer = Buffer.alloc(0)): Buffer {
  const unplaced = items.map(({ type, extents }) => ({ type, extents: extents.map(() => [0, 0] as const) }));
  const dataAt = described(unplaced).length + 8;
  const moved = items.map(({ type, extents }) => ({
    type,
    extents: extents.map(([from, length]) => [from + dataAt, length] as const),
  }));
  return join(described(moved), box('mdat', data), behind);
}

const picture: Item = { type: 'hvc1', extents: [[0, 5]] };

void t.test('of the data in a description only pictures stay', async (t) => {
  const [told, cleaned] = [latin1('imageSECRET'), join(latin1('image'), Buffer.alloc(6))];
  t.same(changed(described([picture], told)), described([picture], cleaned));
  const mime: Item = { type: 'mime', extents: [[5, 6]] };
  t.same(changed(described([picture, mime], told)), described([picture, mime], cleaned));
});

void t.test('an EXIF item in several pieces keeps the orientation in its first one', async (t) => {
  const exif = join(u32(0), orientationOnly(6), latin1('SECRET'));
  const kept = join(u32(0), orientationOnly(6));
  const pieces = (...lengths: readonly number[]): Item => {
    let at = 5;
    const extents = lengths.map((length) => {
      at += length;
      return [at - length, length] as const;
    });
    return { type: 'Exif', extents };
  };
  for (const lengths of [[36], [30, 6], [33, 3], [32, 2, 2]]) {
    const items = [picture, pieces(...lengths)];
    t.same(
      changed(fileOf(items, join(latin1('image'), exif))),
      fileOf(items, join(latin1('image'), kept, Buffer.alloc(6))),
      lengths.join(),
    );
  }
  const items = [picture, pieces(29, 7)];
  t.same(
    changed(fileOf(items, join(latin1('image'), exif))),
    fileOf(items, join(latin1('image'), Buffer.alloc(36))),
    'a first piece that is too short for an orientation',
  );
  const two = [picture, pieces(36), { type: 'Exif', extents: [[41, 30]] } as const];
  const second = join(u32(0), orientationOnly(3));
  t.same(
    changed(fileOf(two, join(latin1('image'), exif, second))),
    fileOf(two, join(latin1('image'), kept, Buffer.alloc(6), second)),
    'two items',
  );
  const none = [picture, { type: 'Exif', extents: [] } as const];
  t.same(changed(fileOf(none, latin1('image'))), fileOf(none, latin1('image')), 'an item of no pieces');
});

void t.test('metadata outside of media data, or in a picture, is not understood', async (t) => {
  const mime = (from: number, length: number): readonly Item[] => [
    picture,
    { type: 'mime', extents: [[from, length]] },
  ];
  const data = latin1('imageSECRET');
  t.same(changed(fileOf(mime(5, 6), data)), fileOf(mime(5, 6), join(latin1('image'), Buffer.alloc(6))));
  t.equal(changed(fileOf(mime(-20, 6), data)), 'unsupported', 'in the description');
  t.equal(changed(fileOf(mime(-1, 6), data)), 'unsupported', 'in a head');
  t.equal(changed(fileOf(mime(4, 6), data)), 'unsupported', 'partly in a picture');
  t.equal(
    changed(fileOf(mime(6, 9), data, box('free', latin1('SECRET')))),
    'unsupported',
    'partly behind the media data',
  );
  const beyond = fileOf(mime(6, 99), data);
  t.same(changed(beyond), beyond.fill(0, beyond.length - 6), 'longer than the file');
  t.equal(
    changed(fileOf([{ type: 'hvc1', extents: [[-20, 6]] }], data)),
    'unsupported',
    'a picture in the description',
  );
});

void t.test('the items of a file in fragments are removed, and no other data', async (t) => {
  const items: readonly Item[] = [picture, { type: 'mime', extents: [[5, 6]] }];
  const behind = box('moof', box('mfhd'));
  const data = join(latin1('imageSECRETother'));
  const cleaned = join(latin1('image'), Buffer.alloc(6), latin1('other'));
  t.same(changed(fileOf(items, data, behind)), fileOf(items, cleaned, behind));
});

void t.test(
  'a description of pictures that is malformed is not understood, and what only resembles one is freed',
  async (t) => {
    const handler = box('hdlr', u32(0, 0), latin1('pict'), Buffer.alloc(4));
    t.equal(changed(box('meta', u32(0), handler)), 'unsupported');
    const movie = fileOf([picture], latin1('image'));
    const like = box('meta', u32(0), box('abcd', u32(0, 0), latin1('pict'), Buffer.alloc(4)));
    const freed = Buffer.alloc(like.length);
    like.copy(freed, 0, 0, 4);
    freed.write('free', 4, 'latin1');
    t.same(changed(join(movie, like)), join(movie, freed));
  },
);
