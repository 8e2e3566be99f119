/**
 * Reads which streams an Ogg file holds: the first page of each stream, all of which
 * come before any other page (RFC 3533 4, 6), tells the codec.
 */
import type { Reading } from './reading.js';
import { addTracks, NO_TRACKS, type Tracks } from './tracks.js';

const HEADER_BYTES = 27;
const SEGMENTS_MAX = 255;
const FIRST_PAGE = 0x02;
const CODEC_BYTES = 8;

export function* readOggTracks(): Reading<Tracks> {
  let tracks = NO_TRACKS;
  for (let at = 0; ; ) {
    const page = yield { at, length: HEADER_BYTES + SEGMENTS_MAX + CODEC_BYTES };
    if (page.length < HEADER_BYTES || page.toString('latin1', 0, 4) !== 'OggS') return tracks;
    if (((page[5] ?? 0) & FIRST_PAGE) === 0) return tracks;
    const segments = page[26] ?? 0;
    const data = HEADER_BYTES + segments;
    tracks = addTracks(tracks, tracksOf(page.toString('latin1', data, data + CODEC_BYTES)));
    at += data + page.subarray(HEADER_BYTES, data).reduce((sum, bytes) => sum + bytes, 0);
  }
}

/** How the first packet of a codec begins (RFC 5334 appendix A, RFC 7845 5.1). */
const PICTURES = ['\x80theora', '\x80daala', 'BBCD\0', 'OVP80', 'OVP90', '\x01video', 'YUV4MPEG', '\x8bJNG', '\x8aMNG'];
const SOUNDS = ['OpusHead', '\x01vorbis', '\x7fFLAC', 'fLaC', 'Speex  ', 'CELT  ', '\x01audio', 'PCM     '];

function tracksOf(packet: string): Tracks {
  const starts = (codec: string): boolean => packet.startsWith(codec);
  return { picture: PICTURES.some(starts), sound: SOUNDS.some(starts) };
}
