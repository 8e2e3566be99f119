/** Tells when a file was changed or replaced, or a link on the way to it, once it has settled. */
import { type FSWatcher, realpathSync, statSync, watch } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { Clock, Timer } from './clock.js';

/** An editor writes a file in several steps; it is read when they have settled. */
const SETTLE_MS = 200;

/** What lies behind a link to another folder changes without a sign here, and some file systems give none at all. */
const LOOK_EVERY_MS = 5_000;

/** Watches the folder, because whoever replaces a file leaves a watch on the old one blind. Ends with what is returned. */
export function watchFile(
  path: string,
  onChange: () => void,
  clock: Clock,
  onTrouble: (trouble: unknown) => void,
): () => void {
  const file = resolve(path);
  let mark = markOf(file);
  let settling: Timer | undefined;
  let watcher: FSWatcher | undefined;
  function settle(): void {
    settling?.cancel();
    settling = clock.after(SETTLE_MS, () => {
      mark = markOf(file);
      onChange();
    });
  }
  function look(): void {
    if (markOf(file) !== mark) settle();
    looking = clock.after(LOOK_EVERY_MS, look);
  }
  let looking = clock.after(LOOK_EVERY_MS, look);
  try {
    watcher = watch(dirname(file), { persistent: false }, (_event, name) => {
      // A mounted file is swapped by a link beside it, whose name starts with two dots.
      if (name === null || name === basename(file) || name.startsWith('..')) settle();
    });
    watcher.on('error', onTrouble);
  } catch (thrown) {
    onTrouble(thrown);
  }
  return () => {
    settling?.cancel();
    looking.cancel();
    watcher?.close();
  };
}

/** Differs once the path leads to other bytes. */
function markOf(path: string): string {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return `${realpathSync(path)} ${ino} ${size} ${mtimeMs}`;
  } catch {
    return 'absent';
  }
}
