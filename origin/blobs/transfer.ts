/** Blobs from one store into another, each hashed on its way: what is not what it should be never arrives. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sha256 } from '../../src/ids.js';
import { chunksOf } from '../ingest/paced-body.js';
import { stage } from '../ingest/stage.js';
import type { BlobRecord } from '../meta/media.js';
import { type BlobKey, type BlobStore, mediaKey, thumbKey } from './blob-store.js';

/** What a record says is stored. */
export interface Wanted {
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
export function wantedOf({ sha256, sizeBytes, thumbs }: BlobRecord): readonly [Wanted, ...Wanted[]] {
  const made = thumbs.kind === 'ready' ? thumbs.made : [];
  return [
    { key: mediaKey(sha256), sha256, sizeBytes },
    ...made.map((thumb) => ({ key: thumbKey(sha256, thumb.sha256), sha256: thumb.sha256, sizeBytes: thumb.sizeBytes })),
  ];
}

export interface TransferOptions {
  readonly source: Pick<BlobStore, 'read'>;
  readonly target: BlobStore;
  /** What the staged file is called while it is one. */
  readonly name: 'backup' | 'restore';
  /** Whether what stands under the key goes once better bytes are at hand. */
  readonly replace?: boolean;
  readonly signal: AbortSignal;
}

export async function transfer(wanted: Wanted, options: TransferOptions): Promise<TransferFault | undefined> {
  const { source, target, signal } = options;
  const read = await source.read(wanted.key, undefined, signal);
  if (read.kind !== 'found') return { kind: 'missing', detail: 'nothing is stored' };
  if (read.sizeBytes !== wanted.sizeBytes) {
    read.body.destroy();
    return { kind: 'rotten', detail: `${read.sizeBytes} of ${wanted.sizeBytes} bytes are stored` };
  }
  const path = join(target.stageFolder, `${options.name}-${randomUUID()}`);
  try {
    const sync = target.kind === 'local';
    const staged = await stage(chunksOf(read.body), path, { sizeMaxBytes: wanted.sizeBytes, sync });
    if (staged.sha256 !== wanted.sha256) return { kind: 'rotten', detail: `its bytes hash to ${staged.sha256}` };
    if (options.replace === true) await target.remove(wanted.key, signal);
    await target.adopt(path, wanted.key, staged, signal);
    return undefined;
  } finally {
    read.body.destroy();
    await rm(path, { force: true });
  }
}
