/** Bodies that arrive in given pieces, without a socket. */
import type { ChunkSource } from '../../../origin/ingest/paced-body.js';

/** The pieces in order, and then the end. `before` is waited for ahead of each piece, and ahead of the end. */
export function chunkSource(
  pieces: readonly Uint8Array[],
  before: (index: number) => Promise<void> | void = () => undefined,
): ChunkSource {
  let given = 0;
  return {
    async next() {
      await before(given);
      const piece = pieces[given];
      given += 1;
      return piece === undefined ? undefined : Buffer.from(piece);
    },
  };
}

/** The bytes in pieces of one size. */
export function piecesOf(bytes: Uint8Array, sizeBytes: number): readonly Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += sizeBytes) pieces.push(bytes.subarray(at, at + sizeBytes));
  return pieces;
}

/** All bytes of a source. */
export async function drained(source: ChunkSource): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let piece = await source.next(); piece !== undefined; piece = await source.next()) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** For unfinished uploads, any number of which may begin. */
export const NO_LIMITS = { unfinishedMax: Number.MAX_SAFE_INTEGER, unfinishedMaxPerSubject: Number.MAX_SAFE_INTEGER };
