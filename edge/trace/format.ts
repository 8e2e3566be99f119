/**
 * The stored form of a trace: a line of JSON, then records of a fixed size. The
 * line has the version and the closed lists that records name by number, so that
 * a file is read as it was written. A file that was cut off ends with its last
 * whole record.
 *
 * A record has facts of a response, which are the same for all its requests, and
 * those of one request. Numbers are in little-endian order, lifetimes in seconds.
 */
import { KNOWN_TYPE_NAMES } from '../../src/media/types.js';
import { PATH_KINDS, type PathKind } from '../key.js';
import { OUTCOMES, type Outcome } from '../request.js';
import type { StatedLifetimes } from '../rfc9111/freshness.js';

export const TRACE_VERSION = 1;
export const RECORD_BYTES = 52;
/** Enough for the first line. */
export const HEADER_MAX_BYTES = 16_384;

/** What a record is about. `emptied`: everything was dropped. `warmed`: a body was stored for which nobody had asked yet. */
export const EVENTS = ['request', 'dropped', 'emptied', 'warmed'] as const;
export type TraceEvent = (typeof EVENTS)[number];

/** Types that a record can name beside those of media; of all others it has the part before the slash. */
const OTHER_TYPES = [
  'application/octet-stream',
  'application/javascript',
  'application/problem+json',
  'application/wasm',
  'application/xml',
  'font/woff2',
  'image/svg+xml',
  'text/css',
  'text/html',
  'text/javascript',
  'text/xml',
  'application/other',
  'audio/other',
  'font/other',
  'image/other',
  'text/other',
  'video/other',
  'other/other',
];
export const TRACED_TYPES: readonly string[] = [...new Set([...KNOWN_TYPE_NAMES, ...OTHER_TYPES])];

export interface TraceHeader {
  /** Says which key the hashes are made with, and not the key. */
  readonly keyId: string;
  readonly sampleShare: number;
  readonly lists: TraceLists;
}

export interface TraceLists {
  readonly events: readonly string[];
  readonly outcomes: readonly string[];
  readonly paths: readonly string[];
  readonly types: readonly string[];
}

export const LISTS: TraceLists = { events: EVENTS, outcomes: OUTCOMES, paths: PATH_KINDS, types: TRACED_TYPES };

export function encodeHeader({ keyId, sampleShare, lists }: TraceHeader): Buffer {
  const { events, outcomes, paths, types } = lists;
  const line = { trace: TRACE_VERSION, key: keyId, sampled: sampleShare, record: RECORD_BYTES };
  return Buffer.from(`${JSON.stringify({ ...line, events, outcomes, paths, types })}\n`);
}

export type ReadHeader =
  | { readonly kind: 'read'; readonly header: TraceHeader; readonly bytes: number }
  | { readonly kind: 'unreadable'; readonly why: string };

/** `start`: the first bytes of the file. */
export function decodeHeader(start: Buffer): ReadHeader {
  const end = start.indexOf('\n');
  if (end < 0) return { kind: 'unreadable', why: 'it is not a trace' };
  let given: Readonly<Record<string, unknown>>;
  try {
    given = Object(JSON.parse(start.toString('utf8', 0, end))) as typeof given;
  } catch {
    return { kind: 'unreadable', why: 'it is not a trace' };
  }
  const { trace, key, sampled, record, events, outcomes, paths, types } = given;
  if (typeof trace !== 'number') return { kind: 'unreadable', why: 'it is not a trace' };
  if (trace !== TRACE_VERSION || record !== RECORD_BYTES) {
    return { kind: 'unreadable', why: `it is a trace of version ${trace}, and this release reads ${TRACE_VERSION}` };
  }
  const lists = { events, outcomes, paths, types };
  const share = typeof sampled === 'number' && sampled > 0 && sampled <= 1 ? sampled : undefined;
  if (typeof key !== 'string' || share === undefined || !Object.values(lists).every(isTexts)) {
    return { kind: 'unreadable', why: 'its first line is damaged' };
  }
  return { kind: 'read', header: { keyId: key, sampleShare: share, lists: lists as TraceLists }, bytes: end + 1 };
}

function isTexts(list: unknown): boolean {
  return Array.isArray(list) && list.length <= 256 && list.every((each) => typeof each === 'string');
}

