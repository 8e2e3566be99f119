/** The local blob store on a full disk: a small tmpfs, in a mount namespace that ends with the test. */
import { spawnSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { openLocalStore } from '../../../origin/blobs/local.js';
import { put, stage } from '../../kit/origin/blob-contract.js';
import { thumbKey } from '../../kit/origin/keys.js';

const disk = process.env['SMALL_DISK'];

// Few names and few bytes, so that the disk is soon full of either.
const MOUNT = 'mount -t tmpfs -o size=1m,nr_inodes=24 none "$SMALL_DISK" && exec "$@"';

if (disk === undefined) {
  const folder = await mkdtemp(join(tmpdir(), 'small-disk-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const options = { env: { ...process.env, SMALL_DISK: folder } };
  const inside = (...command: string[]): string[] => ['--mount', 'sh', '-c', MOUNT, 'sh', ...command];
  const skip = spawnSync('unshare', inside('true'), options).status === 0 ? false : 'only root may mount a small disk';
  void t.spawn('unshare', inside(process.execPath, fileURLToPath(import.meta.url)), { ...options, skip });
} else {
  for (const [what, sizeBytes] of [
    ['names', 0],
    ['bytes', 100_000],
  ] as const) {
    void t.test(
      `a disk full of ${what} is reported as such, leaves nothing behind, and works again once there is space`,
      async (t) => {
        const store = await openLocalStore({ folder: join(disk, 'blobs'), stageFolder: join(disk, 'stage') });
        const { sha256 } = await put(store, 1_000);
        const thumb = await stage(store, randomBytes(1_000));
        const key = thumbKey(sha256, thumb.sha256);
        const fillers = await fill(disk, sizeBytes);
        await t.rejects(store.adopt(thumb.path, key, thumb.facts), { code: 'storage_full', cause: { code: 'ENOSPC' } });
        t.equal(await store.stat(key), undefined);
        t.same(await readdir(join(disk, 'stage')), []);
        fillers.push(...(await fill(disk, 0)), ...(await fill(disk, 4_096)));
        await t.rejects(store.probe(), { code: 'storage_full' });
        await Promise.all(fillers.map((path) => rm(path, { force: true })));
        const again = await stage(store, thumb.bytes);
        await store.adopt(again.path, key, again.facts);
        t.equal(await store.stat(key), 1_000);
        await store.probe();
      },
    );
  }
}

/** Writes files of a size until there is no space for another. */
async function fill(folder: string, sizeBytes: number): Promise<string[]> {
  for (const made: string[] = []; ; ) {
    const path = join(folder, randomUUID());
    made.push(path);
    try {
      await writeFile(path, Buffer.alloc(sizeBytes), { flag: 'wx' });
    } catch {
      return made;
    }
  }
}
