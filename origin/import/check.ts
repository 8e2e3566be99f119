/**
 * What an import would refuse, without sending anything: by the rules of uploads that the bytes and the configuration decide.
 * Quotas, quarantine, scanners and what strips metadata decide at the import alone.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { faultOf } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { tooLarge } from '../ingest/admit.js';
import type { UploadConfig } from '../ingest/config.js';
import { identify } from '../ingest/identify.js';
import { HEAD_MAX_BYTES } from '../ingest/stage.js';
import type { Entry, Refusal } from './entry.js';
import type { OpenedFile } from './file.js';

export interface CheckDeps {
  readonly config: Pick<UploadConfig, 'sizeMaxBytes' | 'types'>;
  readonly statesTypes: boolean;
}

/** Undefined: it would be imported. */
export async function checkFile(deps: CheckDeps, entry: Entry, file: OpenedFile): Promise<Refusal | undefined> {
  const { config, statesTypes } = deps;
  const { handle, path, sizeBytes } = file;
  if (sizeBytes === 0) return EMPTY;
  try {
    if (sizeBytes > config.sizeMaxBytes) throw tooLarge(config.sizeMaxBytes);
    // Only the types look at it, and they need no hash.
    const staged = { path, sizeBytes, head: await headOf(handle, sizeBytes), sha256: '' as Sha256, synced: true };
    await identify(staged, (statesTypes ? entry.type : null) ?? undefined, config.types);
  } catch (thrown) {
    const { code, detail } = faultOf(thrown);
    return { code: code === 'storage_unavailable' ? 'unreadable' : code, detail };
  }
  if (entry.sha256 === null || (await hashOf(handle)) === entry.sha256) return undefined;
  return { code: 'digest_mismatch', detail: 'The bytes do not match the SHA-256 of the list.' };
}

export const EMPTY: Refusal = { code: 'empty', detail: 'The file has no bytes.' };

async function headOf(handle: FileHandle, sizeBytes: number): Promise<Buffer> {
  const head = Buffer.alloc(Math.min(HEAD_MAX_BYTES, sizeBytes));
  let filled = 0;
  while (filled < head.length) {
    const { bytesRead } = await handle.read(head, filled, head.length - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return head.subarray(0, filled);
}

async function hashOf(handle: FileHandle): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of handle.createReadStream({ start: 0, autoClose: false })) hash.update(piece as Buffer);
  return hash.digest('hex');
}
