import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { readIsoTracks } from '../../../src/media/iso-tracks.js';
import { readMatroskaTracks } from '../../../src/media/matroska-tracks.js';
import { readMpegAudio } from '../../../src/media/mpeg-audio.js';
import { readOggTracks } from '../../../src/media/ogg-tracks.js';
import { type Reading, readBytes, readFromFile } from '../../../src/media/reading.js';
import type { Tracks } from '../../../src/media/tracks.js';
import {
  adtsFrames,
  chromeWebm,
  firefoxOgg,
  id3Tag,
  isoBox,
  isoMovie,
  longIsoBox,
  mp3Frames,
  phoneIso,
  safariMp4,
  type Track,
} from '../../kit/recordings.js';

const READERS = { iso: readIsoTracks, matroska: readMatroskaTracks, ogg: readOggTracks };

const RECORDERS: Readonly<Record<string, readonly [keyof typeof READERS, (tracks: readonly Track[]) => Buffer]>> = {
  'a fragmented MP4': ['iso', safariMp4],
  'an MP4 with its list at the end': ['iso', (tracks) => phoneIso('mp42', tracks)],
  'a 3GP': ['iso', (tracks) => phoneIso('3gp4', tracks)],
  'an MP4 with boxes of 64 bits': [
    'iso',
    (tracks) => Buffer.concat([longIsoBox('mdat', Buffer.alloc(50)), isoMovie(tracks)]),
  ],
  'a live WebM': ['matroska', chromeWebm],
  'an Ogg': ['ogg', firefoxOgg],
  'an Ogg with a skeleton': ['ogg', (tracks) => firefoxOgg(tracks, true)],
};

void t.test('the tracks of a container say whether it has a picture', (t) => {
  const cases: readonly (readonly [tracks: readonly Track[], expected: Tracks])[] = [
    [['sound'], { picture: false, sound: true }],
    [['text', 'sound'], { picture: false, sound: true }],
    [['sound', 'picture'], { picture: true, sound: true }],
    [['picture'], { picture: true, sound: false }],
    [['text'], { picture: false, sound: false }],
  ];
  for (const [name, [reader, make]] of Object.entries(RECORDERS)) {
    for (const [tracks, expected] of cases) {
      t.same(readBytes<Tracks>(READERS[reader](), make(tracks)), expected, `${name} with ${tracks.join(' and ')}`);
    }
  }
  t.end();
});

void t.test('a list of tracks that is missing or cut short tells nothing', (t) => {
  t.equal(readBytes(readIsoTracks(), isoBox('mdat', Buffer.alloc(100))), undefined);
  t.equal(readBytes(readIsoTracks(), Buffer.alloc(0)), undefined);
  t.equal(readBytes(readMatroskaTracks(), chromeWebm(['sound']).subarray(0, 90)), undefined);
  t.equal(readBytes(readMatroskaTracks(), Buffer.from('none of that')), undefined);
  t.end();
});

void t.test('the list of tracks is found in a file behind data that is not read', async (t) => {
  const folder = t.testdir({});
  for (const bytes of [phoneIso('isom', ['sound'], 3_000_000), safariMp4(['sound'])]) {
    const path = join(folder, `${bytes.length}`);
    await writeFile(path, bytes);
    const file = { path, sizeBytes: bytes.length, head: bytes.subarray(0, 1_000) };
    t.same(await readFromFile(readIsoTracks(), file), { picture: false, sound: true });
  }
});

void t.test('frames of sound are recognised only if several agree, or if the file ends with them', (t) => {
  const tag = id3Tag(300);
  const oneFrame = mp3Frames(1);
  const cases: readonly (readonly [name: string, bytes: Buffer, expected: string | undefined])[] = [
    ['an MP3', mp3Frames(5), 'audio/mpeg'],
    ['an MP3 whose last frame is cut', mp3Frames(3).subarray(0, -10), 'audio/mpeg'],
    ['one frame', oneFrame, 'audio/mpeg'],
    ['one frame and an ID3v1 tag', Buffer.concat([oneFrame, Buffer.from('TAG'), Buffer.alloc(125)]), 'audio/mpeg'],
    ['a part of one frame', oneFrame.subarray(0, 400), undefined],
    ['a frame and other bytes', Buffer.concat([oneFrame, Buffer.alloc(500)]), undefined],
    ['a tag and frames', Buffer.concat([tag, mp3Frames(4)]), 'audio/mpeg'],
    ['two tags, padding and frames', Buffer.concat([tag, tag, Buffer.alloc(2_000), mp3Frames(4)]), 'audio/mpeg'],
    ['a tag alone', tag, undefined],
    ['AAC', adtsFrames(5), 'audio/aac'],
    ['AAC behind a tag', Buffer.concat([tag, adtsFrames(5)]), 'audio/aac'],
    ['a text in UTF-16', Buffer.from('\ufeffa,b\r\n1,2\r\n', 'utf16le'), undefined],
    ['a long text in UTF-16', Buffer.from(`\ufeff${'Grüße und Küsse. '.repeat(500)}`, 'utf16le'), undefined],
    ['one bits', Buffer.alloc(5_000, 255), undefined],
    ['nothing', Buffer.alloc(0), undefined],
  ];
  for (const [name, bytes, expected] of cases) t.equal(readBytes(readMpegAudio(), bytes), expected, name);
  t.end();
});

void t.test('damaged files are read to an end, without an error', (t) => {
  const readings: readonly (readonly [() => Reading<unknown>, Buffer])[] = [
    ...Object.values(RECORDERS).map(([reader, make]) => [READERS[reader], make(['sound', 'picture'])] as const),
    [readMpegAudio, Buffer.concat([id3Tag(40), mp3Frames(4)])],
    [readMpegAudio, adtsFrames(4)],
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...readings),
      fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 1, 127, 128, 254, 255)), { maxLength: 8 }),
      fc.nat(),
      ([reading, whole], changes, cut) => {
        const bytes = Buffer.from(whole.subarray(0, 1 + (cut % whole.length)));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        readBytes(reading(), bytes);
      },
    ),
    { numRuns: 2_000 },
  );
  t.end();
});

void t.test('a reader that never ends is stopped', async (t) => {
  const endless = function* (): Reading<never> {
    for (;;) yield { at: 0, length: 1 };
  };
  t.equal(readBytes(endless(), Buffer.alloc(1)), undefined);
  t.equal(await readFromFile(endless(), { path: 'absent', sizeBytes: 1, head: Buffer.alloc(1) }), undefined);
});
