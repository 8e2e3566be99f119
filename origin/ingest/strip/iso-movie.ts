/**
 * The description of a film or of sound (`moov`, ISO/IEC 14496-12 8.2): which of its
 * boxes and tracks stay, and where the samples of the tracks that stay are.
 *
 * Kept are the boxes that are needed to play pictures and sound. Every other box is
 * freed, among them user data and metadata in the forms of QuickTime, 3GPP and MP4,
 * and so is every track of another kind: phones and cameras write places and
 * movements into tracks of metadata and of subtitles.
 */
import { boxesIn, boxOf, freed, type IsoBox } from './iso-boxes.js';
import { type Chunks, extentsUpToNext, readChunks } from './iso-samples.js';
import type { Extent, Overwrite } from './overwrites.js';

export interface IsoMovie {
  readonly overwrites: readonly Overwrite[];
  /** The samples of the tracks that stay. */
  readonly samples: readonly Extent[];
  /** Whether a track was removed. */
  readonly removed: boolean;
}

/** By box, the boxes in it that stay. A box that is not named here stays as it is. */
const STAYS: ReadonlyMap<string, ReadonlySet<string>> = new Map(
  Object.entries({
    moov: 'mvhd trak mvex iods',
    trak: 'tkhd edts mdia tref tapt clip matt load',
    mdia: 'mdhd hdlr minf elng',
    minf: 'vmhd smhd nmhd gmhd hdlr dinf stbl',
    stbl: 'stsd stts ctts cslg stss stps stsh sdtp stsc stsz stz2 stco co64 sgpd sbgp subs saiz saio padb stdp',
    moof: 'mfhd traf',
    traf: 'tfhd tfdt trun sdtp sbgp sgpd subs saiz saio senc',
  }).map(([type, stays]) => [type, new Set(stays.split(' '))] as const),
);
/** Video, sound, the pictures of a sequence, and those beside a video (12.1.1, 12.2.1, 23008-12 7.3). */
const HANDLERS = new Set(['vide', 'soun', 'pict', 'auxv']);

/** Undefined if it is malformed, or has no track that stays. */
export function readMovie(moov: Buffer, base: number): IsoMovie | undefined {
  const boxes = boxesIn(moov, base);
  if (boxes === undefined || boxOf(boxes, 'cmov') !== undefined) return undefined;
  const tracks: Track[] = [];
  for (const box of boxes.filter(({ type }) => type === 'trak')) {
    const track = readTrack(box);
    if (track === undefined) return undefined;
    tracks.push(track);
  }
  const staying = tracks.filter(({ stays }) => stays);
  const gone = tracks.filter(({ stays }) => !stays);
  const goneIds = new Set(gone.map(({ id }) => id));
  if (staying.length === 0) return undefined;
  const offsets = tracks.flatMap(({ chunks }) => chunks.offsets);
  const others = freeOthers(
    'moov',
    boxes.filter(({ type }) => type !== 'trak'),
  );
  const kept = staying.map(({ box }) => freeOthers('trak', boxesIn(box.data, box.dataAt)));
  if (others === undefined || kept.includes(undefined)) return undefined;
  return {
    overwrites: [
      ...others,
      ...kept.flatMap((each) => each ?? []),
      ...gone.flatMap(({ box }) => freed(box)),
      ...staying.flatMap(({ references }) => references.filter((each) => refersToAny(each, goneIds)).flatMap(freed)),
    ],
    samples: staying.flatMap(({ chunks }) => chunks.extents ?? extentsUpToNext(chunks.offsets, offsets)),
    removed: gone.length > 0,
  };
}

/** What is overwritten in a fragment (`moof`, 8.8.4); undefined if it is malformed. */
export function readFragment(moof: Buffer, base: number): readonly Overwrite[] | undefined {
  return freeOthers('moof', boxesIn(moof, base));
}

/** Frees the boxes that do not stay, at every level below `parent`. */
function freeOthers(parent: string, boxes: readonly IsoBox[] | undefined): readonly Overwrite[] | undefined {
  const stays = STAYS.get(parent);
  if (boxes === undefined || stays === undefined) return boxes && [];
  const overwrites: Overwrite[] = [];
  for (const box of boxes) {
    const inner = !stays.has(box.type)
      ? freed(box)
      : STAYS.has(box.type)
        ? freeOthers(box.type, boxesIn(box.data, box.dataAt))
        : [];
    if (inner === undefined) return undefined;
    for (const each of inner) overwrites.push(each);
  }
  return overwrites;
}

interface Track {
  readonly box: IsoBox;
  readonly id: number;
  readonly stays: boolean;
  readonly chunks: Chunks;
  /** The boxes in `tref`, which name other tracks (8.3.3). */
  readonly references: readonly IsoBox[];
}

function readTrack(box: IsoBox): Track | undefined {
  const boxes = boxesIn(box.data, box.dataAt);
  const header = boxes && boxOf(boxes, 'tkhd')?.data;
  const media = boxes && contentOf(boxOf(boxes, 'mdia'));
  const handler = media && boxOf(media, 'hdlr')?.data.toString('latin1', 8, 12);
  const information = media && contentOf(boxOf(media, 'minf'));
  const tables = information && contentOf(boxOf(information, 'stbl'));
  const chunks = tables && readChunks(tables);
  const idAt = header?.[0] === 1 ? 20 : 12;
  if (boxes === undefined || header === undefined || header.length < idAt + 4 || chunks === undefined) return undefined;
  return {
    box,
    id: header.readUInt32BE(idAt),
    stays: HANDLERS.has(handler ?? ''),
    chunks,
    references: contentOf(boxOf(boxes, 'tref')) ?? [],
  };
}

function contentOf(box: IsoBox | undefined): readonly IsoBox[] | undefined {
  return box && boxesIn(box.data, box.dataAt);
}

function refersToAny({ data }: IsoBox, ids: ReadonlySet<number>): boolean {
  for (let at = 0; at + 4 <= data.length; at += 4) if (ids.has(data.readUInt32BE(at))) return true;
  return false;
}
