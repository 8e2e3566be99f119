/**
 * The record of a resumable upload, and its stored form: JSON with a version.
 * The version before is read. Pure.
 */
import type { EpochMs } from '../../../src/clock.js';
import { writeMetadata } from './metadata.js';

export interface UnfinishedUpload {
  readonly id: string;
  readonly owner: string;
  /** Null while the client has not given the length. */
  readonly sizeBytes: number | null;
  /** As metadata.ts reads and writes it. */
  readonly metadata: string;
  readonly role: UploadRole;
  readonly expiresAt: EpochMs;
  /** The media that it became, alone or as a part; from then on there is no file of bytes. */
  readonly mediaId: string | null;
}

/** tus 1.0.0, Concatenation. */
export type UploadRole =
  | { readonly kind: 'whole' }
  /** Some of the bytes of a final upload. `finalId`: the final upload that has taken them, or null. */
  | { readonly kind: 'partial'; readonly finalId: string | null }
  /** Made of partial uploads. `concat`: the field Upload-Concat that named them. */
  | { readonly kind: 'final'; readonly concat: string };

/** 128 random bits. Only such ids are used as file names. */
export const UPLOAD_ID = /^[0-9a-f]{32}$/;

const VERSION = 2;

export function writeRecord(upload: UnfinishedUpload): string {
  return JSON.stringify({ version: VERSION, ...upload });
}

/** Undefined if the text is no record. */
export function readRecord(text: string): UnfinishedUpload | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { version, ...fields } = value as Fields;
    const record = version === undefined ? ofVersionOne(fields) : fields;
    return (version === undefined || version === VERSION) && isRecord(record) ? record : undefined;
  } catch {
    return undefined;
  }
}

type Fields = Readonly<Record<string, unknown>>;

/** Version 1 had no `version`, decoded metadata, and whole uploads only. */
function ofVersionOne(fields: Fields): Fields {
  const { metadata } = fields;
  if (!isFields(metadata) || !Object.values(metadata).every(isTextOrNull)) return {};
  return { ...fields, metadata: writeMetadata(metadata as Record<string, string | null>), role: { kind: 'whole' } };
}

function isRecord(fields: Fields): fields is Fields & UnfinishedUpload {
  const { id, owner, sizeBytes, metadata, role, expiresAt, mediaId } = fields;
  return (
    typeof id === 'string' &&
    UPLOAD_ID.test(id) &&
    typeof owner === 'string' &&
    (sizeBytes === null || Number.isSafeInteger(sizeBytes)) &&
    typeof metadata === 'string' &&
    isRole(role) &&
    Number.isSafeInteger(expiresAt) &&
    isTextOrNull(mediaId)
  );
}

function isRole(role: unknown): role is UploadRole {
  if (!isFields(role)) return false;
  if (role['kind'] === 'partial') return isTextOrNull(role['finalId']);
  return role['kind'] === 'whole' || (role['kind'] === 'final' && typeof role['concat'] === 'string');
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null;
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}
