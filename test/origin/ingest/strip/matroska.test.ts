/** Matroska and WebM, element by element: what becomes void, and what is not understood. */
import t from 'tap';
import { readMatroska } from '../../../../origin/ingest/strip/matroska.js';
import type { InPlace } from '../../../../origin/ingest/strip/overwrites.js';
import { readBytes } from '../../../../src/media/reading.js';
import { hex, join, latin1 } from '../../../kit/bytes.js';

const SECRET = latin1('SECRET');

/** An element whose size takes one byte, or two. */
function element(id: string, ...content: readonly Buffer[]): Buffer {
  const data = join(...content);
  const size = data.length < 127 ? [0x80 | data.length] : [0x40 | (data.length >> 8), data.length & 255];
  return join(hex(id), Buffer.from(size), data);
}

function live(id: string, ...content: readonly Buffer[]): Buffer {
  return join(hex(id), hex('01ffffffffffffff'), ...content);
}

/** A Void element of the same length (RFC 8794 11.3.2). */
function voidOf(given: Buffer): Buffer {
  const copy = Buffer.alloc(given.length);
  if (given.length < 9) copy.set([0xec, 0x80 | (given.length - 2)]);
  else {
    copy.set([0xec, 0x01]);
    copy.writeUInt16BE(given.length - 9, 7);
  }
  return copy;
}

function changed(...parts: readonly Buffer[]): Buffer | string {
  const file = join(...parts);
  const change: InPlace | undefined = readBytes(readMatroska(file.length), file);
  if (change?.kind !== 'overwritten') return String(change?.kind);
  const copy = Buffer.from(file);
  for (const { at, bytes, length } of change.overwrites) (bytes ?? Buffer.alloc(length)).copy(copy, at);
  return copy;
}

const head = element('1a45dfa3', element('4282', latin1('webm')));
const track = (...types: readonly Buffer[]): Buffer => element('ae', element('d7', hex('01')), ...types);
const type = (value: number): Buffer => element('83', Buffer.from([value]));
const tracks = element('1654ae6b', track(type(1)), track(type(2)));
const cluster = element('1f43b675', element('e7', hex('00')), element('a3', latin1('block')));
const segment = (...content: readonly Buffer[]): Buffer => element('18538067', ...content);

void t.test('in a segment tracks, cues and clusters stay, and all else becomes void', async (t) => {
  const cues = element('1c53bb6b', latin1('times'));
  t.same(changed(head, segment(tracks, cluster, cues)), join(head, segment(tracks, cluster, cues)));
  for (const id of ['1254c367', '1941a469', '1043a770', 'bf', '4fff']) {
    for (const content of ['', 'SECRE', 'SECRET', 'a longer SECRET '.repeat(20)]) {
      const told = element(id, latin1(content));
      t.same(changed(head, segment(tracks, told, cluster)), join(head, segment(tracks, voidOf(told), cluster)), id);
    }
  }
  t.same(
    changed(head, segment(tracks, element('ec', SECRET))),
    join(head, segment(tracks, element('ec', Buffer.alloc(6)))),
  );
  t.same(changed(head, segment(tracks), SECRET), join(head, segment(tracks), Buffer.alloc(6)), 'behind the segment');
  t.same(changed(head, segment(tracks, hex('00'), SECRET)), join(head, segment(tracks, Buffer.alloc(7))), 'no element');
  const overlong = join(tracks, hex('1254c367 bf'), SECRET);
  t.same(
    changed(head, segment(overlong)),
    join(head, segment(tracks, voidOf(overlong.subarray(tracks.length)))),
    'longer than the segment',
  );
  const claimed = join(head, hex('18538067 50ff'), tracks, element('1254c367', SECRET));
  const expected = join(head, hex('18538067 50ff'), tracks, voidOf(element('1254c367', SECRET)));
  t.same(changed(claimed), expected, 'a segment longer than the file');
});

