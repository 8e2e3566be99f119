/**
 * Receives the body of an upload: raw bytes, or a form with one file. The result is
 * a complete staged file with the options of the form. If the client stated a
 * digest, the bytes match it.
 */
import { createHash, type Hash } from 'node:crypto';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import { readDigest } from '../../src/http/digest.js';
import type { Sha256 } from '../../src/ids.js';
import { essenceOf } from '../../src/media/types.js';
import type { OriginRequest } from '../server/request.js';
import { type Admission, tooLarge } from './admit.js';
import type { UploadConfig } from './config.js';
import { formBoundary, readForm } from './form.js';
import { type ChunkSource, heldChunks, pacedChunks } from './paced-body.js';
import { type Staged, stage } from './stage.js';

export interface Received {
  readonly staged: Staged;
  /** The Content-Type of the body, or of the file in the form; undefined if none was given. */
  readonly declaredType: string | undefined;
  /** The name of the file in the form. */
  readonly filename: string | undefined;
  /** Empty without a form. */
  readonly fields: ReadonlyMap<string, string>;
}

/** How to read a body, as its head says. */
export type BodyShape =
  | { readonly kind: 'raw'; readonly declaredType: string | undefined }
  | { readonly kind: 'form'; readonly boundary: string };

/** Throws a Fault if the head shows that the body cannot be read. */
export function bodyShape(request: OriginRequest): BodyShape {
  const encoding = request.header('content-encoding');
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity') {
    // RFC 9110 15.5.16: Accept-Encoding in a 415 says what would be accepted.
    throw new Fault('type_refused', 'Send the media as it is, without a Content-Encoding.', {
      headers: { 'accept-encoding': 'identity' },
    });
  }
  const declaredType = request.header('content-type');
  if (declaredType === undefined || essenceOf(declaredType) !== 'multipart/form-data') {
    return { kind: 'raw', declaredType };
  }
  const boundary = formBoundary(declaredType);
  if (boundary === undefined) throw new Fault('malformed', 'The form has no usable boundary.');
  return { kind: 'form', boundary };
}

export interface ReceiveDeps {
  readonly config: UploadConfig;
  readonly clock: Clock;
  /** Whether the staged bytes are synced to the disk. */
  readonly sync: boolean;
  readonly small?: 'file' | 'memory';
  readonly admission: Pick<Admission, 'hold'>;
}

/** Stages the file at `path`, or a small one in memory. The caller removes it, however this ends. */
export async function receive(
  deps: ReceiveDeps,
  request: OriginRequest,
  shape: BodyShape,
  path: string,
): Promise<Received> {
  const { config, clock } = deps;
  const stated = statedDigests(request);
  const staging = { sizeMaxBytes: config.sizeMaxBytes, sync: deps.sync, small: deps.small ?? 'file' };
  const body = heldChunks(pacedChunks(request, config, clock, request.signal), deps.admission);
  if (shape.kind === 'raw') {
    const staged = await stage(body, path, staging);
    requireMatch(stated, [staged.sha256]);
    return { staged, declaredType: shape.declaredType, filename: undefined, fields: new Map() };
  }
  const whole = stated.length > 0 ? createHash('sha256') : undefined;
  const { fields, file } = await readForm(bounded(body, config, whole), shape.boundary, config.form, async (part) => ({
    contentType: part.contentType,
    filename: part.filename,
    staged: await stage(part.chunks, path, staging),
  }));
  // By RFC 9530 2 the digest is that of the form, but clients often send that of the file. Either is accepted.
  requireMatch(stated, [file.staged.sha256, whole?.digest('hex')]);
  return { staged: file.staged, declaredType: file.contentType, filename: file.filename, fields };
}

function statedDigests(request: OriginRequest): readonly Sha256[] {
  return ['repr-digest', 'content-digest'].flatMap((name) => {
    const stated = readDigest(request.header(name));
    if (stated.kind === 'malformed') throw new Fault('malformed', `The ${name} field cannot be read.`);
    return stated.kind === 'sha256' ? [stated.sha256] : [];
  });
}

function requireMatch(stated: readonly Sha256[], actual: readonly (string | undefined)[]): void {
  if (stated.every((sha256) => actual.includes(sha256))) return;
  throw new Fault('digest_mismatch', 'The bytes do not match the stated SHA-256.');
}

/** The bytes of a form, limited in size as a whole, and hashed if a digest was stated. */
function bounded(source: ChunkSource, config: UploadConfig, hash: Hash | undefined): ChunkSource {
  let left = config.sizeMaxBytes + config.form.overheadMaxBytes;
  return {
    async next() {
      const chunk = await source.next();
      left -= chunk?.length ?? 0;
      if (left < 0) throw tooLarge(config.sizeMaxBytes);
      if (chunk !== undefined) hash?.update(chunk);
      return chunk;
    },
  };
}
