/**
 * Removes metadata from ISO base media files (ISO/IEC 14496-12): HEIF and AVIF, MP4,
 * QuickTime and 3GP. Offsets in them count from the beginning of the file, so every
 * byte keeps its place: metadata becomes zeros, and its boxes become free space.
 *
 * Of the media data only what the tracks and the picture items that stay refer to
 * is kept. The data of fragments is kept whole, since only pictures and sound stay
 * in it. A HEIF is turned by properties of its own, which stay; an EXIF item keeps the
 * orientation, so that a program that reads it there sees what it saw before.
 */
import { readOrientation } from '../../../src/media/exif.js';
import type { Reading, Span } from '../../../src/media/reading.js';
import { orientationOnly, withoutMark } from './exif.js';
import { readHeifItems } from './heif-items.js';
import { freed } from './iso-boxes.js';
import { type IsoMovie, readFragment, readMovie } from './iso-movie.js';
import {
  BROKEN,
  type Extent,
  type InPlace,
  indexAfter,
  joined,
  type Overwrite,
  put,
  UNSUPPORTED,
  without,
  zeros,
} from './overwrites.js';

/** Boxes at the top that stay as they are. `wide` reserves the place of a longer head in QuickTime. */
const STAYS = new Set('ftyp styp pdin sidx ssix mfra wide'.split(' '));
/** The flags of a minimised picture for EXIF and XMP (ISO/IEC 23008-12, third edition). */
const MINI_METADATA = 0x0060;
const EXIF_READ_MAX_BYTES = 65_536;

/** What was found so far. */
interface Found {
  /** Boxes that become free. */
  readonly overwrites: Overwrite[];
  /** Where media data may be. */
  readonly data: Extent[];
  /** The media data of pictures and sound. */
  readonly kept: Extent[];
  readonly exif: (readonly Extent[])[];
  /** The data of all other items. */
  readonly others: Extent[];
  movie: IsoMovie | undefined;
  pictures: boolean;
  fragments: boolean;
}

/** Reads a file of `fileBytes`. A description longer than `descriptionMaxBytes` is not read. */
export function* readIso(fileBytes: number, descriptionMaxBytes: number): Reading<InPlace> {
  const found: Found = {
    overwrites: [],
    data: [],
    kept: [],
    exif: [],
    others: [],
    movie: undefined,
    pictures: false,
    fragments: false,
  };
  for (let at = 0; at < fileBytes; ) {
    const head = yield { at, length: 16 };
    const box = readHead(head, at, fileBytes);
    if (box === undefined) {
      // Decoders stop here, so what follows is data without a meaning.
      found.overwrites.push(zeros({ from: at, to: fileBytes }));
      break;
    }
    const isRead = box.type === 'moov' || box.type === 'moof' || box.type === 'meta' || box.type === 'mini';
    if (isRead && box.end - box.dataAt > descriptionMaxBytes) return UNSUPPORTED;
    const content = isRead ? yield { at: box.dataAt, length: box.end - box.dataAt } : Buffer.alloc(0);
    if (!take(box, content, found)) return UNSUPPORTED;
    at = box.end;
  }
  if (found.movie === undefined && !found.pictures) return BROKEN;
  // The samples of a track that is removed are in the data of fragments, among others.
  if (found.fragments && found.movie?.removed === true) return UNSUPPORTED;
  const mediaData = overwriteMediaData(found, fileBytes);
  if (mediaData === undefined) return UNSUPPORTED;
  const overwrites = found.overwrites.concat(mediaData);
  for (const extents of found.exif) addAll(overwrites, yield* keepOrientation(extents));
  return { kind: 'overwritten', overwrites };
}

interface TopBox {
  readonly type: string;
  readonly at: number;
  readonly dataAt: number;
  readonly end: number;
}

/** A box that is longer than the file ends with it. */
function readHead(head: Buffer, at: number, fileBytes: number): TopBox | undefined {
  if (head.length < 8) return undefined;
  const short = head.readUInt32BE(0);
  if (short === 1 && head.length < 16) return undefined;
  const headBytes = short === 1 ? 16 : 8;
  const size = short === 1 ? Number(head.readBigUInt64BE(8)) : short === 0 ? fileBytes - at : short;
  if (size < headBytes) return undefined;
  const type = head.toString('latin1', 4, 8);
  return { type, at, dataAt: at + headBytes, end: Math.min(at + size, fileBytes) };
}

