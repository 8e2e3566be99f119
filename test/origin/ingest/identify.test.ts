import { createHash, randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32, gzipSync } from 'node:zlib';
import sharp from 'sharp';
import t from 'tap';
import { detectType, identify, pictureFacts } from '../../../origin/ingest/identify.js';
import { HEAD_MAX_BYTES, type Staged } from '../../../origin/ingest/stage.js';
import { Fault } from '../../../src/errors.js';
import type { Sha256 } from '../../../src/ids.js';
import { ACCEPTED_TYPES } from '../../../src/media/types.js';
import { heifOf } from '../../kit/heif.js';
import { gif, pdf, png, text } from '../../kit/media.js';
import {
  adtsFrames,
  amrFrames,
  caf,
  chromeWebm,
  firefoxOgg,
  id3Tag,
  isoBox,
  mp3Frames,
  phoneIso,
  safariMp4,
} from '../../kit/recordings.js';

const root = t.testdir({});

async function staged(bytes: Buffer): Promise<Staged> {
  const path = join(root, randomUUID());
  await writeFile(path, bytes);
  const head = bytes.subarray(0, HEAD_MAX_BYTES);
  return { path, sizeBytes: bytes.length, sha256: '' as Sha256, head, synced: false };
}

/** The type, or the code and the detail of the refusal. */
async function outcome(bytes: Buffer, declared?: string, accepted = ACCEPTED_TYPES): Promise<string> {
  try {
    return await identify(await staged(bytes), declared, accepted);
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown.message;
    throw thrown;
  }
}

type Case = readonly [name: string, bytes: Buffer, declared: readonly (string | undefined)[], expected: string];

const cases = (name: string, rows: readonly Case[]): void =>
  void t.test(name, async (t) => {
    for (const [what, bytes, declarations, expected] of rows) {
      for (const declared of declarations) t.equal(await outcome(bytes, declared), expected, `${what} as ${declared}`);
    }
  });

const MP4 = [
  'audio/mp4',
  'audio/x-m4a',
  'audio/mp4; codecs=mp4a.40.2',
  'audio/*',
  undefined,
  'application/octet-stream',
];

cases('a voice message is audio, whatever container its recorder uses', [
  ['Safari’s MP4', safariMp4(['sound']), [...MP4, 'video/mp4'], 'audio/mp4'],
  ['Android’s M4A', phoneIso('mp42', ['sound']), [...MP4, 'video/mp4', 'audio/aac'], 'audio/mp4'],
  ['a long M4A', phoneIso('isom', ['sound'], 400_000), MP4, 'audio/mp4'],
  ['the M4A of iOS', phoneIso('M4A ', ['sound']), MP4, 'audio/mp4'],
  ['a QuickTime file without a picture', phoneIso('qt  ', ['sound']), [...MP4, 'video/quicktime'], 'audio/mp4'],
  ['Android’s 3GP', phoneIso('3gp4', ['sound']), [undefined, 'audio/3gpp', 'video/3gpp', 'audio/mp4'], 'audio/3gpp'],
  ['AMR', amrFrames(20), [undefined, 'audio/amr', 'audio/AMR', 'audio/3gpp'], 'audio/amr'],
  ['wide-band AMR', amrFrames(20, 'wide'), [undefined, 'audio/amr-wb', 'audio/amr'], 'audio/amr'],
  ['Android’s AAC', adtsFrames(20), [undefined, 'audio/aac', 'audio/aacp'], 'audio/aac'],
  ['the CAF of iOS', caf(), [undefined, 'audio/x-caf', 'audio/caf'], 'audio/x-caf'],
  [
    'Chrome’s WebM',
    chromeWebm(['sound']),
    [undefined, 'audio/webm;codecs=opus', 'video/webm', 'audio/*'],
    'audio/webm',
  ],
  ['Firefox’s Ogg', firefoxOgg(['sound']), [undefined, 'audio/ogg; codecs=opus', 'application/ogg'], 'audio/ogg'],
  ['an Ogg with a skeleton', firefoxOgg(['sound'], true), [undefined, 'audio/ogg', 'video/ogg'], 'audio/ogg'],
  [
    'MP3 behind padding',
    Buffer.concat([id3Tag(500_000), Buffer.alloc(999), mp3Frames(9)]),
    [undefined, 'audio/mp3'],
    'audio/mpeg',
  ],
  [
    'an MP4 without a list of tracks',
    Buffer.concat([isoBox('ftyp', 'isom', Buffer.alloc(4)), isoBox('mdat')]),
    ['audio/mp4'],
    'audio/mp4',
  ],
]);

