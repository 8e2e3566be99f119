/**
 * The type that the first bytes of a file show. The package file-type knows the
 * signatures; only this file imports it.
 *
 * A signature of fewer than four bytes also occurs by chance, so the package is
 * believed about such types only with a second proof: more of the format's
 * structure, or else that the client declares this type. Of containers that may hold
 * films, the tracks are read, because without a picture they are audio.
 */
import { fileTypeFromBuffer, fileTypeFromFile } from 'file-type';
import { heifTypeOf } from '../../src/media/heif.js';
import { readIsoTracks } from '../../src/media/iso-tracks.js';
import { nextMarker, readJpeg } from '../../src/media/jpeg.js';
import { readMatroskaTracks } from '../../src/media/matroska-tracks.js';
import { readMpegAudio } from '../../src/media/mpeg-audio.js';
import { readOggTracks } from '../../src/media/ogg-tracks.js';
import { type ReadableFile, type Reading, readFromFile } from '../../src/media/reading.js';
import type { Tracks } from '../../src/media/tracks.js';
import { canonicalType, essenceOf } from '../../src/media/types.js';

/** `declared`: the type that the client declares, in its canonical name. Undefined if the bytes show no type. */
export async function readSignature(file: ReadableFile, declared: string | undefined): Promise<string | undefined> {
  const found = await proven(file, await libraryVerdict(file), declared);
  return found === undefined ? await missedByLibrary(file) : await narrowed(file, found, declared);
}

async function libraryVerdict(file: ReadableFile): Promise<string | undefined> {
  // The package takes every brand that it does not know for a video.
  const picture = heifTypeOf(file.head);
  if (picture !== undefined) return picture;
  try {
    const whole = file.head.length === file.sizeBytes;
    const found = await (whole ? fileTypeFromBuffer(file.head) : fileTypeFromFile(file.path));
    const essence = found === undefined ? undefined : essenceOf(found.mime);
    return essence === undefined ? undefined : canonicalType(essence);
  } catch {
    // The package fails on some malformed files. Their type is unknown.
    return undefined;
  }
}

/** Whether the bytes are of the type; `declared`: whether the client says so. */
type Proof = (file: ReadableFile, declared: boolean) => boolean | Promise<boolean>;

const byDeclaration: Proof = (_file, declared) => declared;

/** The types that the package may tell by fewer than four bytes. */
const PROOFS: Readonly<Record<string, Proof>> = {
  'image/jpeg': ({ head }) => isJpegMarker(head),
  'image/gif': ({ head }) => /^GIF8[79]a/.test(startOf(head)),
  'image/bmp': ({ head }) => isBitmap(head),
  'image/jxl': ({ head }, declared) => startOf(head).startsWith('\0\0\0\x0cJXL ') || declared,
  'image/vnd.ms-photo': byDeclaration,
  'audio/mpeg': async (file) => (await readFromFile(readMpegAudio(), file)) === 'audio/mpeg',
  'audio/aac': async (file) => (await readFromFile(readMpegAudio(), file)) === 'audio/aac',
  'audio/x-musepack': ({ head }, declared) => startOf(head).startsWith('MPCK') || declared,
  'audio/vnd.dolby.dd-raw': byDeclaration,
  'video/mp2t': ({ head }) => isTransportStream(head),
  'application/gzip': ({ head }) => isGzip(head),
  'application/x-bzip2': ({ head }) => isBzip2(head),
  'application/x-cpio': ({ head }, declared) => startOf(head).startsWith('070707') || declared,
  'application/postscript': ({ head }) => startOf(head).startsWith('%!PS'),
  'application/x-msdownload': ({ head }) => isExecutable(head),
  'application/x-apple-diskimage': byDeclaration,
  'application/x-compress': byDeclaration,
  'application/x-arj': byDeclaration,
  'application/x-shockwave-flash': byDeclaration,
};

async function proven(
  file: ReadableFile,
  type: string | undefined,
  declared: string | undefined,
): Promise<string | undefined> {
  const proof = type === undefined ? undefined : PROOFS[type];
  return proof === undefined || (await proof(file, type === declared)) ? type : undefined;
}

function startOf(head: Buffer): string {
  return head.toString('latin1', 0, 16);
}

