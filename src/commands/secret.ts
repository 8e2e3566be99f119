/** `media-service secret`: makes a secret, and writes it to a file for the user of the service alone. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { createFile, makeFolder } from '../private-folder.js';

/** 256 bits, as base64url. */
export function newSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** False: the file exists, and is left as it is. */
export async function writeSecret(path: string): Promise<boolean> {
  if (existsSync(path)) return false;
  await makeFolder(dirname(path));
  await createFile(path, `${newSecret()}\n`);
  return true;
}