/** Adds what a box at the top holds; false if it cannot be read. */
function take(box: TopBox, content: Buffer, found: Found): boolean {
  switch (box.type) {
    case 'mdat':
      found.data.push({ from: box.dataAt, to: box.end });
      return true;
    case 'moov':
      return takeMovie(readMovie(content, box.dataAt), found);
    case 'moof':
      found.fragments = true;
      return takeAll(readFragment(content, box.dataAt), found);
    case 'meta':
      return isPictureMeta(content) ? takeItems(content, box.dataAt, found) : takeAll(freed(box), found);
    case 'mini':
      found.pictures = true;
      return content.length >= 2 && (content.readUInt16BE(0) & MINI_METADATA) === 0;
    default:
      return STAYS.has(box.type) || takeAll(freed(box), found);
  }
}

function takeAll(overwrites: readonly Overwrite[] | undefined, found: Found): boolean {
  addAll(found.overwrites, overwrites ?? []);
  return overwrites !== undefined;
}

/** There may be too many for the arguments of one call of `push`. */
function addAll<T>(list: T[], added: readonly T[]): void {
  for (const each of added) list.push(each);
}

function takeMovie(movie: IsoMovie | undefined, found: Found): boolean {
  if (movie === undefined || found.movie !== undefined) return false;
  found.movie = movie;
  addAll(found.kept, movie.samples);
  return takeAll(movie.overwrites, found);
}

/** Whether a `meta` box describes pictures; it may also hold the tags of a film (8.11.1). */
function isPictureMeta(content: Buffer): boolean {
  return content.toString('latin1', 8, 12) === 'hdlr' && content.toString('latin1', 20, 24) === 'pict';
}

function takeItems(content: Buffer, base: number, found: Found): boolean {
  const items = readHeifItems(content.subarray(4), base + 4);
  if (items === undefined || found.pictures) return false;
  found.pictures = true;
  addAll(found.data, items.data);
  addAll(found.kept, items.pictures);
  addAll(found.exif, items.exif);
  addAll(found.others, items.others);
  return takeAll(items.overwrites, found);
}

/** An EXIF item begins with the offset of its TIFF structure (ISO/IEC 23008-12 A.2.1). */
function* keepOrientation(extents: readonly Extent[]): Generator<Span, readonly Overwrite[], Buffer> {
  const [first] = extents;
  if (first === undefined) return [];
  const exif = yield { at: first.from, length: Math.min(first.to - first.from, EXIF_READ_MAX_BYTES) };
  const start = exif.length < 4 ? 0 : 4 + exif.readUInt32BE(0);
  const orientation = readOrientation(exif.subarray(start)) ?? readOrientation(withoutMark(exif.subarray(4))) ?? 1;
  const kept = Buffer.concat([Buffer.alloc(4), orientationOnly(orientation)]);
  if (exif.length < kept.length) return extents.map(zeros);
  return [
    put(first.from, kept),
    zeros({ from: first.from + kept.length, to: first.to }),
    ...extents.slice(1).map(zeros),
  ];
}

/**
 * Overwrites the media data that nothing refers to. Undefined if data or metadata is in a place that is not known here,
 * or if data that stays is metadata as well.
 */
function overwriteMediaData(found: Found, fileBytes: number): readonly Overwrite[] | undefined {
  const data = joined(found.data);
  const kept: Extent[] = [];
  for (const each of found.kept) {
    if (each.to <= each.from || each.from >= fileBytes) continue;
    const around = data[indexAfter(data, each.from) - 1];
    if (around === undefined || around.to <= each.from) return undefined;
    kept.push({ from: each.from, to: Math.min(each.to, around.to) });
  }
  const stays = joined(kept);
  const exif = joined(found.exif.flat());
  const metadata = joined(
    [...exif, ...found.others]
      .map(({ from, to }) => ({ from, to: Math.min(to, fileBytes) }))
      .filter(({ from, to }) => from < to),
  );
  const isKeptOrElsewhere = (each: Extent): boolean =>
    bytesIn(without(each, stays)) < each.to - each.from || bytesIn(without(each, data)) > 0;
  if (metadata.some(isKeptOrElsewhere)) return undefined;
  if (found.fragments) return joined(found.others).map(zeros);
  const all = joined([...stays, ...exif]);
  return data.flatMap((each) => without(each, all)).map(zeros);
}

function bytesIn(extents: readonly Extent[]): number {
  return extents.reduce((sum, { from, to }) => sum + to - from, 0);
}
