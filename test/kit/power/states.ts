/**
 * The disks that a power cut could leave at one moment: for everything that no sync has made certain, whether it got
 * there. All of them are too many. Those where everything or nothing did, where names and bytes differ, and where one
 * thing differs from all others are always tried; more are drawn, with writes that are torn between two sectors.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { contentWith, type DataChange, type Disk, type FileNode, type FolderNode, type Inode } from './disk.js';

/** Files and folders by their paths. */
export type DiskState = ReadonlyMap<string, Buffer | 'folder'>;

/** What becomes of a write: `sized` makes the file as long, with zeros; `torn` keeps some sectors. */
export type Fate = 'kept' | 'lost' | 'sized' | 'torn';

/** Decides on everything that is not certain. */
export interface Cut {
  readonly what: string;
  ofData(change: DataChange): Fate;
  /** How many of the uncertain changes of one name got to the disk; `all` of them count, in their order. */
  ofName(folder: FolderNode, name: string, all: number): number;
}

const NOTHING = Buffer.alloc(0);
/** The least that a disk writes at once, and what file systems do. */
const SECTORS = [512, 4_096] as const;

/** The disk that a cut leaves. */
export function stateAfter(disk: Disk, cut: Cut, random: () => number): DiskState {
  const state = new Map<string, Buffer | 'folder'>();
  const contents = new Map<FileNode, Buffer>();
  const walk = (folder: FolderNode, path: string): void => {
    for (const [name, inode] of namesAfter(folder, cut)) {
      const at = path === '' ? name : `${path}/${name}`;
      if (inode.kind === 'folder') {
        state.set(at, 'folder');
        walk(inode, at);
        continue;
      }
      const content = contents.get(inode) ?? contentAfter(inode, cut, random);
      contents.set(inode, content);
      state.set(at, content);
    }
  };
  walk(disk.root, '');
  return state;
}

function namesAfter(folder: FolderNode, cut: Cut): ReadonlyMap<string, Inode> {
  const names = new Map(folder.base);
  for (const name of new Set(folder.changes.map((change) => change.name))) {
    const changes = folder.changes.filter((change) => change.name === name);
    const least = changes.findLastIndex(({ certain }) => certain) + 1;
    const kept = least + cut.ofName(folder, name, changes.length - least);
    const last = changes[kept - 1];
    if (last === undefined) continue;
    if (last.to === undefined) names.delete(name);
    else names.set(name, last.to);
  }
  return names;
}

function contentAfter(file: FileNode, cut: Cut, random: () => number): Buffer {
  if (file.changes.length === 0) return file.base;
  return contentWith(
    file.base,
    file.changes.flatMap((change) => changesKept(change, change.certain ? 'kept' : cut.ofData(change), random)),
  );
}

function changesKept(change: DataChange, fate: Fate, random: () => number): readonly DataChange[] {
  if (fate === 'lost') return [];
  if (fate === 'kept' || change.kind === 'resize') return [change];
  if (fate === 'sized') return [{ ...change, at: change.at + change.bytes.length, bytes: NOTHING }];
  return torn(change, random);
}

/** Some of the sectors that a write touches. */
function torn(change: DataChange & { kind: 'write' }, random: () => number): readonly DataChange[] {
  const sector = SECTORS[Math.floor(random() * SECTORS.length)] ?? SECTORS[0];
  const share = random();
  const kept: DataChange[] = [];
  for (let at = change.at; at < change.at + change.bytes.length; ) {
    const end = Math.min((Math.floor(at / sector) + 1) * sector, change.at + change.bytes.length);
    if (random() < share) kept.push({ ...change, at, bytes: change.bytes.subarray(at - change.at, end - change.at) });
    at = end;
  }
  return kept;
}

export interface CutOptions {
  /** How many are drawn at each moment, and of those where one thing differs. */
  readonly drawn: number;
  readonly single: number;
  readonly random: () => number;
}

