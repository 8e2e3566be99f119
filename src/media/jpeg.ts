/**
 * The markers of a JPEG file (ITU-T T.81 B.1.1), read as libjpeg reads them: other
 * bytes before a marker are skipped, and any number of fill bytes may precede its
 * code.
 */
import { readOrientation } from './exif.js';
import type { Reading } from './reading.js';

export interface Marker {
  readonly code: number;
  /** The offset of its first byte, which is 0xff. Fill bytes before the code belong to the marker. */
  readonly start: number;
  /** The offset after its code. */
  readonly end: number;
}

/** The first marker at or after `from`; undefined if the bytes end before one. */
export function nextMarker(bytes: Buffer, from: number): Marker | undefined {
  for (let start = bytes.indexOf(0xff, from); start >= 0; ) {
    let at = start + 1;
    while (bytes[at] === 0xff) at += 1;
    const code = bytes[at];
    if (code === undefined) return undefined;
    if (code !== 0) return { code, start, end: at + 1 };
    // 0xff00 is a data byte and no marker (B.1.1.5).
    start = bytes.indexOf(0xff, at + 1);
  }
  return undefined;
}

/** Whether a length and data follow the marker. TEM, RSTn, SOI and EOI stand alone (Table B.1). */
export function hasSegment(code: number): boolean {
  return code !== 0x01 && (code < 0xd0 || code > 0xd9);
}

/** Where the segment after a marker ends. libjpeg takes a length of less than two bytes as two. */
export function segmentEnd(marker: Marker, lengthField: number): number {
  return marker.end + Math.max(2, lengthField);
}

export interface JpegHeader {
  /** As stored, before orientation is applied. */
  readonly width: number;
  readonly height: number;
  /** Of the first EXIF segment before the frame header; 1 if there is none. */
  readonly orientation: number;
}

const EOI = 0xd9;
const SOS = 0xda;
const APP1 = 0xe1;
const EXIF = 'Exif\0\0';
/** Holds a marker and all that is needed of a frame header. */
const WINDOW_BYTES = 256;

/** Reads up to the first frame header (B.2.2). Segments are skipped without being read, however large they are. */
export function* readJpeg(): Reading<JpegHeader> {
  let orientation: number | undefined;
  for (let at = 2; ; ) {
    const window = yield { at, length: WINDOW_BYTES };
    const marker = nextMarker(window, 0);
    if (marker === undefined) {
      if (window.length < WINDOW_BYTES) return undefined;
      // The last byte may be the first one of a marker.
      at += window.length - 1;
      continue;
    }
    if (marker.code === EOI || marker.code === SOS) return undefined;
    if (!hasSegment(marker.code)) {
      at += marker.end;
      continue;
    }
    if (marker.end + 7 > window.length) {
      if (marker.start === 0) return undefined;
      at += marker.start;
      continue;
    }
    const length = window.readUInt16BE(marker.end);
    if (isFrameHeader(marker.code)) {
      const [height, width] = [window.readUInt16BE(marker.end + 3), window.readUInt16BE(marker.end + 5)];
      return { width, height, orientation: orientation ?? 1 };
    }
    if (marker.code === APP1 && orientation === undefined) {
      const content = yield { at: at + marker.end + 2, length: Math.max(0, length - 2) };
      if (content.toString('latin1', 0, 6) === EXIF) orientation = readOrientation(content.subarray(6));
    }
    at += segmentEnd(marker, length);
  }
}

/** The number of scans (B.2.3), counted up to one more than `max`: a decoder goes through the whole picture for each. */
export function countScans(bytes: Buffer, max: number): number {
  let scans = 0;
  for (let at = 2; scans <= max; ) {
    const marker = nextMarker(bytes, at);
    if (marker === undefined || marker.code === EOI) break;
    if (marker.code === SOS) scans += 1;
    const hasLength = hasSegment(marker.code) && marker.end + 2 <= bytes.length;
    at = hasLength ? segmentEnd(marker, bytes.readUInt16BE(marker.end)) : marker.end;
  }
  return scans;
}

/** SOF0 to SOF15. DHT, JPG and DAC lie in the same range and are no frame headers. */
function isFrameHeader(code: number): boolean {
  return code >= 0xc0 && code <= 0xcf && code !== 0xc4 && code !== 0xc8 && code !== 0xcc;
}
