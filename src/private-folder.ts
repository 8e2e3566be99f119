/**
 * Folders that nobody but the user of this process may enter. New files are
 * private by the umask that the command line sets; here are folders, and what
 * was made by an earlier release or another tool.
 */
import { chmod, lstat, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const FOLDER_MODE = 0o700;
const OTHERS = 0o077;
/** Of /tmp and its like, which are for everybody. */
const STICKY = 0o1000;

/**
 * Makes the folder with its parents. If there is one, others lose their rights to it and to the files that are
 * directly in it. Returns the first folder that was made, as mkdir does.
 */
export async function openPrivateFolder(folder: string): Promise<string | undefined> {
  const made = await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
  if (made === undefined) await tightenFolder(folder);
  return made;
}

/** The same for a folder that is there. */
export async function tightenFolder(folder: string): Promise<void> {
  if ((await tighten(folder)) === 'left') return;
  for (const name of await readdir(folder)) await tightenFile(join(folder, name));
}

/** Others lose their rights to a file. No error if there is none. */
export async function tightenFile(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() === true) await tighten(path);
}

/** `left`: it belongs to somebody else, is for everybody, or cannot be changed. */
async function tighten(path: string): Promise<'private' | 'left'> {
  try {
    const { uid, mode } = await lstat(path);
    if (uid !== process.getuid?.() || (mode & STICKY) !== 0) return 'left';
    if ((mode & OTHERS) !== 0) await chmod(path, mode & 0o700);
    return 'private';
  } catch {
    return 'left';
  }
}
