/** The descriptions of the items of a HEIF: their types, places and properties, in each version of their boxes. */
import t from 'tap';
import { readHeifItems } from '../../../../origin/ingest/strip/heif-items.js';
import { hex, join, latin1, u16 } from '../../../kit/bytes.js';
import { box, iinf, iprp } from '../../../kit/heif.js';
import { u32 } from '../../../kit/origin/film.js';

const SECRET = latin1('SECRET');

void t.test('the places of items are read in every form of the list', async (t) => {
  const places = (iloc: Buffer, ...more: readonly Buffer[]): unknown => {
    const items = readHeifItems(
      join(iinf('hvc1', 'Exif', 'mime'), box('pitm', u32(0), u16(1)), iprp(), ...more, iloc),
      1_000,
    );
    return items && [items.pictures, items.exif, items.others];
  };
  const expected = [[{ from: 70, to: 75 }], [[{ from: 80, to: 89 }]], []];
  const place = (id: number, ...rest: readonly Buffer[]): Buffer => join(u16(id), ...rest);
  t.same(
    places(box('iloc', u32(0), hex('4400'), u16(2), place(1, u16(0, 1), u32(70, 5)), place(2, u16(0, 1), u32(80, 9)))),
    expected,
  );
  t.same(
    places(
      box(
        'iloc',
        u32(0),
        hex('4440'),
        u16(2),
        place(1, u16(0), u32(60), u16(1), u32(10, 5)),
        place(2, u16(0), u32(80), u16(1), u32(0, 9)),
      ),
    ),
    expected,
    'from a base',
  );
  t.same(
    places(
      box(
        'iloc',
        u32(0),
        hex('8880'),
        u16(2),
        place(1, u16(0), u32(0, 60), u16(1), u32(0, 10, 0, 5)),
        place(2, u16(0), u32(0, 80), u16(1), u32(0, 0, 0, 9)),
      ),
    ),
    expected,
    'in 64 bits',
  );
  t.same(
    places(
      box(
        'iloc',
        u32(0),
        hex('0440'),
        u16(2),
        place(1, u16(0), u32(70), u16(1), u32(5)),
        place(2, u16(0), u32(80), u16(1), u32(9)),
      ),
    ),
    expected,
    'without offsets',
  );
  t.same(
    places(box('iloc', u32(0), hex('4407'), u16(2), place(1, u16(0, 1), u32(70, 5)), place(2, u16(0, 1), u32(80, 9)))),
    expected,
    'version 0 has no indexes',
  );
  t.same(
    places(
      box(
        'iloc',
        hex('01000000'),
        hex('4404'),
        u16(2),
        place(1, u16(0, 0, 1), u32(9, 70, 5)),
        place(2, u16(0, 0, 1), u32(9, 80, 9)),
      ),
    ),
    expected,
    'with indexes',
  );
  t.same(
    places(
      box(
        'iloc',
        hex('02000000'),
        hex('4400'),
        u32(2),
        u32(1),
        u16(0, 0, 1),
        u32(70, 5),
        u32(2),
        u16(0, 0, 1),
        u32(80, 9),
      ),
    ),
    expected,
    'version 2',
  );
  const idat = box('idat', latin1('a picture'));
  const dataAt = 1_000 + join(iinf('hvc1', 'Exif', 'mime'), box('pitm', u32(0), u16(1)), iprp()).length + 8;
  const inIdat = box('iloc', hex('01000000'), hex('4400'), u16(1), place(1, u16(1, 0, 1), u32(2, 7)));
  t.same(places(inIdat, idat), [[{ from: dataAt + 2, to: dataAt + 9 }], [], []], 'in the description');
  const two = box(
    'iloc',
    u32(0),
    hex('4400'),
    u16(2),
    place(1, u16(0, 2), u32(70, 5, 90, 6)),
    place(3, u16(0, 1), u32(80, 9)),
  );
  t.same(
    places(two),
    [
      [
        { from: 70, to: 75 },
        { from: 90, to: 96 },
      ],
      [],
      [{ from: 80, to: 89 }],
    ],
    'in two extents',
  );
  for (const [name, iloc] of [
    ['in another file', box('iloc', u32(0), hex('4400'), u16(1), place(1, u16(1, 1), u32(70, 5)))],
    ['made of other items', box('iloc', hex('01000000'), hex('4400'), u16(1), place(1, u16(2, 0, 1), u32(70, 5)))],
    ['of an unknown length', box('iloc', u32(0), hex('4400'), u16(1), place(1, u16(0, 1), u32(70, 0)))],
    ['to the end of the file', box('iloc', u32(0), hex('4000'), u16(1), place(1, u16(0, 1), u32(70)))],
    ['in extents without a length', box('iloc', u32(0), hex('4000'), u16(1), place(1, u16(0, 2), u32(70, 80)))],
    ['in offsets of two bytes', box('iloc', u32(0), hex('2400'), u16(1), place(1, u16(0, 1, 70), u32(5)))],
    ['in a later version', box('iloc', hex('03000000'), hex('4400'), u32(1), u32(1), u16(0, 0, 1), u32(70, 5))],
    ['in a list that is cut', box('iloc', u32(0), hex('4400'), u16(2), place(1, u16(0, 1), u32(70, 5)))],
    ['in an extent that is cut', box('iloc', u32(0), hex('4400'), u16(1), place(1, u16(0, 1), u32(70)))],
    ['nowhere', box('iloc', u32(0), hex('4400'))],
    ['in no list', box('free')],
  ] as const) {
    t.same(places(iloc), undefined, name);
  }
  t.same(places(box('iloc', u32(0), hex('4400'), u16(0))), [[], [], []], 'an empty list');
});