cases('a film stays video', [
  ['Safari’s MP4', safariMp4(['picture', 'sound']), [undefined, 'video/mp4', 'video/*', 'audio/mp4'], 'video/mp4'],
  ['an MP4 without sound', phoneIso('isom', ['picture']), [undefined, 'video/mp4', 'video/quicktime'], 'video/mp4'],
  ['QuickTime', phoneIso('qt  ', ['sound', 'picture']), [undefined, 'video/quicktime', 'video/mp4'], 'video/quicktime'],
  ['3GP', phoneIso('3gp5', ['sound', 'picture']), [undefined, 'video/3gpp', 'audio/3gpp'], 'video/3gpp'],
  ['Chrome’s WebM', chromeWebm(['sound', 'picture']), [undefined, 'video/webm;codecs=vp8,opus'], 'video/webm'],
  [
    'an MP4 without a list of tracks',
    Buffer.concat([isoBox('ftyp', 'isom', Buffer.alloc(4)), isoBox('mdat')]),
    [undefined, 'video/mp4'],
    'video/mp4',
  ],
  [
    'Matroska',
    chromeWebm(['sound', 'picture'], 'matroska'),
    ['video/webm', 'video/x-matroska'],
    'type_refused: Media of type video/matroska is not accepted.',
  ],
]);

const REFUSED = (type: string): string => `type_refused: Media of type ${type} is not accepted.`;
const UNKNOWN = REFUSED('application/octet-stream');

void t.test('a picture in HEIF is a picture under every brand, and never a film', async (t) => {
  const data = Buffer.alloc(8);
  const coded = { type: 'hvc1', configuration: isoBox('hvcC', data), width: 96, height: 64, data };
  const cases: readonly (readonly [
    brands: readonly string[],
    declared: readonly (string | undefined)[],
    type: string,
  ])[] = [
    [['avci', 'mif1', 'avci', 'miaf'], [undefined, 'image/heif', 'image/*'], 'image/heif'],
    [['mif3', 'avif'], [undefined, 'image/avif', 'image/heif'], 'image/avif'],
    [['isom', 'mif1', 'heic'], [undefined, 'image/heic', 'image/heif'], 'image/heic'],
    [['abcd', 'efgh'], [undefined, 'image/heif'], 'image/heif'],
  ];
  for (const [brands, declared, type] of cases) {
    const bytes = heifOf([{ coded }], { brands, exif: 6 });
    for (const each of declared) t.equal(await outcome(bytes, each), type, `${brands.join()} as ${each}`);
    t.match(await pictureFacts(await staged(bytes)), { width: 96, height: 64, orientation: 1 });
    t.match(await outcome(bytes, 'video/mp4'), /^type_mismatch/, `${brands.join()} as a film`);
  }
});

void t.test('text in UTF-16 or UTF-32 is refused as such, and is never audio', async (t) => {
  const csv = '\ufeffa,b\r\n1,2\r\n';
  const big = (value: string): Buffer => Buffer.from(value, 'utf16le').swap16();
  const utf32 = Buffer.concat(csv.split('').map((letter) => Buffer.from(`${letter}\0`, 'utf16le')));
  const texts: readonly (readonly [encoding: string, bytes: Buffer])[] = [
    ['UTF-16', Buffer.from(csv, 'utf16le')],
    ['UTF-16', big(csv)],
    ['UTF-16', Buffer.from(`\ufeff${'Grüße 🙂 '.repeat(40_000)}`, 'utf16le')],
    ['UTF-16', Buffer.from('\ufeff', 'utf16le')],
    ['UTF-16', Buffer.from('\ufeff<?xml version="1.0"?><a/>', 'utf16le')],
    ['UTF-32', utf32],
  ];
  for (const [encoding, bytes] of texts) {
    const end = `text in ${encoding}. Send text in UTF-8.`;
    for (const declared of [undefined, 'application/octet-stream', '*/*']) {
      t.equal(await outcome(bytes, declared), `type_refused: The bytes are ${end}`);
    }
    for (const declared of ['text/csv', 'text/plain; charset=utf-16', 'audio/mpeg', 'text/*']) {
      const [essence] = declared.split(';');
      t.equal(
        await outcome(bytes, declared),
        `type_mismatch: The declared type is ${essence}, but the bytes are ${end}`,
      );
    }
    t.equal(await detectType(await staged(bytes)), 'application/octet-stream');
  }
  t.equal(await outcome(Buffer.from('fffe01000200', 'hex')), UNKNOWN, 'other bytes behind such a mark');
});

void t.test('a type of text is refused if its bytes are not UTF-8, also if its first words show it', async (t) => {
  const card = Buffer.from('BEGIN:VCARD\r\nVERSION:2.1\r\nFN:Ren\xe9\r\nEND:VCARD\r\n', 'latin1');
  t.equal(await outcome(card), UNKNOWN);
  t.match(await outcome(card, 'text/vcard'), /^type_mismatch: .* are not valid UTF-8 text\.$/);
  t.equal(await outcome(Buffer.from(card.toString('latin1')), 'text/x-vcard'), 'text/vcard');
});

