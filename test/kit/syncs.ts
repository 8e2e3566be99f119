/**
 * Watches what this process syncs to the disk, and holds a sync back or lets it fail: what promises to be durable must wait
 * for it. Names of files are known on Linux alone. Import it before the modules that sync (they keep the functions of
 * node:fs that they find), so import those with `await import()`.
 */
import fs, { readlinkSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { relative } from 'node:path';
import type { Test } from 'tap';

export interface Syncs {
  /** What was synced since the last `forget`, below the folder, in the order of the calls. */
  readonly paths: readonly string[];
  forget(): void;
  /** The sync that comes after so many others waits until it is let go. */
  hold(after: number): HeldSync;
  /** The sync that comes after so many others fails. */
  fail(after: number): void;
}

export interface HeldSync {
  readonly isReached: () => boolean;
  letGo(): void;
}

/** Called before each sync. */
let beforeSync: ((descriptor: number) => Promise<void>) | undefined;

const { fsync } = fs;
fs.fsync = ((descriptor: number, callback: fs.NoParamCallback) => {
  if (beforeSync === undefined) fsync(descriptor, callback);
  else beforeSync(descriptor).then(() => fsync(descriptor, callback), callback);
}) as typeof fsync;
syncBuiltinESMExports();

type Sync = (this: FileHandle) => Promise<void>;

async function watchHandles(t: Test, folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  const prototype = Object.getPrototypeOf(handle) as { sync: Sync; datasync: Sync };
  await handle.close();
  const original = { sync: prototype.sync, datasync: prototype.datasync };
  t.teardown(() => Object.assign(prototype, original));
  for (const verb of ['sync', 'datasync'] as const) {
    prototype[verb] = async function sync() {
      await beforeSync?.(this.fd);
      await original[verb].call(this);
    };
  }
}

export async function watchSyncs(t: Test, folder: string): Promise<Syncs> {
  let paths: string[] = [];
  let failing: number | undefined;
  let held: { readonly after: number; reached: boolean; readonly gate: Promise<void> } | undefined;
  await watchHandles(t, folder);
  beforeSync = async (descriptor) => {
    const [now, place] = [held, paths.length];
    paths.push(relative(folder, readlinkSync(`/proc/self/fd/${descriptor}`)));
    if (failing === place) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    if (now?.after !== place) return;
    now.reached = true;
    await now.gate;
  };
  t.teardown(() => {
    beforeSync = undefined;
  });
  return {
    get paths() {
      return paths;
    },
    forget() {
      paths = [];
      held = undefined;
      failing = undefined;
    },
    fail(after) {
      failing = after;
    },
    hold(after) {
      let letGo = (): void => undefined;
      const gate = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const mine = { after, reached: false, gate };
      held = mine;
      return { isReached: () => mine.reached, letGo };
    },
  };
}