void t.test('only known pictures and what describes their pixels stay of the items', async (t) => {
  const iloc = box('iloc', u32(0), hex('4400'), u16(1, 1, 0, 1), u32(70, 5));
  const pitm = box('pitm', u32(0), u16(1));
  const read = (...boxes: readonly Buffer[]) => readHeifItems(join(...boxes), 0);
  for (const type of 'hvc1 hev1 lhv1 av01 avc1 vvc1 evc1 j2k1 unci grid iovl iden tmap mski'.split(' ')) {
    t.same(read(iinf(type), pitm, iprp(), iloc)?.pictures, [{ from: 70, to: 75 }], type);
  }
  for (const type of ['jpeg', 'Exif', 'mime', 'abcd']) t.equal(read(iinf(type), pitm, iprp(), iloc), undefined, type);
  const other = box('iloc', u32(0), hex('4400'), u16(1, 2, 0, 1), u32(70, 5));
  t.equal(read(iinf('hvc1', 'jpeg'), pitm, iprp(), other), undefined, 'a JPEG beside the picture');
  t.same(read(iinf('hvc1', 'abcd'), pitm, iprp(), other)?.others, [{ from: 70, to: 75 }], 'an item of an unknown kind');
  for (const primary of [
    box('pitm', hex('01000000'), u32(1)),
    box('pitm', hex('01000000'), u16(1)),
    box('pitm', u32(0), u16(1, 9)),
  ]) {
    t.ok(read(iinf('hvc1'), primary, iprp(), iloc), primary.toString('hex'));
  }
  for (const primary of [
    box('pitm', u32(0), u16(2)),
    box('pitm', hex('01000000'), u32(0x10001)),
    box('pitm', u32(0)),
    box('free'),
  ]) {
    t.equal(read(iinf('hvc1'), primary, iprp(), iloc), undefined, primary.toString('hex'));
  }
  const infos = (version: number, count: Buffer, ...entries: readonly Buffer[]): Buffer =>
    box('iinf', hex(`0${version}000000`), count, ...entries);
  const entry = (version: number, id: Buffer, type = 'hvc1'): Buffer =>
    box('infe', hex(`0${version}000000`), id, u16(0), latin1(type));
  t.ok(read(infos(1, u32(1), entry(2, u16(1))), pitm, iprp(), iloc), 'counted in four bytes');
  t.ok(read(infos(0, u16(1), entry(3, u32(1))), pitm, iprp(), iloc), 'an id of four bytes');
  t.equal(read(infos(0, u16(1), entry(1, u16(1))), pitm, iprp(), iloc), undefined, 'an item without a type');
  t.equal(read(infos(0, u16(1), entry(2, u16(1), 'hvc')), pitm, iprp(), iloc), undefined, 'half a type');
  t.equal(read(box('iinf', u32(0), u16(0)), pitm, iprp(), iloc), undefined, 'no items');
  t.equal(read(box('iinf', u32(0), u16(1), u32(99, 0)), pitm, iprp(), iloc), undefined, 'items that are malformed');
  t.equal(read(pitm, iprp(), iloc), undefined, 'no types');
  t.equal(read(iinf('hvc1'), pitm, iprp(), iloc, u32(99, 0)), undefined, 'a box that is malformed');
  t.equal(read(iinf('hvc1'), pitm, iloc), undefined, 'no properties');
  t.equal(read(iinf('hvc1'), pitm, box('iprp'), iloc), undefined);
  const freedAt = (...boxes: readonly Buffer[]): unknown =>
    read(...boxes)?.overwrites.map(({ at, length }) => [at, length]);
  const known = [iinf('hvc1'), pitm, iprp(box('ispe', SECRET)), iloc];
  const end = join(...known).length;
  for (const type of 'hdlr iref idat grpl dinf ipro'.split(' ')) t.same(freedAt(...known, box(type, SECRET)), [], type);
  for (const type of 'uuid xml  bxml ilst free skip'.match(/.{4}(?= |$)/g) ?? []) {
    t.same(
      freedAt(...known, box(type, SECRET)),
      [
        [end + 4, 4],
        [end + 8, 6],
      ],
      type,
    );
  }
  const at = iinf('hvc1').length + pitm.length + 16;
  for (const type of ['udes', 'altt', 'uuid']) {
    t.same(
      freedAt(iinf('hvc1'), pitm, iprp(box(type, SECRET)), iloc),
      [
        [at + 4, 4],
        [at + 8, 6],
      ],
      type,
    );
  }
});