void t.test('a signature of two or three bytes alone is not believed', async (t) => {
  const rest = Buffer.from('0001feff80c3a90000', 'hex');
  const all = [...ACCEPTED_TYPES, 'image/bmp', 'image/jxl', 'audio/vnd.dolby.dd-raw', 'application/gzip', 'video/mp2t'];
  const accepted = [...all, 'application/x-bzip2', 'application/x-msdownload', 'application/x-apple-diskimage'];
  const starts = ['424d', '0b77', '7801', '4d5a', '2521', '1f9d', 'c771', '60ea', '474946', '4949bc', '1f8b08'].concat([
    '425a68',
    '494433',
    '4d502b',
    '435753',
    'ffd8ff',
    'ff0a',
    'fffb',
    'fff1',
    'fffd',
  ]);
  for (const start of starts) {
    const bytes = Buffer.concat([Buffer.from(start, 'hex'), rest]);
    t.equal(await outcome(bytes, undefined, accepted), UNKNOWN, start);
  }
  const packets = Buffer.alloc(188 * 6);
  for (let at = 0; at < packets.length; at += 188) packets[at] = 0x47;
  const bitmap = Buffer.alloc(60);
  bitmap.write('BM');
  bitmap.writeUInt32LE(40, 14);
  const program = Buffer.from('4d5a90000300000004000000ffff0000b800000000000000400000000000000000000000', 'hex');
  const intact: readonly (readonly [type: string, bytes: Buffer, declared?: string])[] = [
    ['image/gif', gif(1)],
    ['image/bmp', bitmap],
    ['image/jxl', Buffer.from('ff0a7f48a0', 'hex'), 'image/jxl'],
    ['audio/vnd.dolby.dd-raw', Buffer.concat([Buffer.from('0b77', 'hex'), rest]), 'audio/vnd.dolby.dd-raw'],
    ['application/gzip', gzipSync('words')],
    ['application/x-bzip2', Buffer.from('425a6839314159265359d8720136', 'hex')],
    ['application/x-msdownload', program],
    ['video/mp2t', packets],
  ];
  for (const [type, bytes, declared] of intact) t.equal(await outcome(bytes, declared, accepted), type);
  packets[188 * 3] = 0;
  t.equal(await outcome(packets, undefined, accepted), UNKNOWN, 'two packets by chance');
});

const csv = Buffer.from('a;b\r\n1;2\r\n');
const code = Buffer.from('#!/bin/sh\nprintf "%s" "a"\n');

cases('a text has the type that is declared, or the accepted type that comes nearest', [
  [
    'a table',
    csv,
    ['text/csv', 'application/csv', 'text/comma-separated-values', 'text/x-csv', 'application/vnd.ms-excel'],
    'text/csv',
  ],
  [
    'source code or a log',
    code,
    ['text/plain', 'text/x-log', 'text/x-python', 'text/x-c', 'text/x-csrc', 'text/javascript', 'text/css'].concat(
      ['application/javascript', 'application/x-javascript', 'application/x-sh', 'application/x-php', 'text/x-diff'],
      ['application/sql', 'application/toml', 'application/x-yaml', 'application/geo+json', 'video/mp2t', 'text'],
      ['', 'text/*', '*/*', 'application/octet-stream', 'application/x-www-form-urlencoded'],
    ),
    'text/plain',
  ],
  [
    'subtitles',
    Buffer.from('WEBVTT\n\n00:01.000 --> 00:02.000\nHi\n'),
    [undefined, 'text/vtt', 'text/*'],
    'text/plain',
  ],
  ['markdown', text(1), ['text/markdown', 'text/x-markdown'], 'text/markdown'],
  ['words that begin like a picture', Buffer.from('BM, GIF or ID3?'), [undefined, 'text/plain'], 'text/plain'],
]);