/** What a record has of a response. */
export interface TracedResponse {
  /** False: it was not stored, and could not be. Then only key and path are known. */
  readonly cacheable: boolean;
  readonly path: PathKind;
  readonly type: string;
  readonly sizeBytes: number;
  /** What its head weighs in each tier. */
  readonly memoryHeadBytes: number;
  readonly diskHeadBytes: number;
  /** Another one for other content. */
  readonly content: number;
  readonly ageMs: number;
  /** As the origin states them, without rules. */
  readonly stated: StatedLifetimes;
}

/** What a record has of one request. */
export interface TracedRequest {
  readonly outcome: Outcome;
  readonly head: boolean;
  /** The client did not accept what was stored, so the origin was asked. */
  readonly demanded: boolean;
  readonly sentBytes: number;
}

const HEAD = 1;
const DEMANDED = 2;

const CACHEABLE = 1;
const PROVISIONAL = 2;
const NEVER_FRESH = 4;
const FORBIDS_STALE = 8;

const NOT_STATED = 0xff_ff_ff_ff;
const SECONDS_MAX = NOT_STATED - 1;
const SIZE_MAX = 2 ** 48 - 1;
const HEAD_MAX = 0xff_ff;

const AT = {
  event: 0,
  outcome: 1,
  flags: 2,
  time: 3,
  sent: 9,
  /** From here on, the facts of the response. */
  facts: 15,
  path: 15,
  type: 16,
  factFlags: 17,
  key: 18,
  size: 26,
  memoryHead: 32,
  diskHead: 34,
  lifetime: 36,
  revalidate: 40,
  content: 44,
  age: 48,
} as const;
export const KEY_BYTES = 8;

/** The facts of a response, in a record whose other parts are 0. */
export function encodeResponse(key: Buffer, response: TracedResponse): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  const { stated } = response;
  key.copy(record, AT.key, 0, KEY_BYTES);
  record[AT.path] = PATH_KINDS.indexOf(response.path);
  record[AT.type] = typeNumber(response.type);
  record[AT.factFlags] =
    (response.cacheable ? CACHEABLE : 0) |
    (stated.provisional ? PROVISIONAL : 0) |
    (stated.neverFresh ? NEVER_FRESH : 0) |
    (stated.forbidsStale ? FORBIDS_STALE : 0);
  record.writeUIntLE(Math.min(response.sizeBytes, SIZE_MAX), AT.size, 6);
  record.writeUInt16LE(Math.min(response.memoryHeadBytes, HEAD_MAX), AT.memoryHead);
  record.writeUInt16LE(Math.min(response.diskHeadBytes, HEAD_MAX), AT.diskHead);
  record.writeUInt32LE(seconds(stated.lifetimeMs), AT.lifetime);
  const { staleWhileRevalidateMs: staleMs } = stated;
  record.writeUInt32LE(staleMs === null ? NOT_STATED : seconds(staleMs), AT.revalidate);
  record.writeUInt32LE(response.content, AT.content);
  record.writeUInt32LE(seconds(response.ageMs), AT.age);
  return record;
}

function seconds(ms: number): number {
  return Math.min(Math.max(0, Math.floor(ms / 1_000)), SECONDS_MAX);
}

const TYPE_NUMBERS: ReadonlyMap<string, number> = new Map(TRACED_TYPES.map((type, number) => [type, number]));

/** Of a type that is on no list, the part before the slash. */
function typeNumber(type: string): number {
  const above = `${type.slice(0, Math.max(0, type.indexOf('/')))}/other`;
  return TYPE_NUMBERS.get(type) ?? TYPE_NUMBERS.get(above) ?? TRACED_TYPES.indexOf('other/other');
}

/** Completes a copy of the facts of a response at `at`. */
export function writeRequest(record: Buffer, at: number, timeMs: number, request: TracedRequest): void {
  record[at + AT.event] = EVENT_NUMBER.request;
  record[at + AT.outcome] = OUTCOME_NUMBER[request.outcome];
  record[at + AT.flags] = (request.head ? HEAD : 0) | (request.demanded ? DEMANDED : 0);
  record.writeUIntLE(timeMs, at + AT.time, 6);
  record.writeUIntLE(Math.min(request.sentBytes, SIZE_MAX), at + AT.sent, 6);
}

export function writeEvent(record: Buffer, at: number, timeMs: number, event: TraceEvent): void {
  record[at + AT.event] = EVENT_NUMBER[event];
  record.writeUIntLE(timeMs, at + AT.time, 6);
}

