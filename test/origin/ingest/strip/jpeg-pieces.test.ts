/** A JPEG cut into pieces: markers with their segments, and the data of scans (ITU-T T.81 Annex B). */
import t from 'tap';
import { readPicture, segment } from '../../../../origin/ingest/strip/jpeg-pieces.js';
import { hex } from '../../../kit/bytes.js';

function pieces(digits: string, start = 0): unknown {
  const picture = readPicture(hex(digits), start);
  return (
    picture && [
      picture.end,
      ...picture.pieces.map(({ code, whole, content }) => [code ?? -1, whole.toString('hex'), content.toString('hex')]),
    ]
  );
}

const START = [0xd8, 'ffd8', ''] as const;
const SCAN = [0xda, 'ffda000311', '11'] as const;

void t.test('a picture is its markers, its segments and the data of its scans, up to its end', async (t) => {
  t.same(pieces('ffd8 ffda000311 2233 ffd9 44'), [11, START, SCAN, [-1, '2233', ''], [0xd9, 'ffd9', '']]);
  t.same(
    pieces('0000 ffd8 ffda000311 22 ffd9', 2),
    [12, START, SCAN, [-1, '22', ''], [0xd9, 'ffd9', '']],
    'further on',
  );
  t.same(pieces('ffd8 ffe1000461626300 ffd9'), [12, START, [0xe1, 'ffe100046162', '6162'], [0xd9, 'ffd9', '']]);
  t.same(pieces('ffd8 ffec0000 ffec0001 ffec0002 ffd9'), [
    16,
    START,
    [0xec, 'ffec0000', ''],
    [0xec, 'ffec0001', ''],
    [0xec, 'ffec0002', ''],
    [0xd9, 'ffd9', ''],
  ]);
  t.same(pieces('ffd8 ff01 ffd0 ffd7 ffffd9'), [
    11,
    START,
    [1, 'ff01', ''],
    [0xd0, 'ffd0', ''],
    [0xd7, 'ffd7', ''],
    [0xd9, 'ffffd9', ''],
  ]);
});

void t.test('stuffing, restarts and fill bytes are data of a scan, and every other marker ends it', async (t) => {
  const scanned = (digits: string): unknown => pieces(`ffd8 ffda000311 ${digits} ffd9`);
  for (const data of ['', '22', 'ff00', 'ffd0', 'ffd722', '22ff00ff00', 'ffff00', 'ffffd033', 'ffd0ffd1']) {
    const end = 9 + data.length / 2;
    t.same(scanned(data), [end, START, SCAN, [-1, data, ''], [0xd9, 'ffd9', '']], data);
  }
  for (const code of ['01', 'cf', 'd8', '7f']) {
    const found = scanned(`22ff${code}0002`) as readonly unknown[] | undefined;
    t.same(found?.[3], [-1, '22', ''], code);
  }
  t.same(scanned('22 ffc40003aa 33'), [
    16,
    START,
    SCAN,
    [-1, '22', ''],
    [0xc4, 'ffc40003aa', 'aa'],
    [0xd9, 'ffd9', ''],
  ]);
  t.same(pieces('ffd8 ffda000311 22ff'), [9, START, SCAN, [-1, '22ff', '']], 'half a marker');
  t.same(pieces('ffd8 ffda000311'), [7, START, SCAN, [-1, '', '']], 'no data');
  t.same(pieces('ffd8 ffda000311 22 ffda000311 33'), [14, START, SCAN, [-1, '22', ''], SCAN, [-1, '33', '']], 'no end');
});

void t.test('what is cut before its first scan, or in a segment, is no picture', async (t) => {
  for (const digits of ['', 'ffd8', 'ffd8ff', 'ffd9ffda000311', 'ffd8 ffe10002', 'ffd8 112233', 'ffd8 ffda0004 11']) {
    t.equal(pieces(digits), undefined, digits);
  }
  t.equal(pieces('ffd8 ffda000311 22 ffe1'), undefined, 'no length');
  t.equal(pieces('ffd8 ffda000311 22 ffe100'), undefined, 'half a length');
  t.equal(pieces('ffd8 ffda000311 22 ffe1000400'), undefined, 'half a segment');
  t.ok(pieces('ffd8 ffda000311 22 ffe100040000'), 'a whole one');
  t.equal(pieces('00ff d8ffda000311', 0), undefined);
});

void t.test('a segment has its length, which counts itself, before its content', async (t) => {
  t.same(segment(0xe1, Buffer.alloc(0)), hex('ffe10002'));
  t.same(segment(0xfe, Buffer.alloc(300, 1)), Buffer.concat([hex('fffe012e'), Buffer.alloc(300, 1)]));
});
