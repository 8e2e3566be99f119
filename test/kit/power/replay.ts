/**
 * Runs the calls of a trace on the model of a disk, and stops after each step that could leave another disk behind. What
 * the traced process wrote to its notes is told in the same order, so that each stop knows what had been acknowledged.
 */
import { resolve } from 'node:path';
import { Disk, type Inode, present, sizeOf } from './disk.js';
import { bytesIn, descriptorIn, type FileCall } from './trace.js';

export interface Stop<Note> {
  readonly disk: Disk;
  /** Everything that was noted before. */
  readonly notes: readonly Note[];
  /** What the last step was, such as `fdatasync meta/data.mdb`. */
  readonly step: string;
}

interface OpenFile {
  readonly inode: Inode | 'notes';
  readonly path: string;
  readonly synced: boolean;
  readonly appends: boolean;
  /** Where the next write without a place goes. */
  at: number;
}

/** `root`: the folder that is modelled. It was empty. */
export function* replay<Note>(
  calls: readonly FileCall[],
  root: string,
  notesPath: string,
): Generator<Stop<Note>, void> {
  const disk = new Disk();
  const notes: Note[] = [];
  const open = new Map<number, OpenFile>();
  /** The steps of calls that end later. */
  const ends: { readonly at: number; readonly run: () => string | undefined }[] = [];

  function below(path: string): string | undefined {
    if (path === root) return '';
    return path.startsWith(`${root}/`) ? path.slice(root.length + 1) : undefined;
  }
  const later = (at: number, run: () => string | undefined): void => void ends.push({ at, run });
  const context: Context = { disk, open, below, later, notes, notesPath };

  function* finish(before: number): Generator<Stop<Note>, void> {
    ends.sort((a, b) => a.at - b.at);
    for (let end = ends[0]; end !== undefined && end.at < before; end = ends[0]) {
      ends.shift();
      const step = end.run();
      if (step !== undefined) yield { disk, notes, step };
    }
  }
  yield { disk, notes, step: 'nothing yet' };
  for (const call of calls) {
    yield* finish(call.began);
    const step = begin(context, call);
    if (step !== undefined) yield { disk, notes, step };
  }
  yield* finish(Number.POSITIVE_INFINITY);
}

interface Context {
  readonly disk: Disk;
  readonly open: Map<number, OpenFile>;
  readonly below: (path: string) => string | undefined;
  readonly later: (at: number, run: () => string | undefined) => void;
  readonly notes: unknown[];
  readonly notesPath: string;
}

/** The effects that a call has from its beginning on. Returns what it was if it has any. */
function begin(context: Context, call: FileCall): string | undefined {
  const { name, args } = call;
  switch (name) {
    case 'open':
    case 'creat':
    case 'openat':
      return beginOpen(context, call);
    case 'close':
      context.open.delete(descriptorIn(args[0] ?? '')?.fd ?? -1);
      return undefined;
    case 'lseek': {
      const file = context.open.get(descriptorIn(args[0] ?? '')?.fd ?? -1);
      if (file !== undefined) file.at = call.result;
      return undefined;
    }
    case 'write':
    case 'writev':
    case 'pwrite64':
    case 'pwritev':
    case 'pwritev2':
      return beginWrite(context, call);
    case 'ftruncate':
    case 'fsync':
    case 'fdatasync':
      return beginOnOpenFile(context, call);
    case 'mkdir':
    case 'mkdirat':
    case 'rmdir':
    case 'unlink':
    case 'unlinkat':
    case 'rename':
    case 'renameat':
    case 'renameat2':
    case 'link':
    case 'linkat':
      return beginNames(context, call);
    case 'mmap':
      return requireReadOnly(context, call);
    default:
      return requireElsewhere(context, call);
  }
}

function beginOpen({ disk, open, below, later, notesPath }: Context, call: FileCall): string | undefined {
  const [path = '', flags = ''] = pathsIn(call.args);
  const fd = call.result;
  const inside = below(path);
  let step: string | undefined;
  let inode: Inode | 'notes' | undefined = path === notesPath ? 'notes' : undefined;
  if (inside !== undefined) {
    inode = disk.find(inside);
    if (inode === undefined && /\bO_CREAT\b/.test(flags)) {
      inode = disk.makeFile(inside, call.ended);
      step = `create ${inside}`;
    }
    if (inode === undefined) throw new Error(`${inside} is opened and was never made`);
    if (inode.kind === 'file' && /\bO_TRUNC\b/.test(flags) && sizeOf(inode) > 0) {
      disk.resize(inode, 0, call.ended);
      step = `truncate ${inside}`;
    }
  }
  const opened = inode && {
    inode,
    path: inside ?? path,
    synced: /\bO_D?SYNC\b/.test(flags),
    appends: /\bO_APPEND\b/.test(flags),
    at: 0,
  };
  later(call.ended, () => {
    if (opened === undefined) open.delete(fd);
    else open.set(fd, opened);
    return undefined;
  });
  return step;
}