void t.test('of the information times and programs stay, and of the positions those of what stays', async (t) => {
  const info = (...content: readonly Buffer[]): Buffer => element('1549a966', ...content);
  for (const id of ['2ad7b1', '4489', '4461', '4d80', '5741', '73a4']) {
    t.same(
      changed(head, segment(info(element(id, SECRET)), tracks)),
      join(head, segment(info(element(id, SECRET)), tracks)),
      id,
    );
  }
  for (const id of ['7ba9', '7384', '3cb923', 'bf', 'ec']) {
    const [kept, told] = [element('4489', hex('00')), element(id, SECRET)];
    t.same(
      changed(head, segment(info(told, kept, told), tracks)),
      join(head, segment(info(voidOf(told), kept, voidOf(told)), tracks)),
      id,
    );
  }
  const seekHead = (...content: readonly Buffer[]): Buffer => element('114d9b74', ...content);
  const seek = (...content: readonly Buffer[]): Buffer => element('4dbb', ...content, element('53ac', hex('64')));
  for (const id of ['114d9b74', '1549a966', '1654ae6b', '1c53bb6b', '1f43b675']) {
    const place = seek(element('53ab', hex(id)));
    t.same(changed(head, segment(seekHead(place), tracks)), join(head, segment(seekHead(place), tracks)), id);
  }
  for (const place of [
    seek(element('53ab', hex('1254c367'))),
    seek(element('53ab', hex('1654ae6b00'))),
    seek(element('53ab', hex('54ae6b'))),
    seek(),
    join(hex('4dbb 85'), hex('53ab 85 1654')),
    element('4dbc', element('53ab', hex('1654ae6b'))),
    element('bf', SECRET),
  ]) {
    t.same(
      changed(head, segment(seekHead(place), tracks)),
      join(head, segment(seekHead(voidOf(place)), tracks)),
      place.toString('hex'),
    );
  }
  for (const parent of ['1549a966', '114d9b74']) {
    const malformed = join(hex(`${parent} 83`), hex('4d80 85'));
    t.equal(changed(head, segment(malformed, tracks)), 'unsupported', 'a child that is longer than its parent');
    t.equal(changed(head, segment(element(parent, hex('00')), tracks)), 'unsupported', 'a child that is none');
  }
});

void t.test('a live recording has clusters without a size, and what stands in them', async (t) => {
  const inCluster = ['e7', 'a3', 'a0', 'a7', 'ab', '5854'].map((id) => element(id, latin1('data')));
  const tags = element('1254c367', SECRET);
  const file = (told: Buffer): Buffer =>
    join(head, live('18538067', tracks, live('1f43b675', ...inCluster), told, live('1f43b675', ...inCluster)));
  t.same(changed(file(tags)), file(voidOf(tags)));
  t.same(
    changed(head, live('18538067', tracks, ...inCluster)),
    join(head, live('18538067', tracks, ...inCluster.map(voidOf))),
    'outside of one',
  );
  for (const id of ['1254c367', '1654ae6b', 'ec']) {
    t.equal(changed(head, live('18538067', tracks, live(id, SECRET))), 'unsupported', id);
  }
  const sized = segment(tracks, live('1f43b675', inCluster[1] ?? tracks));
  t.same(changed(head, sized, SECRET), join(head, sized, Buffer.alloc(6)), 'in a segment with a size');
});

void t.test('tracks hold pictures and sound, or are not understood', async (t) => {
  for (const value of [1, 2, 3])
    t.type(changed(head, segment(element('1654ae6b', track(type(value))))), Buffer, String(value));
  for (const value of [0, 4, 16, 17, 18, 32, 33]) {
    t.equal(
      changed(head, segment(element('1654ae6b', track(type(1)), track(type(value))))),
      'unsupported',
      String(value),
    );
  }
  t.equal(changed(head, segment(element('1654ae6b', track()))), 'unsupported', 'a track without a type');
  t.equal(changed(head, segment(element('1654ae6b', track(element('83'))))), 'unsupported', 'a type without a value');
  t.equal(
    changed(head, segment(element('1654ae6b', hex('ae 85 83 81 01')))),
    'unsupported',
    'a track that is too long',
  );
  t.equal(
    changed(head, segment(element('1654ae6b', element('ae', hex('83 81 01 00'))))),
    'unsupported',
    'a track that is malformed',
  );
  t.type(
    changed(head, segment(element('1654ae6b', element('bf', type(17)), track(type(1))))),
    Buffer,
    'in another element',
  );
  t.type(changed(head, segment(element('1654ae6b'))), Buffer, 'no tracks');
});

void t.test('what is no segment with tracks is broken', async (t) => {
  for (const [name, ...parts] of [
    ['nothing', Buffer.alloc(0)],
    ['a head alone', head],
    ['no head', segment(tracks)],
    ['another element', head, element('1654ae6b', track(type(1)))],
    ['a segment without tracks', head, segment(cluster)],
    ['tracks behind what is no element', head, segment(hex('00'), tracks)],
    ['another head', element('1a45dfa4'), segment(tracks)],
  ] as const) {
    t.equal(changed(...parts), 'broken', name);
  }
});