/** The cuts to try at one moment. */
export function* cuts(disk: Disk, { drawn, single, random }: CutOptions): Generator<Cut, void> {
  const pending = uncertain(disk);
  yield everything('all', 'kept', true);
  if (pending.length === 0) return;
  yield everything('nothing', 'lost', false);
  yield everything('names alone', 'lost', true);
  yield everything('bytes alone', 'kept', false);
  yield everything('names and sizes', 'sized', true);
  for (const one of sample(pending, single, random)) {
    yield except(one, 'all but one', 'kept', true);
    yield except(one, 'one alone', 'lost', false);
  }
  const fates: readonly Fate[] = ['kept', 'lost', 'torn', 'torn', 'sized'];
  for (let nth = 0; nth < drawn; nth += 1) {
    yield {
      what: 'drawn',
      ofData: () => fates[Math.floor(random() * fates.length)] ?? 'kept',
      ofName: (_folder, _name, all) => Math.floor(random() * (all + 1)),
    };
  }
}

/** `names`: whether they got to the disk. */
export function everything(what: string, fate: Fate, names: boolean): Cut {
  return { what, ofData: () => fate, ofName: (_folder, _name, all) => (names ? all : 0) };
}

type Uncertain = DataChange | { readonly folder: FolderNode; readonly name: string };

/** One thing has the other fate. */
function except(one: Uncertain, what: string, fate: 'kept' | 'lost', names: boolean): Cut {
  const other = fate === 'kept' ? 'lost' : 'kept';
  return {
    what,
    ofData: (change) => (change === one ? other : fate),
    ofName(folder, name, all) {
      const isIt = 'folder' in one && one.folder === folder && one.name === name;
      return names === isIt ? 0 : all;
    },
  };
}

/** Everything below the root that may or may not be on the disk; also what is in folders whose names have ended. */
function uncertain(disk: Disk): readonly Uncertain[] {
  const found: Uncertain[] = [];
  const seen = new Set<Inode>();
  const walk = (inode: Inode): void => {
    if (seen.has(inode)) return;
    seen.add(inode);
    if (inode.kind === 'file') {
      found.push(...inode.changes.filter(({ certain }) => !certain));
      return;
    }
    const open = inode.changes.filter(({ certain }) => !certain);
    for (const name of new Set(open.map((change) => change.name))) found.push({ folder: inode, name });
    for (const child of inode.base.values()) walk(child);
    for (const { to } of inode.changes) if (to !== undefined) walk(to);
  };
  walk(disk.root);
  return found;
}

function sample<T>(all: readonly T[], size: number, random: () => number): readonly T[] {
  if (all.length <= size) return all;
  const left = [...all];
  return Array.from({ length: size }, () => left.splice(Math.floor(random() * left.length), 1)).flat();
}

const digests = new WeakMap<Buffer, string>();

/** The same for the same files with the same bytes. */
export function fingerprint(state: DiskState): string {
  const hash = createHash('sha1');
  for (const path of [...state.keys()].toSorted()) {
    const content = state.get(path);
    hash.update(`${path}\n${content === undefined || content === 'folder' ? 'folder' : digestOf(content)}\n`);
  }
  return hash.digest('base64');
}

function digestOf(content: Buffer): string {
  const known = digests.get(content);
  if (known !== undefined) return known;
  const digest = createHash('sha1').update(content).digest('base64');
  digests.set(content, digest);
  return digest;
}

/** Reads what is in a folder. */
export function readState(folder: string): DiskState {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true });
  return new Map(
    names.map((name) => {
      const path = join(name.parentPath, name.name);
      return [path.slice(folder.length + 1), name.isFile() ? readFileSync(path) : 'folder'];
    }),
  );
}

/** Writes a state to an empty folder. */
export function layOut(state: DiskState, folder: string): void {
  for (const [path, content] of state) {
    if (content === 'folder') mkdirSync(join(folder, path));
    else writeFileSync(join(folder, path), content, { mode: 0o600 });
  }
}
