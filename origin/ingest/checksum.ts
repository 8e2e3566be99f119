/** The field Upload-Checksum, which gives the checksum of one request body (tus 1.0.0, Checksum). */
import { Fault } from '../../src/errors.js';

export const CHECKSUM_ALGORITHMS = ['sha256', 'sha1'] as const;
export type ChecksumAlgorithm = (typeof CHECKSUM_ALGORITHMS)[number];

const DIGEST_BYTES: Readonly<Record<ChecksumAlgorithm, number>> = { sha256: 32, sha1: 20 };

export interface Checksum {
  readonly algorithm: ChecksumAlgorithm;
  readonly digest: Buffer;
}

/** Reads the name of the algorithm, a space and the digest in Base64. Undefined if there is no field. */
export function readChecksum(field: string | undefined): Checksum | undefined {
  if (field === undefined) return undefined;
  const [name, encoded = '', ...more] = field.trim().split(' ');
  const algorithm = CHECKSUM_ALGORITHMS.find((each) => each === name);
  if (algorithm === undefined) {
    // tus 1.0.0, Checksum: an unknown algorithm is answered 400.
    throw new Fault('malformed', `Upload-Checksum accepts ${CHECKSUM_ALGORITHMS.join(' and ')}.`);
  }
  const digest = Buffer.from(encoded, 'base64');
  const wellFormed = digest.length === DIGEST_BYTES[algorithm] && digest.toString('base64') === encoded;
  if (more.length > 0 || !wellFormed) throw new Fault('malformed', 'Upload-Checksum cannot be read.');
  return { algorithm, digest };
}
