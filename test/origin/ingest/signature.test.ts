/** Which proof is asked of a short signature, field by field, and how the tracks of a container name it. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { detectType, identify } from '../../../origin/ingest/identify.js';
import { readSignature } from '../../../origin/ingest/signature.js';
import type { Staged } from '../../../origin/ingest/stage.js';
import type { Sha256 } from '../../../src/ids.js';
import { hex } from '../../kit/bytes.js';
import { box } from '../../kit/heif.js';
import { caf, chromeWebm, firefoxOgg, id3Tag, mp3Frames, phoneIso, type Track } from '../../kit/recordings.js';

const whole = (bytes: Buffer) => ({ path: '/none', sizeBytes: bytes.length, head: bytes });
const signature = (bytes: Buffer, declared?: string) => readSignature(whole(bytes), declared);
/** A copy in which some bytes are others. */
const withBytes = (bytes: Buffer, at: number, digits: string): Buffer => {
  const copy = Buffer.from(bytes);
  hex(digits).copy(copy, at);
  return copy;
};

void t.test('the fields of a header are the proof that it is one', async (t) => {
  const bitmap = withBytes(withBytes(Buffer.alloc(60), 0, '424d'), 14, '28000000');
  const packets = Buffer.alloc(188 * 5);
  for (let at = 0; at < packets.length; at += 188) packets[at] = 0x47;
  const stamped = Buffer.alloc(192 * 5);
  for (let at = 4; at < stamped.length; at += 192) stamped[at] = 0x47;
  const program = withBytes(Buffer.alloc(28), 0, '4d5a 0000 0100 0000 0200');
  const dos = withBytes(program, 24, '1c00');
  const gzip = hex('1f8b 08 00 00000000 00 03 0000000000000000');
  const rows: readonly (readonly [type: string, good: Buffer, bad: readonly Buffer[], others?: readonly Buffer[]])[] = [
    [
      'image/bmp',
      bitmap,
      [
        withBytes(bitmap, 14, '29'),
        withBytes(bitmap, 14, '00'),
        withBytes(bitmap, 6, '01'),
        withBytes(bitmap, 9, '01'),
        bitmap.subarray(0, 25),
      ],
      [
        ...['0c', '10', '34', '38', '40', '6c', '7c'].map((size) => withBytes(bitmap, 14, size)),
        bitmap.subarray(0, 26),
      ],
    ],
    [
      'application/gzip',
      gzip,
      [
        withBytes(gzip, 3, '20'),
        withBytes(gzip, 3, '40'),
        withBytes(gzip, 3, '80'),
        withBytes(gzip, 8, '01'),
        withBytes(gzip, 8, '03'),
        withBytes(gzip, 8, '05'),
        withBytes(gzip, 9, '0e'),
        withBytes(gzip, 9, 'fe'),
        gzip.subarray(0, 9),
      ],
      [
        withBytes(gzip, 3, '1f'),
        withBytes(gzip, 8, '02'),
        withBytes(gzip, 8, '04'),
        withBytes(gzip, 9, '00'),
        withBytes(gzip, 9, '0d'),
        withBytes(gzip, 9, 'ff'),
      ],
    ],
    [
      'application/x-bzip2',
      hex('425a68 39 314159265359 0000'),
      [hex('425a68 39 314159265358 0000'), hex('425a68 39 177245385091 0000'), hex('425a68 39 3141592653')],
      [hex('425a68 39 177245385090 0000')],
    ],
    [
      'application/x-msdownload',
      dos,
      [
        withBytes(dos, 2, '0002'),
        withBytes(dos, 4, '0000'),
        withBytes(dos, 8, '0100'),
        withBytes(dos, 24, '1b00'),
        dos.subarray(0, 27),
      ],
      [withBytes(dos, 2, 'ff01'), withBytes(dos, 8, '0300'), withBytes(dos, 24, '4000'), withBytes(dos, 4, '0001')],
    ],
    [
      'video/mp2t',
      packets,
      [1, 2, 3, 4].map((packet) => withBytes(packets, packet * 188, '00')).concat(packets.subarray(0, 188 * 4)),
      [Buffer.concat([packets, Buffer.alloc(50)])],
    ],
    ['video/mp2t', stamped, [1, 2, 3, 4].map((packet) => withBytes(stamped, 4 + packet * 192, '00'))],
    [
      'image/gif',
      Buffer.from('GIF89a and more'),
      ['GIF88a and more', 'GIF89b and more'].map((each) => Buffer.from(each)),
      [Buffer.from('GIF87a and more')],
    ],
    ['application/postscript', Buffer.from('%!PS-Adobe-3.0\n'), [Buffer.from('%!PX-Adobe-3.0\n')]],
  ];
  for (const [type, good, bad, others = []] of rows) {
    for (const each of [good, ...others])
      t.equal(await signature(each), type, `${type} ${each.toString('hex', 0, 30)}`);
    for (const each of bad) t.equal(await signature(each), undefined, `no ${type} ${each.toString('hex', 0, 30)}`);
  }
});

