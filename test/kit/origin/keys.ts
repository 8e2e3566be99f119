/** Keys of blobs that tests store themselves, without an upload: all in one place; and where the files of keys are. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type BlobKey,
  mediaKey as mediaKeyOf,
  type Place,
  thumbKey as thumbKeyOf,
} from '../../../origin/blobs/blob-store.js';
import type { UploadBytes } from '../../../origin/meta/store.js';
import type { Sha256 } from '../../../src/ids.js';

export const PLACE = '0123456789abcdef' as Place;

/** Says of an upload that it stored its bytes there. */
export const IN_PLACE: UploadBytes = { kind: 'stored', place: PLACE, damaged: null };

export function mediaKey(sha256: Sha256): BlobKey {
  return mediaKeyOf({ sha256, place: PLACE });
}

export function thumbKey(source: Sha256, sha256: Sha256): BlobKey {
  return thumbKeyOf(source, { sha256, place: PLACE });
}

/** The file of a key below the folder of a local store. */
export function fileOfKey(blobs: string, key: BlobKey): string {
  const [kind = '', source = '', ...names] = key.split('/');
  const name = (kind === 'thumb' ? names : [source, ...names]).join('-');
  return join(blobs, kind, source.slice(0, 2), kind === 'thumb' ? source : '', name);
}

/** The files of originals with this hash, in every place. */
export function filesOf(blobs: string, sha256: string): readonly string[] {
  const folder = join(blobs, 'media', sha256.slice(0, 2));
  return readdirSync(folder)
    .filter((name) => name.startsWith(sha256))
    .map((name) => join(folder, name));
}
