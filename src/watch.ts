/** Notices when a file, or a link on the path to it, was changed or replaced. */
import { type FSWatcher, realpathSync, statSync, watch } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { Clock, Timer } from './clock.js';

/** An editor writes a file in several steps. The file is read after the last one. */
const SETTLE_MS = 200;

/** The target of a link in another folder changes without an event, and some file systems give no events. */
const LOOK_EVERY_MS = 5_000;

/** Watches the folder, because a watch on a file sees nothing once the file is replaced. Returns how to stop. */
export function watchFile(
  path: string,
  onChange: () => void,
  clock: Clock,
  onTrouble: (trouble: unknown) => void,
): () => void {
  const file = resolve(path);
  let known = markOf(file);
  let settling: Timer | undefined;
  let watcher: FSWatcher | undefined;
  function waitToSettle(): void {
    settling?.cancel();
    settling = clock.after(SETTLE_MS, () => {
      known = markOf(file);
      onChange();
    });
  }
  function check(): void {
    if (markOf(file) !== known) waitToSettle();
    checking = clock.after(LOOK_EVERY_MS, check);
  }
  let checking = clock.after(LOOK_EVERY_MS, check);
  try {
    watcher = watch(dirname(file), { persistent: false }, (_event, name) => {
      // A mounted file (Kubernetes) is replaced through a link next to it, whose name starts with two dots.
      if (name === null || name === basename(file) || name.startsWith('..')) waitToSettle();
    });
    watcher.on('error', onTrouble);
  } catch (thrown) {
    onTrouble(thrown);
  }
  return () => {
    settling?.cancel();
    checking.cancel();
    watcher?.close();
  };
}

/** Changes when the path leads to other bytes. */
function markOf(path: string): string {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return `${realpathSync(path)} ${ino} ${size} ${mtimeMs}`;
  } catch {
    return 'absent';
  }
}
