/**
 * Which test files run in one process, and what each of them printed there. A process costs a third of a second before its first test, which is more than most
 * tests of rules take. Files share one if neither they nor what they use of the kit opens sockets, starts processes or
 * changes the process that they are in: the next file would meet it.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** So few that a group takes no longer than the longest files. */
const GROUP_MAX = 12;

const IMPORT = /(?:^(?:import|export)\b[^;]*?from |\bimport\()'([^']+)'/gm;
const ALONE_BY_IMPORT =
  /^node:(?:child_process|cluster|dgram|dns|http|https|http2|inspector|module|net|tls|v8|vm|worker_threads)$/;
/** What a process has once: its signals, its environment, hooks of all its tests, and timers that do not keep it alive. */
const ALONE_BY_TEXT = /\bprocess\.(?:chdir|emit|env|exit|kill|o[nf]|std|umask)|^(?:await )?t\.(?!test\b)|keepAlive/m;

/** Before the name of a file: a test that passes under this name once all tests of the file have ended (together.ts). */
export const END = 'end of ';

export type FileOutput = {
  readonly file: string;
  /** As if the file had been alone. */
  readonly output: string;
  readonly passed: boolean;
  readonly tookMs: number;
};

type Source = { readonly text: string; readonly imports: readonly string[] };

/** Compiled test files, in groups, those of more than one first. */
export function groupsOf(files: readonly string[]): readonly (readonly string[])[] {
  const sources = new Map<string, Source>();
  const shared = files.filter((file) => reached(sourcePathOf(file), sources).every(mayShare));
  const isShared = new Set(shared);
  const groups: (readonly string[])[] = [];
  for (let at = 0; at < shared.length; at += GROUP_MAX) groups.push(shared.slice(at, at + GROUP_MAX));
  return [...groups, ...files.filter((file) => !isShared.has(file)).map((file) => [file])];
}

/** Takes apart what a group printed. Behind a file that ended the process, the others are reported as not run. */
export function outputsOf(files: readonly string[], output: string): readonly FileOutput[] {
  let rest = output;
  let isBroken = false;
  return files.map((file) => {
    if (isBroken) return { file, output: 'not ok 1 - it did not run\n1..1\n', passed: false, tookMs: 0 };
    const end = new RegExp(`^# Subtest: ${END}${file}\\n(?: .*\\n|\\n)*ok \\d+ - ${END}${file} .*\\n`, 'm').exec(rest);
    isBroken = end === null;
    const own = rest.slice(0, end?.index);
    rest = end === null ? '' : rest.slice(end.index + end[0].length);
    return { file, ...renumbered(own, isBroken) };
  });
}

/** Tests that begin with number one, and their plan. */
function renumbered(text: string, isBroken: boolean): Omit<FileOutput, 'file'> {
  let count = 0;
  let tookMs = 0;
  const output = text
    .replace(/^(?:TAP version .*|1\.\..*)\n/gm, '')
    .replace(/^((?:not )?ok) \d+(.*)/gm, (_, outcome: string, name: string) => {
      count += 1;
      tookMs += Number(/# time=([\d.]+)ms$/.exec(name)?.[1] ?? 0);
      return `${outcome} ${count}${name}`;
    });
  if (!isBroken) return { output: `${output}1..${count}\n`, passed: !/^not ok /m.test(output), tookMs };
  return { output: `${output}not ok ${count + 1} - it ended the process\n1..${count + 1}\n`, passed: false, tookMs };
}

function mayShare({ text, imports }: Source): boolean {
  return !ALONE_BY_TEXT.test(text) && !imports.some((name) => ALONE_BY_IMPORT.test(name));
}

/** A file and all that it uses of the tests and their kit, through others too. */
function reached(path: string, sources: Map<string, Source>): readonly Source[] {
  const paths = new Set([path]);
  for (const each of paths) {
    for (const name of sourceOf(each, sources).imports) {
      const other = join(dirname(each), name).replace(/js$/, 'ts');
      if (name.startsWith('.') && other.startsWith('test/')) paths.add(other);
    }
  }
  return [...paths].map((each) => sourceOf(each, sources));
}

function sourceOf(path: string, sources: Map<string, Source>): Source {
  const known = sources.get(path);
  if (known !== undefined) return known;
  const text = readFileSync(path, 'utf8');
  const source = { text, imports: [...text.matchAll(IMPORT)].map((match) => match[1] ?? '') };
  sources.set(path, source);
  return source;
}

function sourcePathOf(file: string): string {
  return file.replace(/^dist\//, '').replace(/js$/, 'ts');
}
