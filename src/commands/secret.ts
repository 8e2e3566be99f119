/** `media-service secret`: makes a secret, and writes it to a file for the user of the service alone. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { createFile, makeFolder } from '../private-folder.js';

/** 256 bits, as base64url. */
export function newSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** The same in the form of Standard Webhooks. */
export function newWebhookSecret(): string {
  return `whsec_${randomBytes(32).toString('base64')}`;
}

/** False: the file exists, and is left as it is. */
export async function writeSecret(path: string, secret = newSecret()): Promise<boolean> {
  if (existsSync(path)) return false;
  await makeFolder(dirname(path));
  await createFile(path, `${secret}\n`);
  return true;
}
