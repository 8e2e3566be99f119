/**
 * Reads the output of `strace -f -xx` about calls that change files. A call that other threads interrupt stands on two
 * lines, which are joined here. What cannot be read is an error: a call that was overlooked would make the test blind.
 */

/** One call of the traced process that succeeded, in any of its threads. `began` and `ended` count the lines: of two calls, the one that ended before the other began came first. */
export interface FileCall {
  readonly name: string;
  readonly args: readonly string[];
  readonly result: number;
  readonly began: number;
  readonly ended: number;
}

/** The calls that a recording has to show. Those with a question mark do not exist on every processor. */
const CALLS = [
  '?open,openat,?creat,close,lseek,dup,?dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate',
  '?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir',
  'fsync,fdatasync,sync,syncfs,sync_file_range,msync,mmap,copy_file_range,sendfile,splice,io_uring_setup',
  'clone,?clone3,?fork,?vfork',
].join(',');
const STRING_MAX = 16 * 2 ** 20;

export function straceArguments(outputPath: string): readonly string[] {
  return ['-f', '--seccomp-bpf', '-y', '-xx', '-s', String(STRING_MAX), '-e', `trace=${CALLS}`, '-o', outputPath];
}

const WHOLE = /^(\d+) +(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)/s;
const BEGUN = /^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$/s;
const RESUMED = /^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+|\?|0x[0-9a-f]+)/s;
/** Signals and ends of processes. */
const OTHER = /^\d+ +(---|\+\+\+) /;

interface Begun {
  readonly thread: string;
  readonly name: string;
  readonly args: string;
  readonly began: number;
}

/**
 * The calls of a trace that succeeded, in the order in which they began. Those of child processes are left out: they have
 * descriptors of their own.
 */
export function parseTrace(text: string): readonly FileCall[] {
  const calls: (FileCall & { readonly thread: string })[] = [];
  const open = new Map<string, Begun>();
  const add = ({ thread, name, args, began }: Begun, result: string, ended: number): void => {
    if (args.includes('"...')) throw new Error(`the trace cuts the data of ${name}`);
    const value = Number(result);
    if (value >= 0) calls.push({ thread, name, args: splitArguments(args), result: value, began, ended });
  };
  for (const [index, line] of text.split('\n').entries()) {
    if (line === '' || OTHER.test(line)) continue;
    const whole = WHOLE.exec(line);
    if (whole !== null) {
      add({ thread: whole[1] ?? '', name: whole[2] ?? '', args: whole[3] ?? '', began: index }, whole[4] ?? '', index);
      continue;
    }
    const begun = BEGUN.exec(line);
    if (begun !== null) {
      open.set(begun[1] ?? '', { thread: begun[1] ?? '', name: begun[2] ?? '', args: begun[3] ?? '', began: index });
      continue;
    }
    const resumed = RESUMED.exec(line);
    const first = open.get(resumed?.[1] ?? '');
    if (resumed === null || first === undefined || first.name !== resumed[2]) {
      throw new Error(`line ${index + 1} of the trace cannot be read: ${line.slice(0, 200)}`);
    }
    open.delete(resumed[1] ?? '');
    add({ ...first, args: first.args + (resumed[3] ?? '') }, resumed[4] ?? '', index);
  }
  const threads = new Set([/^\d+/.exec(text)?.[0] ?? '']);
  const ordered = calls.toSorted((a, b) => a.began - b.began);
  for (const { thread, name, args, result } of ordered) {
    if (name.startsWith('clone') && threads.has(thread) && args.join().includes('CLONE_THREAD')) {
      threads.add(String(result));
    }
  }
  return ordered.filter(({ thread, name }) => threads.has(thread) && !/^(clone3?|v?fork)$/.test(name));
}

/** Splits at the commas outside brackets. With -xx, texts contain neither. */
function splitArguments(text: string): readonly string[] {
  const found: string[] = [];
  let depth = 0;
  let from = 0;
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (sign === '[' || sign === '{') depth += 1;
    else if (sign === ']' || sign === '}') depth -= 1;
    else if (sign === ',' && depth === 0) {
      found.push(text.slice(from, at).trim());
      from = at + 1;
    }
  }
  if (text.trim() !== '') found.push(text.slice(from).trim());
  return found;
}

/** The bytes of `"\x61\x62"`, or of each such text in the vectors of writev, one after another. */
export function bytesIn(argument: string): Buffer {
  const texts = argument.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g);
  return Buffer.concat([...texts].map(([, text = '']) => Buffer.from(text.replaceAll('\\x', ''), 'hex')));
}

/** The number and the path of `21<\x2f\x74>`, or of AT_FDCWD with its path. Undefined if it is no descriptor. */
export function descriptorIn(argument: string): { readonly fd: number; readonly path: string } | undefined {
  const found = /^(-?\d+|AT_FDCWD)(?:<((?:\\x[0-9a-f]{2})*)>)?/.exec(argument);
  if (found === null) return undefined;
  const path = Buffer.from((found[2] ?? '').replaceAll('\\x', ''), 'hex').toString();
  return { fd: found[1] === 'AT_FDCWD' ? -100 : Number(found[1]), path };
}
