/**
 * The identifiers of the service. Only this file makes and parses them, so a
 * branded value was always checked.
 */
import { randomFillSync } from 'node:crypto';
import { encodeTime, monotonicFactory } from 'ulid';
import type { Clock, EpochMs } from './clock.js';

/** A media id: a ULID in upper case, 26 characters of Crockford Base32. */
export type MediaId = string & { readonly brand: 'MediaId' };

/** A SHA-256 as 64 lower-case hexadecimal digits. */
export type Sha256 = string & { readonly brand: 'Sha256' };

const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
/** 48 bits of milliseconds. */
const ULID_TIME_MAX = 2 ** 48 - 1;
const SHA256 = /^[0-9a-f]{64}$/;

/** Accepts either case and returns the upper-case form. Undefined for anything else. */
export function parseMediaId(text: string): MediaId | undefined {
  if (text.length !== 26) return undefined;
  const upper = text.toUpperCase();
  return ULID.test(upper) ? (upper as MediaId) : undefined;
}

/** Accepts lower-case hexadecimal digits only. */
export function parseSha256(text: string): Sha256 | undefined {
  return SHA256.test(text) ? (text as Sha256) : undefined;
}

/** The lowest id that can be made at an instant; ids that are made later sort after it. */
export function lowestIdAt(at: EpochMs): MediaId {
  return `${encodeTime(Math.min(Math.max(Math.floor(at), 0), ULID_TIME_MAX))}${'0'.repeat(16)}` as MediaId;
}

export type IdSource = () => MediaId;

/**
 * Ids that sort in the order in which they were made, also within one
 * millisecond and when the wall clock steps back.
 */
export function createIdSource(clock: Pick<Clock, 'now'>): IdSource {
  const next = monotonicFactory(createFractions());
  let latestAt: EpochMs = 0;
  return () => {
    latestAt = Math.max(latestAt, clock.now());
    return next(latestAt) as MediaId;
  };
}

/** Random bytes that are taken from the system at once. */
const DRAWN_BYTES = 4_096;

/**
 * Unpredictable fractions from 0 to below 1, each made of one byte. The
 * package's own source asks the system for every byte, sixteen times an id.
 */
function createFractions(): () => number {
  const drawn = new Uint8Array(DRAWN_BYTES);
  let used = DRAWN_BYTES;
  return () => {
    if (used === DRAWN_BYTES) {
      randomFillSync(drawn);
      used = 0;
    }
    const byte = drawn[used] ?? 0;
    used += 1;
    return byte / 256;
  };
}
