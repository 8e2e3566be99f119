/**
 * Long runs of the cache model: one edge and several in a row, with and without a disk, with restarts. MODEL_RUNS is the
 * number of step sequences for one edge, of which a row gets its share; MODEL_SEED is the seed, or `new` for a new one.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { type Counts, runModel, steps } from '../kit/edge/cache-model.js';

const RUNS = Number(process.env['MODEL_RUNS'] ?? 150);
const SEED = process.env['MODEL_SEED'] ?? '5';

/** Also for many runs by hand. */
t.setTimeout(3_600_000);

for (const mode of ['off', 'media'] as const) {
  for (const [onDisk, tiers] of [
    [false, 1],
    [true, 1],
    [false, 3],
    [true, 2],
  ] as const) {
    const where = onDisk ? 'memory over disk' : 'memory alone';
    void t.test(`every answer is allowed: ${mode}, ${where}, edges in a row: ${tiers}`, async (t) => {
      const folder = join(t.testdir(), 'cache');
      const seen: Counts = new Map();
      await fc.assert(
        fc.asyncProperty(steps({ lengthMax: 30, restarts: onDisk }), async (given) => {
          if (onDisk) await rm(folder, { recursive: true, force: true });
          await runModel({ mode, tiers, ...(onDisk && { folder }) }, given, seen);
        }),
        { numRuns: Math.ceil(RUNS / tiers), ...(SEED !== 'new' && { seed: Number(SEED) }) },
      );
      for (const kind of onDisk ? ['memory', 'disk'] : ['memory', 'fwd=partial']) t.ok((seen.get(kind) ?? 0) > 0, kind);
    });
  }
}
