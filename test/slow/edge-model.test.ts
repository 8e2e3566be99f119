/**
 * The model of the cache at length: with and without a disk, over restarts.
 * MODEL_RUNS says how many sequences of steps are drawn of each kind, MODEL_SEED
 * from where: a number, or `new` for sequences that nobody has seen yet.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { type Counts, runModel, steps } from '../kit/edge/cache-model.js';

const RUNS = Number(process.env['MODEL_RUNS'] ?? 150);
const SEED = process.env['MODEL_SEED'] ?? '5';

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
