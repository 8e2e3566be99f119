/**
 * Long runs of the cache model, with and without a disk, with restarts. MODEL_RUNS is the number of step sequences of each
 * kind; MODEL_SEED is the seed, or `new` for a new one.
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
  for (const onDisk of [false, true]) {
    void t.test(`every answer is allowed: ${mode}, ${onDisk ? 'memory over disk' : 'memory alone'}`, async (t) => {
      const folder = join(t.testdir(), 'cache');
      const seen: Counts = new Map();
      await fc.assert(
        fc.asyncProperty(steps({ lengthMax: 30, restarts: onDisk }), async (given) => {
          if (onDisk) await rm(folder, { recursive: true, force: true });
          await runModel({ mode, ...(onDisk && { folder }) }, given, seen);
        }),
        { numRuns: RUNS, ...(SEED !== 'new' && { seed: Number(SEED) }) },
      );
      for (const kind of onDisk ? ['memory', 'disk'] : ['memory', 'fwd=partial']) t.ok((seen.get(kind) ?? 0) > 0, kind);
    });
  }
}
