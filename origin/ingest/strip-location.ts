/**
 * The step that keeps the place where a picture was made from being stored, as
 * far as the operator asks for that. What comes out is staged like what went in.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { tooLarge } from './admit.js';
import { HEAD_MAX_BYTES, type Staged } from './stage.js';
import { stripLocation } from './strip-metadata.js';

const STRIPPED = new Set(['image/jpeg', 'image/png', 'image/apng', 'image/webp']);

/** The file in hand, or another one at `path` without the location. Who names the path discards it. */
export async function withoutLocation(
  staged: Staged,
  mime: string,
  path: string,
  sizeMaxBytes: number,
  signal: AbortSignal,
): Promise<Staged> {
  if (!STRIPPED.has(mime)) return staged;
  // The picture is held in memory, so its size needs a bound of its own.
  if (staged.sizeBytes > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
  const outcome = await stripLocation(staged.path, path, mime, signal);
  switch (outcome.kind) {
    case 'clean':
    case 'unsupported':
      return staged;
    case 'broken':
      throw new Fault('type_refused', 'The picture is broken, so that its location cannot be taken out.');
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
