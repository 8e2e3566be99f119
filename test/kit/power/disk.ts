/**
 * What a file system promises of a disk when power is cut, and nothing more (POSIX: fsync, fdatasync, O_DSYNC).
 *
 * A write, a truncation or a name may reach the disk at any time after the call began, or never, and in any order: only
 * a sync of that file, or of that folder, which began after the call had ended makes it certain. A sync of a file says
 * nothing of its name, and a sync of a folder nothing of the folder's own name or of the files in it. A rename inside one
 * folder or between two is the new name and the end of the old one, each for itself. A name is the old or the new one,
 * never a mixture; the bytes of one sector too.
 */

export type Inode = FileNode | FolderNode;

export interface FileNode {
  readonly kind: 'file';
  /** What is certain. */
  base: Buffer;
  /** In the order of the calls. The certain ones behind an uncertain one are kept for their order. */
  changes: DataChange[];
}

export interface FolderNode {
  readonly kind: 'folder';
  readonly base: Map<string, Inode>;
  changes: NameChange[];
}

/** When the call that made the change ended. */
interface Change {
  readonly ended: number;
  certain: boolean;
}

export type DataChange = Change &
  (
    | { readonly kind: 'write'; readonly at: number; readonly bytes: Buffer }
    | { readonly kind: 'resize'; readonly sizeBytes: number }
  );

/** `to`: undefined for a name that ends. */
export interface NameChange extends Change {
  readonly name: string;
  readonly to: Inode | undefined;
}

export class Disk {
  readonly root: FolderNode = newFolder();

  /** What the running system sees at this path. */
  find(path: string): Inode | undefined {
    let at: Inode | undefined = this.root;
    for (const name of namesIn(path)) at = at?.kind === 'folder' ? present(at).get(name) : undefined;
    return at;
  }

  makeFile(path: string, ended: number): FileNode {
    const made: FileNode = { kind: 'file', base: Buffer.alloc(0), changes: [] };
    this.setName(path, made, ended);
    return made;
  }

  makeFolder(path: string, ended: number): void {
    this.setName(path, newFolder(), ended);
  }

  rename(from: string, to: string, ended: number): void {
    const moved = this.find(from);
    if (moved === undefined) throw new Error(`${from} is renamed and was never made`);
    if (moved === this.find(to)) return;
    this.setName(to, moved, ended);
    this.setName(from, undefined, ended);
  }

  link(from: string, to: string, ended: number): void {
    const linked = this.find(from);
    if (linked === undefined) throw new Error(`${from} is linked and was never made`);
    this.setName(to, linked, ended);
  }

  setName(path: string, to: Inode | undefined, ended: number): void {
    const names = namesIn(path);
    const name = names.pop() ?? '';
    const folder = this.find(names.join('/'));
    if (folder?.kind !== 'folder') throw new Error(`there is no folder for ${path}`);
    folder.changes.push({ name, to, ended, certain: false });
  }

  write(file: FileNode, at: number, bytes: Buffer, ended: number): DataChange {
    const change: DataChange = { kind: 'write', at, bytes, ended, certain: false };
    file.changes.push(change);
    return change;
  }

  resize(file: FileNode, sizeBytes: number, ended: number): void {
    file.changes.push({ kind: 'resize', sizeBytes, ended, certain: false });
  }

  /** The end of a sync: everything in it that had ended before the sync began is certain. */
  sync(inode: Inode, began: number): void {
    for (const change of inode.changes) if (change.ended < began) change.certain = true;
    settle(inode);
  }

  /** The end of a write with O_DSYNC or O_SYNC. */
  makeCertain(file: FileNode, change: DataChange): void {
    change.certain = true;
    settle(file);
  }
}

/** Adds what is certain to what is stored, up to the first change that is not. */
function settle(inode: Inode): void {
  if (inode.kind === 'file') {
    const uncertain = inode.changes.findIndex(({ certain }) => !certain);
    const settled = inode.changes.splice(0, uncertain < 0 ? inode.changes.length : uncertain);
    if (settled.length > 0) inode.base = contentWith(inode.base, settled);
    return;
  }
  // Names do not depend on each other: each has its own order.
  const left: NameChange[] = [];
  const blocked = new Set<string>();
  for (const change of inode.changes) {
    if (change.certain && !blocked.has(change.name)) put(inode.base, change);
    else left.push(change);
    if (!change.certain) blocked.add(change.name);
  }
  inode.changes = left;
}

/** The names in a folder as the running system sees them. */
export function present(folder: FolderNode): ReadonlyMap<string, Inode> {
  const names = new Map(folder.base);
  for (const change of folder.changes) put(names, change);
  return names;
}

function put(names: Map<string, Inode>, { name, to }: NameChange): void {
  if (to === undefined) names.delete(name);
  else names.set(name, to);
}

/** The size of a file as the running system sees it. */
export function sizeOf({ base, changes }: FileNode): number {
  let size = base.length;
  for (const change of changes) {
    size = change.kind === 'resize' ? change.sizeBytes : Math.max(size, change.at + change.bytes.length);
  }
  return size;
}

/** Bytes with changes applied in order. Gaps are zeros. */
export function contentWith(base: Buffer, changes: readonly DataChange[]): Buffer {
  const sizes = sizeOf({ kind: 'file', base, changes: [...changes] });
  let content = Buffer.alloc(Math.max(sizes, base.length));
  base.copy(content);
  let size = base.length;
  for (const change of changes) {
    if (change.kind === 'write') {
      const end = change.at + change.bytes.length;
      if (end > content.length) content = Buffer.concat([content, Buffer.alloc(end - content.length)]);
      change.bytes.copy(content, change.at);
      size = Math.max(size, end);
      continue;
    }
    content.fill(0, Math.min(change.sizeBytes, content.length));
    if (change.sizeBytes > content.length) {
      content = Buffer.concat([content, Buffer.alloc(change.sizeBytes - content.length)]);
    }
    size = change.sizeBytes;
  }
  return content.subarray(0, size);
}

function newFolder(): FolderNode {
  return { kind: 'folder', base: new Map(), changes: [] };
}

function namesIn(path: string): string[] {
  return path.split('/').filter((name) => name !== '');
}
