/**
 * The step that removes metadata with the location from a picture before it is
 * stored. The result is a staged file, as is its input.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { tooLarge } from './admit.js';
import { HEAD_MAX_BYTES, type Staged } from './stage.js';
import { stripMetadata } from './strip-metadata.js';

const STRIPPED = new Set(['image/jpeg', 'image/png', 'image/apng', 'image/webp']);

/** Returns the same file, or a new one at `path` without the metadata. The caller removes the file at `path`. */
export async function stripLocation(
  staged: Staged,
  mime: string,
  path: string,
  sizeMaxBytes: number,
  signal: AbortSignal,
): Promise<Staged> {
  if (!STRIPPED.has(mime)) return staged;
  // The whole picture is read into memory, so its size is limited.
  if (staged.sizeBytes > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
  const outcome = await stripMetadata(staged.path, path, mime, signal);
  switch (outcome.kind) {
    case 'clean':
    case 'unsupported':
      return staged;
    case 'broken':
      throw new Fault('type_refused', 'The picture is damaged, so its metadata cannot be removed.');
    case 'stripped': {
      const bytes = await readFile(path);
      const sha256 = createHash('sha256').update(bytes).digest('hex') as Sha256;
      return {
        path,
        sizeBytes: bytes.length,
        sha256,
        head: Buffer.from(bytes.subarray(0, HEAD_MAX_BYTES)),
        synced: false,
      };
    }
  }
}
