/** A file system that can be filled: a small tmpfs, where this user may mount one. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { Test } from 'tap';

/** Runs a test in the folder of a small tmpfs, which is unmounted afterwards. Skips the test where none may be mounted. */
export async function onSmallDisk(t: Test, sizeBytes: number, run: (folder: string) => Promise<void>): Promise<void> {
  const folder = join(t.testdir({ disk: {} }), 'disk');
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'tmpfs', folder], { stdio: 'ignore' });
  } catch {
    t.pass('skipped', { skip: 'no file system may be mounted here' });
    return;
  }
  try {
    await run(folder);
  } finally {
    execFileSync('umount', ['--lazy', folder]);
  }
}