function beginWrite({ disk, open, later, notes }: Context, call: FileCall): string | undefined {
  const file = open.get(descriptorIn(call.args[0] ?? '')?.fd ?? -1);
  if (file === undefined || call.result === 0) return undefined;
  const bytes = bytesIn(call.args[1] ?? '').subarray(0, call.result);
  if (bytes.length !== call.result) throw new Error(`the trace lacks bytes that were written to ${file.path}`);
  const { inode, path } = file;
  if (inode === 'notes') {
    for (const line of bytes.toString().split('\n').slice(0, -1)) notes.push(JSON.parse(line));
    return undefined;
  }
  if (inode.kind !== 'file') throw new Error(`${path} is a folder and is written to`);
  const place = call.name === 'pwrite64' || call.name.startsWith('pwritev') ? Number(call.args[3]) : undefined;
  const at = file.appends ? sizeOf(inode) : (place ?? file.at);
  if (place === undefined) file.at = at + bytes.length;
  const change = disk.write(inode, at, bytes, call.ended);
  if (file.synced) later(call.ended, () => ends(() => disk.makeCertain(inode, change), `synced write ${path}`));
  return `write ${path}`;
}

function beginOnOpenFile({ disk, open, later }: Context, call: FileCall): string | undefined {
  const file = open.get(descriptorIn(call.args[0] ?? '')?.fd ?? -1);
  if (file === undefined || file.inode === 'notes') return undefined;
  const { inode, path } = file;
  if (call.name !== 'ftruncate') {
    later(call.ended, () => ends(() => disk.sync(inode, call.began), `${call.name} ${path}`));
    return undefined;
  }
  if (inode.kind !== 'file') throw new Error(`${path} is a folder and is truncated`);
  disk.resize(inode, Number(call.args[1]), call.ended);
  return `truncate ${path}`;
}

function ends(run: () => void, step: string): string {
  run();
  return step;
}

function beginNames({ disk, below }: Context, call: FileCall): string | undefined {
  const [first = '', second = ''] = pathsIn(call.args);
  const from = below(first);
  const to = below(second);
  const kind = call.name.replace(/at2?$/, '');
  const step = `${kind} ${from ?? first}${kind === 'rename' || kind === 'link' ? ` ${to ?? second}` : ''}`;
  if (kind === 'rename' || kind === 'link') {
    if (from === undefined && to === undefined) return undefined;
    if (from === undefined || to === undefined) throw new Error(`${step} leaves the folder that is modelled`);
    if (kind === 'rename') disk.rename(from, to, call.ended);
    else disk.link(from, to, call.ended);
    return step;
  }
  if (from === undefined || from === '') return undefined;
  if (kind === 'mkdir') disk.makeFolder(from, call.ended);
  else removeName(disk, from, call.ended);
  return step;
}

function removeName(disk: Disk, path: string, ended: number): void {
  const found = disk.find(path);
  if (found?.kind === 'folder' && present(found).size > 0) throw new Error(`${path} is removed and is not empty`);
  disk.setName(path, undefined, ended);
}

/** LMDB maps its lock file for writing, which no state needs. A mapping of any other file would go unseen. */
function requireReadOnly({ below }: Context, { args }: FileCall): undefined {
  const path = descriptorIn(args[4] ?? '')?.path ?? '';
  const writes = args[2]?.includes('PROT_WRITE') === true && args[3]?.includes('MAP_SHARED') === true;
  if (writes && below(path) !== undefined && !/(^|\/|-)lock(\.mdb)?$/.test(path)) {
    throw new Error(`${path} is mapped for writing`);
  }
}

function requireElsewhere({ below, open }: Context, { name, args }: FileCall): undefined {
  const paths = args.flatMap((arg) => descriptorIn(arg)?.path ?? []);
  const isOpen = args.some((arg) => open.has(descriptorIn(arg)?.fd ?? -1) && /<\\x2f/.test(arg));
  // Node has a ring for epoll, which changes no file, and only where it is asked to one that does, with a thread of its own.
  const usesRing = name === 'io_uring_setup' && args.join().includes('IORING_SETUP_SQPOLL');
  if (usesRing || isOpen || paths.some((path) => path !== '' && below(path) !== undefined)) {
    throw new Error(`the model does not know ${name}(${args.join(', ').slice(0, 200)})`);
  }
}

/** The arguments with each path resolved against the folder before it, where there is one. */
function pathsIn(args: readonly string[]): readonly string[] {
  const found: string[] = [];
  let folder = '/';
  for (const arg of args) {
    const descriptor = arg.startsWith('"') ? undefined : descriptorIn(arg);
    if (arg.startsWith('"')) found.push(resolve(folder, bytesIn(arg).toString()));
    else if (descriptor !== undefined && descriptor.path !== '') folder = descriptor.path;
    else found.push(arg);
  }
  return found;
}
