/** Tells when a file was changed or replaced, once it has settled. */
import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { Clock, Timer } from './clock.js';

/** An editor writes a file in several steps; it is read when they have settled. */
const SETTLE_MS = 200;

/** Watches the folder, because whoever replaces a file leaves a watch on the old one blind. Ends with what is returned. */
export function watchFile(
  path: string,
  onChange: () => void,
  clock: Clock,
  onTrouble: (trouble: unknown) => void,
): () => void {
  const file = resolve(path);
  let timer: Timer | undefined;
  let watcher: FSWatcher | undefined;
  try {
    watcher = watch(dirname(file), { persistent: false }, (_event, name) => {
      // A mounted file is swapped by a link beside it, whose name starts with two dots.
      if (name !== null && name !== basename(file) && !name.startsWith('..')) return;
      timer?.cancel();
      timer = clock.after(SETTLE_MS, onChange);
    });
    watcher.on('error', onTrouble);
  } catch (thrown) {
    onTrouble(thrown);
  }
  return () => {
    timer?.cancel();
    watcher?.close();
  };
}
