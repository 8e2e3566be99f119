/** Requests of the tus protocol by hand, as the subject alice, and the folder that they fill. */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { HttpResponse } from '../http/request.js';
import { json } from '../http/request.js';
import type { TestOrigin } from './origin.js';

export type Fields = Readonly<Record<string, string>>;

export const TUS = { 'tus-resumable': '1.0.0' };
export const PATCH = { ...TUS, 'content-type': 'application/offset+octet-stream' };

export const base64 = (text: string): string => Buffer.from(text).toString('base64');

export const metadata = (fields: Fields): Fields => ({
  'upload-metadata': Object.entries(fields)
    .map(([key, value]) => `${key} ${base64(value)}`)
    .join(','),
});

export const checksum = (algorithm: 'sha1' | 'sha256', bytes: Uint8Array): Fields => ({
  'upload-checksum': `${algorithm} ${createHash(algorithm).update(bytes).digest('base64')}`,
});

/** `409 conflict` */
export const code = (answer: HttpResponse): string => `${answer.status} ${String(json(answer)['code'])}`;

/** POST, with a body if there is one. */
export const create = (origin: TestOrigin, fields: Fields, body?: Uint8Array): Promise<HttpResponse> =>
  origin.as('alice', '/v1/uploads', {
    method: 'POST',
    headers: { ...(body === undefined ? TUS : PATCH), ...fields },
    ...(body !== undefined && { body }),
  });

/** The path of a new upload. */
export async function begin(origin: TestOrigin, sizeBytes: number, fields: Fields = {}): Promise<string> {
  const answer = await create(origin, { 'upload-length': String(sizeBytes), ...fields });
  if (answer.status !== 201) throw new Error(`${answer.status}: ${answer.bytes.toString()}`);
  return answer.headers.location ?? '';
}

export const patch = (origin: TestOrigin, path: string, offset: number, body: Uint8Array, fields: Fields = {}) =>
  origin.as('alice', path, {
    method: 'PATCH',
    headers: { ...PATCH, 'upload-offset': String(offset), ...fields },
    body,
  });

export const head = (origin: TestOrigin, path: string, subject = 'alice') =>
  origin.as(subject, path, { method: 'HEAD', headers: TUS });

export const remove = (origin: TestOrigin, path: string) =>
  origin.as('alice', path, { method: 'DELETE', headers: TUS });

export const offsetOf = async (origin: TestOrigin, path: string): Promise<number> =>
  Number((await head(origin, path)).headers['upload-offset']);

export const folderOf = (origin: TestOrigin): string => join(origin.folder, 'stage', 'resumable');

/** The file with the bytes of the upload at this path. */
export const fileOf = (origin: TestOrigin, path: string): string => join(folderOf(origin), path.slice(-32));

/** The names of all files of unfinished and finished uploads, sorted. */
export const filesOf = async (origin: TestOrigin): Promise<readonly string[]> =>
  (await readdir(folderOf(origin))).sort();
