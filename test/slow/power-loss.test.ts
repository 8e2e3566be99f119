/**
 * Power cuts. What the origin and the edge do to the disk is recorded by the system's tracer. From that, the disks are
 * built that a cut could leave at each step, by what POSIX promises and nothing more, and the next start is tried on each:
 * what was acknowledged before the cut is whole, what was taken down stays so, and fsck finds nothing.
 *
 * POWER_ALL=1 draws many more disks at each step; POWER_SEED draws others.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { tryCuts } from '../kit/power/checkers.js';
import { record, whyNotTraced } from '../kit/power/record.js';

const ALL = process.env['POWER_ALL'] !== undefined;
const SEED = Number(process.env['POWER_SEED'] ?? 1);
const WORKLOADS = {
  origin: new URL('../kit/power/origin-workload.js', import.meta.url),
  edge: new URL('../kit/power/edge-workload.js', import.meta.url),
};
const skip = whyNotTraced();

t.setTimeout(1_500_000);

for (const of of ['origin', 'edge'] as const) {
  void t.test(`an ${of} after a power cut at any moment`, { skip, timeout: 0 }, async (t) => {
    const folder = await inMemory();
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const recording = await record(fileURLToPath(WORKLOADS[of]), folder);
    const tried = await tryCuts(recording, { of, folder, seed: SEED, drawn: ALL ? 30 : 2, single: ALL ? 50 : 2 });
    t.comment(`${tried.moments} moments, ${tried.disks} disks, seed ${SEED}`);
    t.same(tried.faults, []);
  });
}

/** A folder in memory where the system has one: nothing here needs a disk. */
async function inMemory(): Promise<string> {
  const shared = await access('/dev/shm').then(
    () => '/dev/shm',
    () => tmpdir(),
  );
  return mkdtempSync(join(shared, 'power-'));
}
