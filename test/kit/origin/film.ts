/** Films as phones write them, with the metadata that a test wants: MP4 with sample tables, and WebM. */
import { isoBox } from '../recordings.js';

export interface FilmTrack {
  /** `vide`, `soun`, `meta`, `text`. */
  readonly handler: string;
  /** Each chunk has one sample. */
  readonly chunks: readonly Buffer[];
  /** The size that the table states for all samples, in place of one for each. */
  readonly uniform?: number;
  /** More boxes in the track. */
  readonly boxes?: readonly Buffer[];
}

export interface FilmOptions {
  /** More boxes in `moov`, and at the top. */
  readonly inMovie?: readonly Buffer[];
  readonly atTop?: readonly Buffer[];
  /** Bytes between the chunks to which nothing refers. */
  readonly between?: Buffer;
  /** Whether the description comes first. */
  readonly fastStart?: boolean;
  /** Whether offsets have 64 bits. */
  readonly long?: boolean;
}

export function u32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

export function filmOf(tracks: readonly FilmTrack[], options: FilmOptions = {}): Buffer {
  const { inMovie = [], atTop = [], between = Buffer.alloc(0), fastStart = false, long = false } = options;
  const type = isoBox('ftyp', 'mp42', u32(0), 'mp42', 'isom');
  const pieces = tracks.flatMap(({ chunks }) => chunks.flatMap((chunk) => [chunk, between]));
  const data = isoBox('mdat', ...pieces);
  const movie = (dataAt: number): Buffer => {
    let at = dataAt + 8;
    const boxes = tracks.map((track, index) => {
      const offsets = track.chunks.map((chunk) => {
        at += chunk.length + between.length;
        return at - chunk.length - between.length;
      });
      return trackBox(track, index + 1, offsets, long);
    });
    return isoBox('moov', isoBox('mvhd', Buffer.alloc(100)), ...boxes, ...inMovie);
  };
  const dataAt = type.length + (fastStart ? movie(0).length : 0);
  return Buffer.concat([type, ...(fastStart ? [movie(dataAt), data] : [data, movie(dataAt)]), ...atTop]);
}

function trackBox(
  { handler, chunks, uniform, boxes = [] }: FilmTrack,
  id: number,
  offsets: readonly number[],
  long: boolean,
): Buffer {
  const sizes =
    uniform === undefined ? u32(0, 0, chunks.length, ...chunks.map(({ length }) => length)) : u32(0, uniform, 64);
  const places = long
    ? isoBox('co64', u32(0, offsets.length, ...offsets.flatMap((offset) => [0, offset])))
    : isoBox('stco', u32(0, offsets.length, ...offsets));
  const tables = [isoBox('stsd', u32(0, 0)), isoBox('stsc', u32(0, 1, 1, 1, 1)), isoBox('stsz', sizes), places];
  const media = isoBox(
    'mdia',
    isoBox('mdhd', Buffer.alloc(24)),
    isoBox('hdlr', u32(0, 0), handler, Buffer.alloc(13)),
    isoBox('minf', isoBox('stbl', ...tables)),
  );
  return isoBox('trak', isoBox('tkhd', u32(0, 0, 0, id), Buffer.alloc(68)), media, ...boxes);
}

/** An element of WebM. Without content it has no size. */
export function webmElement(id: string, ...content: readonly Buffer[]): Buffer {
  const data = Buffer.concat(content);
  const size = u32(data.length);
  size[0] = 0x10;
  return Buffer.concat([
    Buffer.from(id, 'hex'),
    content.length === 0 ? Buffer.from('01ffffffffffffff', 'hex') : size,
    data,
  ]);
}
