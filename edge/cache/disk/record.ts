/**
 * The record of an entry in the disk tier's index, and its stored form: an array
 * that starts with ENTRY_VERSION. A form of another version, or a damaged one,
 * is read as no record.
 */
import { hash } from 'node:crypto';
import type { HeaderList } from '../../../src/http/reply.js';
import { parseMediaId } from '../../../src/ids.js';
import { type CacheKey, ENTRY_VERSION, type Entry, type SizedEntry } from '../../entry.js';

/**
 * The first 16 bytes of a key's SHA-256, as a string of 16 characters. The index and the policy use it
 * as their key.
 */
export type KeyDigest = string & { readonly brand: 'KeyDigest' };

export function digestOf(key: string): KeyDigest {
  return hash('sha256', key, 'buffer').toString('latin1', 0, 16) as KeyDigest;
}

export interface DiskRecord {
  readonly entry: SizedEntry;
  /** SHA-256 of the content, as hex. Null for an empty body, which has no content file. */
  readonly content: string | null;
  /** What the entry weighs for the policy. */
  readonly weightBytes: number;
  /** Its place in the order in which entries were stored. */
  readonly seq: number;
  /** The number of the run that stored it. */
  readonly run: number;
}

const BLOCK_BYTES = 4_096;
/** What an entry occupies in the index beside the text of its head. */
const INDEX_OVERHEAD_BYTES = 512;

/** The space that a body occupies as a file. */
export function fileBytes(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
}

/** The space that an entry occupies: its content in whole blocks, and its rows in the index. */
export function diskWeight(entry: Entry, sizeBytes: number): number {
  return diskWeightOf(diskHeadBytes(entry), sizeBytes);
}

export function diskWeightOf(headBytes: number, sizeBytes: number): number {
  return fileBytes(sizeBytes) + headBytes + INDEX_OVERHEAD_BYTES;
}

/** The space of its keys and fields. */
export function diskHeadBytes({ key, headers }: Pick<Entry, 'key' | 'headers'>): number {
  return 2 * headers.reduce((sum, [name, value]) => sum + name.length + value.length, 2 * key.length);
}

export function encodeRecord({ entry, content, weightBytes, seq, run }: DiskRecord): readonly unknown[] {
  return [
    ENTRY_VERSION,
    seq,
    run,
    weightBytes,
    content,
    entry.key,
    entry.primaryKey,
    entry.mediaId,
    entry.status,
    entry.headers.flat(),
    Object.entries(entry.selectedBy).flat(),
    entry.requestedAt,
    entry.receivedAt,
    entry.bornAt,
    entry.staleAt,
    entry.revalidateUntil,
    entry.errorUntil,
    entry.deleteAt,
    entry.audience,
    entry.sizeBytes,
    entry.sha256,
  ];
}

export function decodeRecord(stored: unknown): DiskRecord | undefined {
  if (!Array.isArray(stored) || stored.length !== 21 || stored[0] !== ENTRY_VERSION) return undefined;
  const [, seq, run, weightBytes, content, key, primaryKey, mediaId, status, headers, selectedBy] = stored as unknown[];
  const [requestedAt, receivedAt, bornAt, staleAt, revalidateUntil, errorUntil, deleteAt] = stored.slice(
    11,
  ) as unknown[];
  const [audience, sizeBytes, sha256] = stored.slice(18) as unknown[];
  const fields = pairsOf(headers);
  const selection = pairsOf(selectedBy);
  const id = mediaId === null ? null : typeof mediaId === 'string' ? parseMediaId(mediaId) : undefined;
  const known =
    isNumber(seq) &&
    isNumber(run) &&
    isNumber(weightBytes) &&
    (content === null || typeof content === 'string') &&
    typeof key === 'string' &&
    typeof primaryKey === 'string' &&
    id !== undefined &&
    isNumber(status) &&
    fields !== undefined &&
    selection !== undefined &&
    isNumber(requestedAt) &&
    isNumber(receivedAt) &&
    isNumber(bornAt) &&
    isNumber(staleAt) &&
    isNumber(revalidateUntil) &&
    isNumber(errorUntil) &&
    isNumber(deleteAt) &&
    (audience === 'anyone' || audience === 'authorised') &&
    isNumber(sizeBytes) &&
    (sha256 === null || typeof sha256 === 'string');
  if (!known) return undefined;
  const entry: SizedEntry = {
    key: key as CacheKey,
    primaryKey,
    mediaId: id,
    status,
    headers: fields,
    selectedBy: Object.fromEntries(selection),
    requestedAt,
    receivedAt,
    bornAt,
    staleAt,
    revalidateUntil,
    errorUntil,
    deleteAt,
    audience,
    sizeBytes,
    sha256,
  };
  return { entry, content, weightBytes, seq, run };
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}

function pairsOf(flat: unknown): HeaderList | undefined {
  if (!Array.isArray(flat) || flat.length % 2 !== 0) return undefined;
  const pairs: [string, string][] = [];
  for (let at = 0; at < flat.length; at += 2) {
    const name: unknown = flat[at];
    const value: unknown = flat[at + 1];
    if (typeof name !== 'string' || typeof value !== 'string') return undefined;
    pairs.push([name, value]);
  }
  return pairs;
}
