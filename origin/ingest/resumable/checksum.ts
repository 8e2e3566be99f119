/** The field Upload-Checksum, which gives the checksum of one request body (tus 1.0.0, Checksum). */
import { createHash } from 'node:crypto';
import { Fault } from '../../../src/errors.js';
import type { ChunkSource } from '../paced-body.js';

export const CHECKSUM_ALGORITHMS = ['sha256', 'sha1'] as const;
export type ChecksumAlgorithm = (typeof CHECKSUM_ALGORITHMS)[number];

export interface Checksum {
  readonly algorithm: ChecksumAlgorithm;
  /** Of any length. One that the algorithm cannot give matches no body. */
  readonly digest: Buffer;
}

/** Reads the name of the algorithm, a space and the digest in Base64. Undefined if there is no field. */
export function readChecksum(field: string | undefined): Checksum | undefined {
  if (field === undefined) return undefined;
  const [name, encoded = '', ...more] = field.trim().split(/[ \t]+/);
  const algorithm = CHECKSUM_ALGORITHMS.find((each) => each === name);
  if (algorithm === undefined) {
    // tus 1.0.0, Checksum: an unknown algorithm is answered 400.
    throw new Fault('malformed', `Upload-Checksum accepts ${CHECKSUM_ALGORITHMS.join(' and ')}.`);
  }
  if (more.length > 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) {
    throw new Fault('malformed', 'Upload-Checksum cannot be read.');
  }
  return { algorithm, digest: Buffer.from(encoded, 'base64') };
}

/** The same bytes. Throws a Fault in place of their end if they do not match. */
export function checked(source: ChunkSource, { algorithm, digest }: Checksum): ChunkSource {
  const hash = createHash(algorithm);
  return {
    async next() {
      const chunk = await source.next();
      if (chunk !== undefined) {
        hash.update(chunk);
      } else if (!hash.digest().equals(digest)) {
        throw new Fault('checksum_mismatch', 'The body does not match Upload-Checksum; nothing of it was stored.');
      }
      return chunk;
    },
  };
}