/** The fourth byte is the code of a marker (ITU-T T.81 Table B.1), fill bytes aside. */
function isJpegMarker(head: Buffer): boolean {
  const marker = nextMarker(head, 2);
  return marker?.start === 2 && marker.code >= 0xc0;
}

/** The sizes of the headers that follow the file header of a BMP. */
const BITMAP_HEADERS = new Set([12, 16, 40, 52, 56, 64, 108, 124]);

function isBitmap(head: Buffer): boolean {
  return head.length >= 26 && BITMAP_HEADERS.has(head.readUInt32LE(14)) && head.readUInt32LE(6) === 0;
}

/** No reserved flag is set, and the other fields of the header have one of their values (RFC 1952 2.3.1). */
function isGzip(head: Buffer): boolean {
  const [, , , flags = 0xff, , , , , effort = 0xff, system = 0xfe] = head;
  return (flags & 0xe0) === 0 && [0, 2, 4].includes(effort) && (system <= 13 || system === 255);
}

/** A block, or the end of an empty file, begins with six bytes of its own. */
const BZIP2_BLOCKS = ['314159265359', '177245385090'];

function isBzip2(head: Buffer): boolean {
  return BZIP2_BLOCKS.includes(head.toString('hex', 4, 10));
}

/** Packets of 188 bytes, or of 192 with a time stamp, all begin alike (ISO/IEC 13818-1 2.4.3.2). */
function isTransportStream(head: Buffer): boolean {
  return [
    { first: 0, every: 188 },
    { first: 4, every: 192 },
  ].some(({ first, every }) => [0, 1, 2, 3, 4].every((packet) => head[first + packet * every] === 0x47));
}

/** The header of a DOS program, with which Windows programs begin, too. */
function isExecutable(head: Buffer): boolean {
  return (
    head.length >= 28 &&
    head.readUInt16LE(2) < 512 &&
    head.readUInt16LE(4) > 0 &&
    head.readUInt16LE(8) >= 2 &&
    head.readUInt16LE(24) >= 28
  );
}

/** Formats that the package does not know, or not in every form. */
async function missedByLibrary(file: ReadableFile): Promise<string | undefined> {
  const start = startOf(file.head);
  if (start.startsWith('caff\0\x01\0\0')) return 'audio/x-caf';
  // Other bytes before the first marker: decoders skip them.
  if (start.startsWith('\xff\xd8')) return (await readFromFile(readJpeg(), file)) && 'image/jpeg';
  // Padding between the tag and the first frame.
  return start.startsWith('ID3') ? await readFromFile(readMpegAudio(), file) : undefined;
}

interface Container {
  readonly read: () => Reading<Tracks>;
  readonly video: string;
  readonly audio: string;
}

const OGG: Container = { read: readOggTracks, video: 'video/ogg', audio: 'audio/ogg' };

const CONTAINERS: Readonly<Record<string, Container>> = {
  'video/mp4': { read: readIsoTracks, video: 'video/mp4', audio: 'audio/mp4' },
  // QuickTime has no type for sound alone. What plays MP4 plays it.
  'video/quicktime': { read: readIsoTracks, video: 'video/quicktime', audio: 'audio/mp4' },
  'video/3gpp': { read: readIsoTracks, video: 'video/3gpp', audio: 'audio/3gpp' },
  'video/3gpp2': { read: readIsoTracks, video: 'video/3gpp2', audio: 'audio/3gpp2' },
  'video/webm': { read: readMatroskaTracks, video: 'video/webm', audio: 'audio/webm' },
  'video/matroska': { read: readMatroskaTracks, video: 'video/matroska', audio: 'audio/matroska' },
  'application/ogg': OGG,
  'audio/ogg': OGG,
  'video/ogg': OGG,
};

/** The type of a container with its tracks in view. If they cannot be read, the client decides between the two. */
async function narrowed(file: ReadableFile, type: string, declared: string | undefined): Promise<string> {
  const container = CONTAINERS[type];
  if (container === undefined) return type;
  const tracks = await readFromFile(container.read(), file);
  if (tracks?.picture === true) return container.video;
  if (tracks?.sound === true) return container.audio;
  return declared === container.audio ? declared : type;
}
