/**
 * The step that removes metadata with the location from a picture, a film or sound
 * before it is stored. The result is a staged file, as is its input. What cannot be
 * stripped is refused, unless the configuration says to keep it.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { tooLarge } from './admit.js';
import type { UploadConfig } from './config.js';
import { HEAD_MAX_BYTES, type Staged } from './stage.js';
import { STRIPPED_TYPES, stripMetadata } from './strip/metadata.js';

/** Returns the same file, or a new one at `path` without the metadata. The caller removes the file at `path`. */
export async function stripLocation(
  staged: Staged,
  mime: string,
  path: string,
  { sizeMaxBytes, otherwise }: UploadConfig['stripOriginals'],
  signal: AbortSignal,
): Promise<Staged> {
  if (!isStripped(mime)) return staged;
  const outcome = await stripMetadata(staged, path, mime, sizeMaxBytes, signal);
  switch (outcome.kind) {
    case 'clean':
      return staged;
    case 'too_large':
      throw tooLarge(sizeMaxBytes);
    case 'unsupported':
      if (otherwise === 'keep') return staged;
      throw new Fault('type_refused', `The metadata of this file of type ${mime} cannot be removed.`);
    case 'broken':
      throw new Fault('type_refused', 'The file is damaged, so its metadata cannot be removed.');
    case 'stripped':
      return await asStaged(path, signal);
  }
}

/** Whether nothing of this type is stored with metadata. */
function isStripped(mime: string): boolean {
  return /^(?:image|video)\//.test(mime) || STRIPPED_TYPES.includes(mime);
}

async function asStaged(path: string, signal: AbortSignal): Promise<Staged> {
  const hash = createHash('sha256');
  const head: Buffer[] = [];
  let sizeBytes = 0;
  await pipeline(
    createReadStream(path),
    async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) {
        hash.update(chunk);
        if (sizeBytes < HEAD_MAX_BYTES) head.push(chunk);
        sizeBytes += chunk.length;
      }
    },
    { signal },
  );
  const sha256 = hash.digest('hex') as Sha256;
  return { path, sizeBytes, sha256, head: Buffer.concat(head).subarray(0, HEAD_MAX_BYTES), synced: false };
}
