/**
 * Reads which tracks a Matroska or WebM file holds (RFC 8794, RFC 9559). Also reads
 * live recordings, whose segment has no size.
 */
import { type ElementExtent, readElement } from './ebml.js';
import type { Reading, Span } from './reading.js';
import { addTracks, NO_TRACKS, type Tracks } from './tracks.js';

const EBML = 0x1a45dfa3;
const SEGMENT = 0x18538067;
const TRACKS = 0x1654ae6b;
const TRACK_ENTRY = 0xae;
const TRACK_TYPE = 0x83;

/** Undefined if the list of tracks is not found before an element without a size. */
export function* readMatroskaTracks(): Reading<Tracks> {
  const file = { from: 0, to: Number.POSITIVE_INFINITY };
  if ((yield* readElement(0))?.id !== EBML) return undefined;
  const segment = yield* findElement(SEGMENT, file);
  const list = segment && (yield* findElement(TRACKS, segment));
  if (list === undefined) return undefined;
  let tracks = NO_TRACKS;
  for (let from = list.from; ; ) {
    const track = yield* findElement(TRACK_ENTRY, { from, to: list.to });
    if (track === undefined) return tracks;
    const type = yield* findElement(TRACK_TYPE, track);
    if (type !== undefined) tracks = addTracks(tracks, yield* readType(type));
    from = track.to;
  }
}

/** Finds the first element with the id in `extent`. */
function* findElement(id: number, extent: ElementExtent): Reading<ElementExtent> {
  for (let at = extent.from; at < extent.to; ) {
    const element = yield* readElement(at);
    if (element === undefined) return undefined;
    const to = Math.min(element.to, extent.to);
    if (element.id === id) return { from: element.from, to };
    at = to;
  }
  return undefined;
}

/** Video is 1, audio 2, and 3 is both (RFC 9559 5.1.4.1.3). */
function* readType({ from }: ElementExtent): Generator<Span, Tracks, Buffer> {
  const [type] = yield { at: from, length: 1 };
  return { picture: type === 1 || type === 3, sound: type === 2 || type === 3 };
}
