/** Copies blobs from one store into another. Each is hashed on its way, and wrong bytes are never stored. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sha256 } from '../../src/ids.js';
import { chunksOf } from '../ingest/paced-body.js';
import { stage } from '../ingest/stage.js';
import type { BlobRecord } from '../meta/media.js';
import { type BlobKey, type BlobStore, mediaKey, thumbKey } from './blob-store.js';

/** A blob or thumbnail that a record says is stored. */
export interface ExpectedBlob {
  readonly key: BlobKey;
  readonly sha256: Sha256;
  readonly sizeBytes: number;
}

/** Why a blob could not be copied. */
export interface TransferFault {
  readonly kind: 'rotten' | 'missing';
  readonly detail: string;
}

/** The original first, then its thumbnails. */
export function expectedBlobs(blob: BlobRecord): readonly [ExpectedBlob, ...ExpectedBlob[]] {
  const { sha256, sizeBytes, thumbs } = blob;
  const made = thumbs.kind === 'ready' ? thumbs.made : [];
  return [
    { key: mediaKey(blob), sha256, sizeBytes },
    ...made.map((thumb) => ({ key: thumbKey(sha256, thumb), sha256: thumb.sha256, sizeBytes: thumb.sizeBytes })),
  ];
}

export interface TransferOptions {
  readonly source: Pick<BlobStore, 'read'>;
  readonly target: BlobStore;
  /** Prefix of the name of the staged file. */
  readonly name: 'backup' | 'restore';
  /** Whether to remove what is stored under the key, once the right bytes are staged. */
  readonly replace?: boolean;
  readonly signal: AbortSignal;
}

export async function transfer(expected: ExpectedBlob, options: TransferOptions): Promise<TransferFault | undefined> {
  const { source, target, signal } = options;
  const read = await source.read(expected.key, undefined, signal);
  if (read.kind !== 'found') return { kind: 'missing', detail: 'nothing is stored' };
  if (read.sizeBytes !== expected.sizeBytes) {
    read.body.destroy();
    return { kind: 'rotten', detail: `${read.sizeBytes} of ${expected.sizeBytes} bytes are stored` };
  }
  const path = join(target.stageFolder, `${options.name}-${randomUUID()}`);
  try {
    const sync = target.kind === 'local';
    const staged = await stage(chunksOf(read.body), path, { sizeMaxBytes: expected.sizeBytes, sync });
    if (staged.sha256 !== expected.sha256) return { kind: 'rotten', detail: `its bytes hash to ${staged.sha256}` };
    if (options.replace === true) await target.remove(expected.key, signal);
    await target.adopt(path, expected.key, staged, signal);
    return undefined;
  } finally {
    read.body.destroy();
    await rm(path, { force: true });
  }
}