/** A record that is about a key alone. */
export function encodeKey(key: Buffer): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  key.copy(record, AT.key, 0, KEY_BYTES);
  return record;
}

const EVENT_NUMBER = numbered(EVENTS);
const OUTCOME_NUMBER = numbered(OUTCOMES);

function numbered<N extends string>(names: readonly N[]): Readonly<Record<N, number>> {
  return Object.fromEntries(names.map((name, number) => [name, number])) as Record<N, number>;
}

/** A chosen key is one whose hash is below the share of all hashes, so keys of a smaller share are among those of a larger. */
export function isSampled(hash: Buffer, share: number): boolean {
  return isBelow(hash.readUInt32LE(0), share);
}

function isBelow(start: number, share: number): boolean {
  return start < share * 2 ** 32;
}

/** Reads the records of a file whose lists are known. */
export interface RecordReader {
  /** Undefined: it names what this release does not know. */
  eventAt(bytes: Buffer, at: number): TraceEvent | undefined;
  requestAt(bytes: Buffer, at: number): Omit<TracedRequest, 'sentBytes'> | undefined;
  responseAt(bytes: Buffer, at: number): TracedResponse | undefined;
}

export function createRecordReader(lists: TraceLists): RecordReader {
  const events = known(lists.events, EVENTS);
  const outcomes = known(lists.outcomes, OUTCOMES);
  const paths = known(lists.paths, PATH_KINDS);
  return {
    eventAt: (bytes, at) => events[bytes[at + AT.event] ?? 0],
    requestAt(bytes, at) {
      const outcome = outcomes[bytes[at + AT.outcome] ?? 0];
      const flags = bytes[at + AT.flags] ?? 0;
      if (outcome === undefined) return undefined;
      return { outcome, head: (flags & HEAD) !== 0, demanded: (flags & DEMANDED) !== 0 };
    },
    responseAt(bytes, at) {
      const path = paths[bytes[at + AT.path] ?? 0];
      const type = lists.types[bytes[at + AT.type] ?? 0];
      return path === undefined || type === undefined ? undefined : decodeResponse(bytes, at, path, type);
    },
  };
}

function known<N extends string>(given: readonly string[], names: readonly N[]): readonly (N | undefined)[] {
  return given.map((name) => names.find((each) => each === name));
}

/** What a record has before its numbers: the same for all of one event, outcome and kind of request. */
export function stepAt(bytes: Buffer, at: number): number {
  return bytes.readUIntLE(at, 3);
}

export function sentAt(bytes: Buffer, at: number): number {
  return bytes.readUIntLE(at + AT.sent, 6);
}

export function timeAt(bytes: Buffer, at: number): number {
  return bytes.readUIntLE(at + AT.time, 6);
}

/** The hash of the cache key, as a string of 8 characters. */
export function keyAt(bytes: Buffer, at: number): string {
  return bytes.toString('latin1', at + AT.key, at + AT.key + KEY_BYTES);
}

export function isKeySampled(bytes: Buffer, at: number, share: number): boolean {
  return isBelow(bytes.readUInt32LE(at + AT.key), share);
}

/** The facts of the response as they are stored, key included: equal for all requests of one response. */
export function factsAt(bytes: Buffer, at: number): string {
  return bytes.toString('latin1', at + AT.facts, at + RECORD_BYTES);
}

function decodeResponse(bytes: Buffer, at: number, path: PathKind, type: string): TracedResponse {
  const flags = bytes[at + AT.factFlags] ?? 0;
  const revalidate = bytes.readUInt32LE(at + AT.revalidate);
  return {
    cacheable: (flags & CACHEABLE) !== 0,
    path,
    type,
    sizeBytes: bytes.readUIntLE(at + AT.size, 6),
    memoryHeadBytes: bytes.readUInt16LE(at + AT.memoryHead),
    diskHeadBytes: bytes.readUInt16LE(at + AT.diskHead),
    content: bytes.readUInt32LE(at + AT.content),
    ageMs: bytes.readUInt32LE(at + AT.age) * 1_000,
    stated: {
      lifetimeMs: bytes.readUInt32LE(at + AT.lifetime) * 1_000,
      staleWhileRevalidateMs: revalidate === NOT_STATED ? null : revalidate * 1_000,
      staleIfErrorMs: null,
      provisional: (flags & PROVISIONAL) !== 0,
      neverFresh: (flags & NEVER_FRESH) !== 0,
      forbidsStale: (flags & FORBIDS_STALE) !== 0,
    },
  };
}
