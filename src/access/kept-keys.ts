/**
 * Stores the last key set of each issuer in a folder, so that a process that
 * starts while the Authentication Service is down still has its keys. Each
 * issuer has one file, which is replaced in one step. Several processes may
 * share the folder.
 */

import { hash, randomUUID } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { EpochMs } from '../clock.js';
import { errorCode } from '../errors.js';
import { openPrivateFolder } from '../private-folder.js';

export interface KeySource {
  readonly issuer: string;
  readonly jwksUrl: string | null;
}

export interface SavedKeySet extends KeySource {
  readonly confirmedAt: EpochMs;
  readonly document: unknown;
}

const FORMAT = 1;

export async function saveKeySet(folder: string, saved: SavedKeySet): Promise<void> {
  await openPrivateFolder(folder);
  const path = pathOf(folder, saved);
  const temporary = `${path}.${randomUUID()}`;
  try {
    await writeFile(temporary, JSON.stringify({ format: FORMAT, ...saved }), {
      flag: 'wx',
      mode: 0o600,
      flush: true,
    });
    await rename(temporary, path);
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
}

/** Undefined if there is none, or one of another format or source. */
export async function loadKeySet(folder: string, source: KeySource): Promise<SavedKeySet | undefined> {
  let text: string;
  try {
    text = await readFile(pathOf(folder, source), 'utf8');
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
  const { format, issuer, jwksUrl, confirmedAt, document } = JSON.parse(text) as Readonly<Record<string, unknown>>;
  if (format !== FORMAT || issuer !== source.issuer || jwksUrl !== source.jwksUrl) return undefined;
  return typeof confirmedAt === 'number' ? { ...source, confirmedAt, document } : undefined;
}

function pathOf(folder: string, { issuer, jwksUrl }: KeySource): string {
  return join(folder, `${hash('sha256', JSON.stringify([issuer, jwksUrl])).slice(0, 32)}.json`);
}