void t.test('a JPEG begins with a marker, or has a size further on', async (t) => {
  for (const code of ['c0', 'db', 'e0', 'ee', 'fe'])
    t.equal(await signature(hex(`ffd8 ff${code} 0002 0000`)), 'image/jpeg');
  t.equal(await signature(hex('ffd8 ffff ffdb 0002 0000')), 'image/jpeg', 'fill bytes');
  for (const code of ['01', '7f', 'bf']) t.equal(await signature(hex(`ffd8 ff${code} 0002 0000`)), undefined, code);
  t.equal(await signature(hex('ffd8 ff00 ffdb 0002 0000')), undefined, 'a data byte');
  const frame = 'ffc0 000b 08 0003 0002 01 011100';
  t.equal(await signature(hex(`ffd8 0102 ${frame} 0000 0000`)), 'image/jpeg', 'behind other bytes');
  t.equal(await signature(hex(`ffd8 0102 0304 0506 0708`)), undefined, 'nothing but its start');
  t.equal(await signature(hex(`ffd9 0102 ${frame} 0000 0000`)), undefined, 'another start');
});

void t.test('other short signatures are believed if the client declares the type', async (t) => {
  const rest = '0001feff80c3a90000';
  for (const [type, digits] of [
    ['image/jxl', `ff0a${rest}`],
    ['audio/vnd.dolby.dd-raw', `0b77${rest}`],
    ['application/x-apple-diskimage', `7801${rest}`],
    ['application/x-compress', `1fa0${rest}`],
    ['application/x-arj', `60ea${rest}`],
    ['application/x-shockwave-flash', `465753${rest}`],
    ['application/x-cpio', `c771${rest}`],
  ] as const) {
    t.equal(await signature(hex(digits), type), type);
    t.equal(await signature(hex(digits)), undefined, `${type} without a declaration`);
    t.equal(await signature(hex(digits), 'image/png'), undefined, `${type} under another declaration`);
  }
  t.equal(await signature(hex('0000000c4a584c200d0a870a00000014')), 'image/jxl', 'a signature of twelve bytes');
  t.equal(await signature(Buffer.from('0707070000010000')), 'application/x-cpio', 'one of six characters');
  t.equal(await signature(Buffer.from('MPCKSH and more of it')), 'audio/x-musepack', 'one of four');
});

void t.test('a container is named by its tracks, or as it is declared if they cannot be read', async (t) => {
  const rows: readonly (readonly [(tracks: readonly Track[]) => Buffer, video: string, audio: string])[] = [
    [(tracks) => phoneIso('mp42', tracks), 'video/mp4', 'audio/mp4'],
    [(tracks) => phoneIso('qt  ', tracks), 'video/quicktime', 'audio/mp4'],
    [(tracks) => phoneIso('3gp4', tracks), 'video/3gpp', 'audio/3gpp'],
    [(tracks) => phoneIso('3g2a', tracks), 'video/3gpp2', 'audio/3gpp2'],
    [(tracks) => chromeWebm(tracks), 'video/webm', 'audio/webm'],
    [(tracks) => chromeWebm(tracks, 'matroska'), 'video/matroska', 'audio/matroska'],
    [firefoxOgg, 'video/ogg', 'audio/ogg'],
  ];
  for (const [make, video, audio] of rows) {
    t.equal(await signature(make(['picture'])), video);
    t.equal(await signature(make(['picture', 'sound'])), video);
    t.equal(await signature(make(['sound']), video), audio);
  }
  const unread = box('ftyp', Buffer.from('mp42\0\0\0\0mp42', 'latin1'));
  t.equal(await signature(unread), 'video/mp4');
  t.equal(await signature(unread, 'audio/mp4'), 'audio/mp4');
  t.equal(await signature(unread, 'audio/3gpp'), 'video/mp4');
});

void t.test('sound is found where the package does not look', async (t) => {
  t.equal(await signature(caf()), 'audio/x-caf');
  t.equal(await signature(withBytes(caf(), 5, '02')), undefined, 'another version');
  t.equal(await signature(Buffer.concat([id3Tag(40), Buffer.alloc(2_000), mp3Frames(4)])), 'audio/mpeg');
  t.equal(await signature(Buffer.concat([Buffer.alloc(9), mp3Frames(4)])), undefined);
  t.equal(await signature(Buffer.alloc(0)), undefined);
});

const folder = t.testdir({});
let files = 0;

/** With a head of a few bytes, so that the rest is read from the file. */
async function staged(bytes: Buffer, headBytes: number): Promise<Staged> {
  files += 1;
  const path = join(folder, String(files));
  await writeFile(path, bytes);
  return { path, sizeBytes: bytes.length, sha256: '' as Sha256, head: bytes.subarray(0, headBytes), synced: false };
}

