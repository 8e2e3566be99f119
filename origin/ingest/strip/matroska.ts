/**
 * Removes metadata from Matroska and WebM (RFC 8794, RFC 9559). Positions in them
 * count from the beginning of the segment, so every byte keeps its place: tags,
 * attachments, chapters and titles become Void elements of the same size.
 */
import { type Element, readElement } from '../../../src/media/ebml.js';
import type { Reading, Span } from '../../../src/media/reading.js';
import { BROKEN, type Extent, type InPlace, type Overwrite, put, UNSUPPORTED, zeros } from './overwrites.js';

const [EBML, SEGMENT, VOID] = [0x1a45dfa3, 0x18538067, 0xec] as const;
const [SEEK_HEAD, INFO, TRACKS, CUES, CLUSTER] = [0x114d9b74, 0x1549a966, 0x1654ae6b, 0x1c53bb6b, 0x1f43b675] as const;
const [SEEK, SEEK_ID, TRACK_ENTRY, TRACK_TYPE] = [0x4dbb, 0x53ab, 0xae, 0x83] as const;
const STAYS: ReadonlySet<number> = new Set([SEEK_HEAD, INFO, TRACKS, CUES, CLUSTER]);
/** Times, and the names of programs. Checksums would be wrong after a change. */
const STAYS_IN_INFO = new Set([0x2ad7b1, 0x4489, 0x4461, 0x4d80, 0x5741, 0x73a4]);
/** What follows the head of a cluster without a size: the time, positions and blocks. */
const STAYS_IN_CLUSTER = new Set([0xe7, 0xa3, 0xa0, 0xa7, 0xab, 0x5854]);
const PICTURE_OR_SOUND = [1, 2, 3];

/** Reads a file of `fileBytes`. */
export function* readMatroska(fileBytes: number): Reading<InPlace> {
  const head = yield* readElement(0);
  const segment = head?.id === EBML ? yield* readElement(head.to) : undefined;
  if (segment?.id !== SEGMENT) return BROKEN;
  const overwrites: Overwrite[] = [];
  const end = Math.min(segment.to, fileBytes);
  let [hasTracks, isLive] = [false, false];
  let at = segment.from;
  while (at < end) {
    const element = yield* readElement(at);
    if (element === undefined) break;
    const { id, from } = element;
    const to = Math.min(element.to, end);
    const hasSize = element.to !== Number.POSITIVE_INFINITY;
    if (!hasSize && id !== CLUSTER) return UNSUPPORTED;
    isLive ||= !hasSize;
    if (id === TRACKS && !(yield* hasPicturesAndSoundAlone({ from, to }))) return UNSUPPORTED;
    hasTracks ||= id === TRACKS;
    if (!isLive || !STAYS_IN_CLUSTER.has(id)) {
      const change = yield* changeOf(id, { from, to }, at);
      if (change === undefined) return UNSUPPORTED;
      for (const each of change) overwrites.push(each);
    }
    at = hasSize ? to : from;
  }
  // Players stop at what is no element, and at the end of the segment.
  return hasTracks ? { kind: 'overwritten', overwrites: [...overwrites, zeros({ from: at, to: fileBytes })] } : BROKEN;
}

/** How an element of the segment is overwritten; undefined if it is malformed. */
function* changeOf(id: number, content: Extent, at: number): Reading<readonly Overwrite[]> {
  if (id === VOID) return [zeros(content)];
  if (!STAYS.has(id)) return voided({ from: at, to: content.to });
  if (id !== INFO && id !== SEEK_HEAD) return [];
  const children = yield* childrenOf(content);
  if (children === undefined) return undefined;
  const overwrites: Overwrite[] = [];
  for (const child of children) {
    const stays = id === INFO ? STAYS_IN_INFO.has(child.id) : child.id === SEEK && (yield* pointsToKept(child));
    if (!stays) overwrites.push(...voided({ from: child.at, to: child.to }));
  }
  return overwrites;
}

interface Child extends Element {
  /** The offset of its head. */
  readonly at: number;
}

/** Undefined if an element does not end within its parent. */
function* childrenOf({ from, to }: Extent): Reading<readonly Child[]> {
  const children: Child[] = [];
  for (let at = from; at < to; ) {
    const element = yield* readElement(at);
    if (element === undefined || element.to > to) return undefined;
    children.push({ ...element, at });
    at = element.to;
  }
  return children;
}

/** Subtitles may hold anything, places among others. */
function* hasPicturesAndSoundAlone(content: Extent): Generator<Span, boolean, Buffer> {
  const children = yield* childrenOf(content);
  for (const track of children?.filter(({ id }) => id === TRACK_ENTRY) ?? []) {
    const type = (yield* childrenOf(track))?.find(({ id }) => id === TRACK_TYPE);
    const [value = 0] = type === undefined ? [] : yield { at: type.from, length: 1 };
    if (!PICTURE_OR_SOUND.includes(value)) return false;
  }
  return children !== undefined;
}

/** Whether an entry of the table of positions names an element that stays. */
function* pointsToKept(seek: Extent): Generator<Span, boolean, Buffer> {
  const id = (yield* childrenOf(seek))?.find((child) => child.id === SEEK_ID);
  if (id === undefined || id.to - id.from !== 4) return false;
  const value = yield { at: id.from, length: 4 };
  return value.length === 4 && STAYS.has(value.readUInt32BE(0));
}

/** A Void element in the place of another one (RFC 8794 11.3.2). No element is shorter than two bytes. */
function voided({ from, to }: Extent): readonly Overwrite[] {
  const length = to - from;
  const head = Buffer.alloc(length < 9 ? 2 : 9);
  head.set([VOID, length < 9 ? 0x80 | (length - 2) : 1]);
  if (length >= 9) head.writeUIntBE(length - 9, 3, 6);
  return [put(from, head), zeros({ from: from + head.length, to })];
}
