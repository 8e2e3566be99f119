/** Strips a file that is given as bytes. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type StripOutcome, stripMetadata } from '../../../origin/ingest/strip/metadata.js';

export interface Stripped {
  readonly outcome: StripOutcome;
  /** The new file, or the original if none was written. */
  readonly bytes: Buffer;
}

export const MEMORY_MAX_BYTES = 64_000_000;

export async function strip(bytes: Buffer, mime: string, memoryMaxBytes = MEMORY_MAX_BYTES): Promise<Stripped> {
  const folder = await mkdtemp(join(tmpdir(), 'strip-'));
  try {
    const [path, target] = [join(folder, 'source'), join(folder, 'target')];
    await writeFile(path, bytes);
    const source = { path, sizeBytes: bytes.length, head: bytes.subarray(0, 1_000) };
    const outcome = await stripMetadata(source, target, mime, memoryMaxBytes);
    const made = await readFile(target).catch(() => undefined);
    if ((made !== undefined) !== (outcome.kind === 'stripped')) {
      throw new Error('a file was written, or not, against the outcome');
    }
    return { outcome, bytes: made ?? bytes };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