void t.test('a text is one to its last byte, however its characters lie to the reads', async (t) => {
  const READ_BYTES = 256 * 1_024;
  const detected = async (bytes: Buffer): Promise<string> => detectType(await staged(bytes, 100));
  for (const character of ['é', '€', '😀']) {
    const bytes = Buffer.from(character);
    for (let before = READ_BYTES - 4; before <= READ_BYTES; before += 1) {
      const start = Buffer.alloc(before, 'words ');
      t.equal(
        await detected(Buffer.concat([start, bytes, Buffer.from(' more')])),
        'text/plain',
        `${character} ${before}`,
      );
      const cut = Buffer.concat([start, bytes.subarray(0, -1)]);
      t.equal(await detected(cut), 'application/octet-stream', `${character} cut at ${before}`);
      const broken = Buffer.concat([start, bytes.subarray(0, -1), Buffer.from('x more')]);
      t.equal(await detected(broken), 'application/octet-stream', `${character} broken at ${before}`);
    }
  }
  for (const [name, wrong] of [
    ['a zero', '00'],
    ['an escape that is none', '1a'],
    ['a byte that is no UTF-8', 'ff'],
    ['a continuation alone', '80'],
    ['a surrogate', 'eda080'],
    ['a character in too many bytes', 'c080'],
  ] as const) {
    for (const before of [200, READ_BYTES + 200]) {
      const bytes = Buffer.concat([Buffer.alloc(before, 'words '), hex(wrong), Buffer.from(' more')]);
      t.equal(await detected(bytes), 'application/octet-stream', `${name} at ${before}`);
    }
  }
  const allowed = Buffer.concat([Buffer.alloc(300, 'words '), hex('090a0c0d1b7f'), Buffer.alloc(300, 'words ')]);
  t.equal(await detected(allowed), 'text/plain');
});

void t.test('only markup at the beginning shows that a text is not plain', async (t) => {
  const detected = (text: string): Promise<string> => detectType(whole(Buffer.from(text)) as Staged);
  for (const html of ['<!DOCTYPE html>', '<html>', '<HEAD>', '<body x>', '<script>', '<iframe>', '<!-- x -->']) {
    t.equal(await detected(html), 'text/html', html);
    t.equal(await detected(`\ufeff \n\t${html}`), 'text/html', 'behind white space');
    t.equal(await detected(`words ${html}`), 'text/plain', 'behind words');
  }
  t.equal(await detected('<svg>'), 'image/svg+xml');
  t.equal(await detected('<svg\nxmlns="x">'), 'image/svg+xml');
  t.equal(await detected('<svgs>'), 'text/plain');
  t.equal(await detected('<p>words'), 'text/plain');
  t.equal(await detected(`${' '.repeat(1_000)}<html>`), 'text/html');
});

void t.test('what an upload is refused for says what its bytes are', async (t) => {
  const refusal = async (bytes: Buffer, declared: string | undefined, accepted = ['text/plain', 'image/png']) => {
    try {
      return await identify(whole(bytes) as Staged, declared, accepted);
    } catch (thrown) {
      return (thrown as Error).message;
    }
  };
  const binary = hex('00010203');
  const utf16 = Buffer.from('\ufeffwords', 'utf16le');
  for (const [declared, bytes, expected] of [
    ['text/plain', binary, 'type_mismatch: The declared type is text/plain, but the bytes are not valid UTF-8 text.'],
    ['text/*', binary, 'type_mismatch: The declared type is text/*, but the bytes are not valid UTF-8 text.'],
    ['image/png', binary, 'type_mismatch: The declared type is image/png, but the bytes are application/octet-stream.'],
    [
      'text/plain',
      utf16,
      'type_mismatch: The declared type is text/plain, but the bytes are text in UTF-16. Send text in UTF-8.',
    ],
    [undefined, utf16, 'type_refused: The bytes are text in UTF-16. Send text in UTF-8.'],
    [undefined, binary, 'type_refused: Media of type application/octet-stream is not accepted.'],
    ['text/html', Buffer.from('<html>'), 'type_refused: Media of type text/html is not accepted.'],
    ['text/plain', Buffer.from('<html>'), 'text/plain'],
    ['text/plain', Buffer.from('GIF89a'), 'text/plain'],
  ] as const) {
    t.equal(await refusal(bytes, declared), expected);
  }
  t.equal(await refusal(binary, undefined, ['application/octet-stream']), 'application/octet-stream');
  for (const [digits, encoding] of [
    ['fffe0000 77000000', 'UTF-32'],
    ['0000feff 00000077', 'UTF-32'],
    ['feff 0077', 'UTF-16'],
  ] as const) {
    t.equal(
      await refusal(hex(digits), undefined),
      `type_refused: The bytes are text in ${encoding}. Send text in UTF-8.`,
    );
  }
  const notText = 'type_refused: Media of type application/octet-stream is not accepted.';
  t.equal(await refusal(hex('fffe 0100 0200'), undefined), notText, 'characters that no text has');
  t.equal(await refusal(hex('fffe 00d8 0000 00d8 7700'), undefined), notText, 'half a pair');
});
