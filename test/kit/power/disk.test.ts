/** The model of a disk, by traces written out: what a sync makes certain, and what a power cut may still take. */
import t, { type Test } from 'tap';
import type { Disk } from './disk.js';
import { replay } from './replay.js';
import { type Cut, cuts, type DiskState, everything, stateAfter } from './states.js';
import { parseTrace } from './trace.js';

const hex = (text: string): string =>
  [...Buffer.from(text)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');

/** Lines as strace writes them, from lines with plain texts: `'…'` is a text, `<…>` the path of a descriptor. */
function traceOf(...lines: readonly string[]): string {
  return lines
    .map((line) => (/^\d/.test(line) ? line : `7 ${line}`))
    .map((line) => line.replace(/'([^']*)'/g, (_, text: string) => `"${hex(text)}"`))
    .map((line) => line.replace(/<(\/[^>]*)>/g, (_, path: string) => `<${hex(path)}>`))
    .join('\n');
}

function diskAfter(...lines: readonly string[]): Disk {
  let last: Disk | undefined;
  for (const { disk } of replay(parseTrace(traceOf(...lines)), '/d', '/notes')) last = disk;
  if (last === undefined) throw new Error('there is no step');
  return last;
}

const shown = (state: DiskState): Readonly<Record<string, string>> =>
  Object.fromEntries([...state].map(([path, content]) => [path, String(content).replaceAll('\0', '0')]));

/** What is left if nothing that is uncertain reached the disk, and if all of it did. */
function left(disk: Disk): readonly Readonly<Record<string, string>>[] {
  return [everything('', 'lost', false), everything('', 'kept', true)].map((cut) =>
    shown(stateAfter(disk, cut, () => 0)),
  );
}

const CREATE = "openat(AT_FDCWD</d>, 'a', O_WRONLY|O_CREAT, 0600) = 3</d/a>";
const WRITE = "write(3</d/a>, 'one', 3) = 3";
const OPEN_FOLDER = "openat(AT_FDCWD</d>, '/d', O_RDONLY) = 9</d>";

void t.test('what a power cut leaves of a file', (t) => {
  const table: readonly (readonly [what: string, lines: readonly string[], least: object, most: object])[] = [
    ['nothing is synced', [CREATE, WRITE], {}, { a: 'one' }],
    ['its bytes are, its name is not', [CREATE, WRITE, 'fsync(3</d/a>) = 0'], {}, { a: 'one' }],
    ['its name is, its bytes are not', [CREATE, WRITE, OPEN_FOLDER, 'fsync(9</d>) = 0'], { a: '' }, { a: 'one' }],
    [
      'both are',
      [CREATE, WRITE, 'fdatasync(3</d/a>) = 0', OPEN_FOLDER, 'fsync(9</d>) = 0'],
      { a: 'one' },
      { a: 'one' },
    ],
    [
      'a sync that failed',
      [CREATE, WRITE, 'fsync(3</d/a>) = -1 EIO (x)', OPEN_FOLDER, 'fsync(9</d>) = 0'],
      { a: '' },
      { a: 'one' },
    ],
    [
      'a write that came behind the sync',
      [CREATE, WRITE, 'fsync(3</d/a>) = 0', OPEN_FOLDER, 'fsync(9</d>) = 0', "pwrite64(3</d/a>, 'two', 3, 2) = 3"],
      { a: 'one' },
      { a: 'ontwo' },
    ],
    [
      'a write that had not ended when the sync began',
      [
        CREATE,
        OPEN_FOLDER,
        'fsync(9</d>) = 0',
        "7 write(3</d/a>, 'one', 3 <unfinished ...>",
        '8 fsync(3</d/a> <unfinished ...>',
        '7 <... write resumed>) = 3',
        '8 <... fsync resumed>) = 0',
      ],
      { a: '' },
      { a: 'one' },
    ],
    [
      'a write with O_DSYNC, and one without behind it',
      [
        "openat(AT_FDCWD</d>, 'a', O_WRONLY|O_CREAT|O_DSYNC, 0600) = 3</d/a>",
        OPEN_FOLDER,
        'fsync(9</d>) = 0',
        "writev(3</d/a>, [{iov_base='on', iov_len=2}, {iov_base='e', iov_len=1}], 2) = 3",
        "openat(AT_FDCWD</d>, 'a', O_WRONLY|O_APPEND) = 4</d/a>",
        "write(4</d/a>, 'two', 3) = 3",
      ],
      { a: 'one' },
      { a: 'onetwo' },
    ],
    [
      'cut after it was synced',
      [CREATE, WRITE, 'fsync(3</d/a>) = 0', OPEN_FOLDER, 'fsync(9</d>) = 0', 'ftruncate(3</d/a>, 1) = 0'],
      { a: 'one' },
      { a: 'o' },
    ],
    [
      'written behind a seek',
      [CREATE, 'lseek(3</d/a>, 2, SEEK_SET) = 2', WRITE, OPEN_FOLDER, 'fsync(9</d>) = 0'],
      { a: '' },
      { a: '00one' },
    ],
  ];
  for (const [what, lines, least, most] of table) t.same(left(diskAfter(...lines)), [least, most], what);
  t.end();
});

void t.test('what a power cut leaves of names', (t) => {
  const made = [CREATE, WRITE, 'fsync(3</d/a>) = 0', "mkdir('/d/f', 0700) = 0", OPEN_FOLDER, 'fsync(9</d>) = 0'];
  const sync = ["openat(AT_FDCWD</d>, '/d/f', O_RDONLY) = 8</d/f>", 'fsync(8</d/f>) = 0'];
  const table: readonly (readonly [what: string, lines: readonly string[], least: object, most: object])[] = [
    [
      'a rename is not synced',
      ["rename('/d/a', '/d/f/b') = 0"],
      { a: 'one', f: 'folder' },
      { f: 'folder', 'f/b': 'one' },
    ],
    [
      'the folder with the new name is synced',
      ["rename('/d/a', '/d/f/b') = 0", ...sync],
      { a: 'one', f: 'folder', 'f/b': 'one' },
      { f: 'folder', 'f/b': 'one' },
    ],
    ['a name ends', ["unlink('/d/a') = 0"], { a: 'one', f: 'folder' }, { f: 'folder' }],
    [
      'a link, and the end of the first name, of which the first is synced',
      ["link('/d/a', '/d/f/b') = 0", ...sync, "unlink('/d/a') = 0"],
      { a: 'one', f: 'folder', 'f/b': 'one' },
      { f: 'folder', 'f/b': 'one' },
    ],
    [
      'a synced name in a folder whose own name is not',
      [
        "mkdirat(AT_FDCWD</d>, '/d/g', 0700) = 0",
        "rename('/d/a', '/d/g/b') = 0",
        "openat(AT_FDCWD</d>, '/d/g', O_RDONLY) = 8</d/g>",
        'fsync(8</d/g>) = 0',
      ],
      { a: 'one', f: 'folder' },
      { f: 'folder', g: 'folder', 'g/b': 'one' },
    ],
  ];
  for (const [what, lines, least, most] of table) t.same(left(diskAfter(...made, ...lines)), [least, most], what);
  t.end();
});

void t.test('the cuts between nothing and all', (t) => {
  const tries = (disk: Disk): readonly string[] => {
    const states = [...cuts(disk, { drawn: 200, single: 9, random: cycling() })].map((cut) =>
      JSON.stringify(shown(stateAfter(disk, cut, cycling()))),
    );
    return [...new Set(states)].toSorted();
  };
  const two = [CREATE, WRITE, "openat(AT_FDCWD</d>, 'b', O_WRONLY|O_CREAT, 0600) = 4</d/b>"];
  const all = ['{"a":"000","b":""}', '{"a":"000"}', '{"a":"","b":""}', '{"a":""}', '{"a":"one","b":""}', '{"a":"one"}'];
  t.same(tries(diskAfter(...two)), [...all, '{"b":""}', '{}'].toSorted(), 'each by itself, and sizes without bytes');

  const sectors = diskAfter(CREATE, `write(3</d/a>, '${'x'.repeat(1_024)}', 1024) = 1024`);
  const torn: Cut = { what: '', ofData: () => 'torn', ofName: (_folder, _name, names) => names };
  const draws = [0, 0.5, 0.4, 0.6];
  const { a = '' } = shown(stateAfter(sectors, torn, () => draws.shift() ?? 0));
  t.same([a.length, new Set(a)], [512, new Set(['x'])], 'the first of two sectors');
  t.end();
});

void t.test('what the model does not know is an error', (t) => {
  const wrong =
    (...lines: readonly string[]) =>
    () =>
      void diskAfter(...lines);
  t.throws(wrong(CREATE, 'fallocate(3</d/a>, 0, 0, 9) = 0'), /does not know fallocate/);
  t.throws(wrong(CREATE, 'mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d/a>, 0) = 0x7f'), /mapped for writing/);
  t.throws(wrong('io_uring_setup(64, {flags=IORING_SETUP_SQPOLL}) = 5'), /does not know io_uring_setup/);
  t.doesNotThrow(wrong('io_uring_setup(256, {flags=0x10000}) = 5'), 'the ring for epoll');
  t.throws(wrong('write(3</d/a> what'), /cannot be read/);
  t.throws(wrong(CREATE, "write(3</d/a>, 'one'..., 9) = 9"), /cuts the data/);
  t.throws(wrong("rename('/d/a', '/e/a') = 0"), /leaves the folder/);
  t.end();
});

void t.test('child processes have descriptors of their own', (t: Test) => {
  const disk = diskAfter(
    CREATE,
    '7 clone(child_stack=NULL, flags=CLONE_VFORK|SIGCHLD) = 70',
    '70 close(3</d/a>) = 0',
    '7 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD) = 8',
    "8 write(3</d/a>, 'one', 3) = 3",
  );
  t.same(left(disk), [{}, { a: 'one' }]);
  t.end();
});

/** Numbers from 0 to 1 in a fixed order that repeats late. */
function cycling(): () => number {
  let at = 0;
  return () => {
    at = (at + 0.618_033_988_75) % 1;
    return at;
  };
}
