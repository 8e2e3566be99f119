/**
 * Removes metadata from a JPEG. Kept is what decoders need: JFIF, colour profile,
 * Adobe's transform, and of EXIF the orientation if the picture must be turned.
 *
 * Bytes between markers, which decoders skip, are dropped, and so is all data after
 * the picture, except for a gain map (gain-map.ts), which is stripped as well.
 */
import { EXIF_MARK, orientationOnly, startsWith, turnOf } from './exif.js';
import { type GainMap, isGainMapData, readGainMap, segmentsOfMain, segmentsOfMap } from './gain-map.js';
import { type Picture, type Piece, readPicture, SOI, segment } from './jpeg-pieces.js';

const [APP0, APP1, APP2, APP14, APP15, COM] = [0xe0, 0xe1, 0xe2, 0xee, 0xef, 0xfe] as const;
/** Pictures behind the first one that are looked at for a gain map. */
const OTHERS_MAX = 8;

/** The pieces of the file that are kept, in order; undefined if it is malformed. */
export function keepJpeg(bytes: Buffer): readonly Buffer[] | undefined {
  const main = readPicture(bytes, 0);
  if (main === undefined) return undefined;
  const found = findGainMap(bytes, main.end);
  const { head, rest } = keepPicture(main, found !== undefined);
  if (found === undefined) return [...head, ...rest];
  const kept = keepPicture(found.picture, true);
  const map = [...kept.head, ...segmentsOfMap(found.map), ...kept.rest];
  const added = segmentsOfMain(found.map, sizeOf(map), { before: sizeOf(head), after: sizeOf(rest) });
  return [...head, ...added, ...rest, ...map];
}

function sizeOf(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

/** The first picture behind the main one that says of itself that it is a gain map. */
function findGainMap(bytes: Buffer, from: number): { readonly picture: Picture; readonly map: GainMap } | undefined {
  let at = bytes.indexOf('ffd8ff', from, 'hex');
  for (let others = 0; at >= 0 && others < OTHERS_MAX; others += 1) {
    const picture = readPicture(bytes, at);
    const map = picture && readGainMap(picture.pieces);
    if (picture !== undefined && map !== undefined) return { picture, map };
    at = bytes.indexOf('ffd8ff', picture?.end ?? at + 2, 'hex');
  }
  return undefined;
}

interface Kept {
  /** SOI and the application segments that follow it. More of these can be added behind. */
  readonly head: readonly Buffer[];
  readonly rest: readonly Buffer[];
}

function keepPicture({ pieces }: Picture, withGainMap: boolean): Kept {
  const start = pieces.findIndex(({ code = 0 }) => code !== SOI && !isApplication(code));
  return {
    head: [...keepPieces(pieces.slice(0, start), withGainMap), ...orientationOf(pieces)],
    rest: keepPieces(pieces.slice(start), withGainMap),
  };
}

function keepPieces(pieces: readonly Piece[], withGainMap: boolean): readonly Buffer[] {
  return pieces.filter((piece) => staysInJpeg(piece, withGainMap)).map(({ whole }) => whole);
}

/** Of the application segments, keeps only those needed to decode pixels. */
function staysInJpeg({ code, content }: Piece, withGainMap: boolean): boolean {
  if (code === undefined) return true;
  if (code === APP0) return startsWith(content, Buffer.from('JFIF\0', 'latin1'));
  if (code === APP2) {
    return startsWith(content, Buffer.from('ICC_PROFILE\0', 'latin1')) || (withGainMap && isGainMapData(content));
  }
  if (code === APP14) return startsWith(content, Buffer.from('Adobe', 'latin1'));
  return !isApplication(code) && code !== COM;
}

function isApplication(code: number): boolean {
  return code >= APP0 && code <= APP15;
}

/** A segment with the orientation that the first EXIF segment names, unless the picture is upright. */
function orientationOf(pieces: readonly Piece[]): readonly Buffer[] {
  for (const { code, content } of pieces) {
    if (code !== APP1 || !startsWith(content, EXIF_MARK)) continue;
    const orientation = turnOf(content.subarray(EXIF_MARK.length));
    if (orientation !== undefined) return [segment(APP1, Buffer.concat([EXIF_MARK, orientationOnly(orientation)]))];
  }
  return [];
}
