/**
 * Reads which tracks an ISO base media file holds: MP4, QuickTime, 3GP, fragmented
 * or not (ISO/IEC 14496-12). Media data is skipped, so the `moov` box may be at the
 * end of the file.
 */
import type { Reading, Span } from './reading.js';
import { addTracks, NO_TRACKS, type Tracks } from './tracks.js';

/** Undefined if there is no `moov` box, or if it cannot be read. */
export function* readIsoTracks(): Reading<Tracks> {
  const movie = yield* findBox('moov', { from: 0, to: Number.POSITIVE_INFINITY });
  if (movie === undefined) return undefined;
  let tracks = NO_TRACKS;
  for (let from = movie.from; ; ) {
    const track = yield* findBox('trak', { from, to: movie.to });
    if (track === undefined) return tracks;
    const media = yield* findBox('mdia', track);
    const handler = media && (yield* findBox('hdlr', media));
    if (handler !== undefined) tracks = addTracks(tracks, yield* readHandler(handler));
    from = track.to;
  }
}

/** The content of a box. */
interface Extent {
  readonly from: number;
  readonly to: number;
}

/** Finds the first box of the type in `extent` (4.2). */
function* findBox(type: string, extent: Extent): Reading<Extent> {
  for (let at = extent.from; at + 8 <= extent.to; ) {
    const head = yield { at, length: 16 };
    if (head.length < 8) return undefined;
    const short = head.readUInt32BE(0);
    const long = short === 1;
    if (long && head.length < 16) return undefined;
    // A size of 0: the box ends where the file ends.
    const size = long ? Number(head.readBigUInt64BE(8)) : short === 0 ? Number.POSITIVE_INFINITY : short;
    const headBytes = long ? 16 : 8;
    if (size < headBytes) return undefined;
    const to = Math.min(at + size, extent.to);
    if (head.toString('latin1', 4, 8) === type) return { from: at + headBytes, to };
    at = to;
  }
  return undefined;
}

/** Video, the pictures of a sequence, and those beside a video (ISO/IEC 14496-12 12.1.1, 23008-12 7.3). */
const PICTURE_HANDLERS = new Set(['vide', 'pict', 'auxv']);

/** What the handler of a track says that it holds (8.4.3). */
function* readHandler({ from }: Extent): Generator<Span, Tracks, Buffer> {
  const handler = (yield { at: from + 8, length: 4 }).toString('latin1');
  return { picture: PICTURE_HANDLERS.has(handler), sound: handler === 'soun' };
}
