/** Random numbers from 0 to 1 that are the same for the same seed. */
import { createHash } from 'node:crypto';

export function seeded(seed: number): () => number {
  let drawn = 0;
  return () => {
    drawn += 1;
    return createHash('sha256').update(`${seed} ${drawn}`).digest().readUInt32BE(0) / 2 ** 32;
  };
}