cases('markup that a browser would run is not accepted under a name of its own, nor without one', [
  ['HTML', Buffer.from('<!doctype html><p>'), [undefined, 'text/html', 'text/*', '*/*'], REFUSED('text/html')],
  ['other text', text(2), ['text/html'], REFUSED('text/html')],
  ['other text', text(2), ['image/svg+xml'], REFUSED('image/svg+xml')],
  ['SVG', Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'), [undefined, '*/*'], REFUSED('image/svg+xml')],
]);

cases('a range of types counts as no declaration if it covers the bytes', [
  ['a PNG', png(1), ['image/*', 'image/*; q=0.8', 'IMAGE/*', 'image', '*/*', 'application/*'], 'image/png'],
  ['a PNG', png(1), ['video/*'], 'type_mismatch: The declared type is video/*, but the bytes are image/png.'],
  ['a PDF', pdf(1), ['application/*', '*/*'], 'application/pdf'],
  ['a text', text(1), ['image/*'], 'type_mismatch: The declared type is image/*, but the bytes are text/plain.'],
  ['a PNG', png(1), ['nonsense', '/', 'image/', '*', 'image/p ng'], 'malformed: The Content-Type is not a media type.'],
]);

/** A zip file whose only entry says which document it is. */
function office(part: string): Buffer {
  const type = `application/vnd.openxmlformats-officedocument.${part}.main+xml`;
  const [name, content] = [Buffer.from('[Content_Types].xml'), Buffer.from(`<Override ContentType="${type}"/>`)];
  const head = Buffer.alloc(30);
  head.write('PK\x03\x04', 'latin1');
  head.writeUInt32LE(crc32(content), 14);
  head.writeUInt32LE(content.length, 18);
  head.writeUInt32LE(content.length, 22);
  head.writeUInt16LE(name.length, 26);
  return Buffer.concat([head, name, content]);
}

cases('a document of the newer Office may be declared as one of the older', [
  [
    'a sheet',
    office('spreadsheetml.sheet'),
    [undefined, 'application/vnd.ms-excel', 'application/zip'],
    'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
  ],
  [
    'a text',
    office('wordprocessingml.document'),
    ['application/msword'],
    'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
  ],
  [
    'a table',
    csv,
    ['application/msword'],
    'type_mismatch: The declared type is application/msword, but the bytes are text/plain.',
  ],
]);

void t.test('the list of accepted types decides whether a text keeps its own type', async (t) => {
  t.equal(await outcome(code, 'text/x-python', ['text/x-python', 'text/plain']), 'text/x-python');
  t.equal(await outcome(code, 'application/x-sh', ['application/x-sh']), 'application/x-sh');
  t.equal(await outcome(csv, 'application/vnd.ms-excel', ['text/plain']), 'text/plain');
  t.equal(await outcome(csv, 'text/x-log', ['text/csv']), REFUSED('text/plain'));
});

void t.test(
  'the size of a picture is found behind a header that is longer than what is kept of the file',
  async (t) => {
    const picture = sharp({ create: { width: 30, height: 20, channels: 3, background: 'teal' } });
    const jpeg = await picture.clone().withMetadata({ orientation: 6 }).jpeg().toBuffer();
    const segment = Buffer.concat([
      Buffer.from('ffe2fffe', 'hex'),
      Buffer.from('ICC_PROFILE\0'),
      Buffer.alloc(65_520, 255),
    ]);
    const profile = Buffer.concat(Array.from({ length: 9 }, () => segment));
    const long = (whole: Buffer, at: number, more: Buffer): Buffer =>
      Buffer.concat([whole.subarray(0, at), more, whole.subarray(at)]);
    t.match(await pictureFacts(await staged(long(jpeg, 2, profile))), { width: 20, height: 30, orientation: 6 });
    const behind = jpeg.readUInt16BE(4) + 4;
    t.match(await pictureFacts(await staged(long(jpeg, behind, profile))), { width: 20, height: 30, orientation: 6 });
    const chunk = Buffer.concat([Buffer.alloc(8), Buffer.alloc(500_000, 1), Buffer.alloc(4)]);
    chunk.writeUInt32BE(500_000);
    chunk.write('iCCP', 4, 'latin1');
    t.match(await pictureFacts(await staged(long(png(1, 30, 20), 33, chunk))), { width: 30, height: 20, frames: 1 });
    const pixels = createHash('shake256', { outputLength: 400 * 400 * 3 })
      .update('noise')
      .digest();
    const webp = await sharp(pixels, { raw: { width: 400, height: 400, channels: 3 } })
      .withMetadata({ orientation: 6 })
      .webp({ lossless: true })
      .toBuffer();
    t.ok(webp.length > HEAD_MAX_BYTES, 'its EXIF block, which comes last, is not kept');
    t.match(await pictureFacts(await staged(webp)), { width: 400, height: 400, orientation: 6 });
  },
);

void t.test(
  'a long text may have a character wherever a read ends, and none that is cut short at its end',
  async (t) => {
    const readBytes = 256 * 1_024;
    for (const character of ['é', 'ก', '€', '🙂']) {
      const bytes = Buffer.from(character);
      for (let before = 0; before <= bytes.length; before += 1) {
        const start = Buffer.alloc(readBytes - before, 'a');
        t.equal(
          await outcome(Buffer.concat([start, bytes, bytes]), undefined),
          'text/plain',
          `${character}, ${before} before`,
        );
        const cut = Buffer.concat([start, bytes, bytes.subarray(0, -1)]);
        t.match(await outcome(cut, 'text/plain'), /not valid UTF-8/, `${character} cut short, ${before} before`);
      }
    }
  },
);
