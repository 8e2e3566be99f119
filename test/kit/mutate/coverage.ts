/**
 * What each test file covers, by V8's own counts. A folder holds `v8/TEST~coverage-….json` for each process that a test
 * file ran, in V8's format, cut down to the product's modules, and `times.json` with how long each test file took.
 * `c8 report --temp-directory FOLDER/v8` reads it too.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

type Range = { readonly startOffset: number; readonly endOffset: number; readonly count: number };
type Script = { readonly url: string; readonly functions: readonly { readonly ranges: readonly Range[] }[] };
type Report = { readonly result: readonly Script[]; readonly 'source-map-cache'?: Readonly<Record<string, unknown>> };

export type CoverageFolder = {
  /** The environment in which a test file must run, so that its counts are kept apart. */
  envOf(file: string): Readonly<Record<string, string>>;
  /** Cuts down and keeps what the test file's processes wrote. */
  keep(file: string, tookMs: number): Promise<void>;
};

export type Coverage = {
  /** The test files that run the code at an offset of a module, the quickest first. */
  testsOf(module: string, offset: number): readonly string[];
  tookMs(test: string): number;
};

const OWN = /\/dist\/(src|origin|edge)\//;
const TIMES = 'times.json';

export function coverageOf(folder: string): CoverageFolder {
  const root = resolve(folder);
  const times: Record<string, number> = {};
  const rawOf = (file: string): string => join(root, 'raw', nameOf(file));
  return {
    envOf: (file) => ({ NODE_V8_COVERAGE: rawOf(file) }),
    async keep(file, tookMs) {
      times[file] = tookMs;
      await mkdir(join(root, 'v8'), { recursive: true });
      for (const name of await namesIn(rawOf(file))) {
        const own = ownPart(await readReport(join(rawOf(file), name)));
        if (own !== null) await writeFile(join(root, 'v8', `${nameOf(file)}~${name}`), JSON.stringify(own));
      }
      await rm(rawOf(file), { recursive: true, force: true });
      await writeFile(join(root, TIMES), JSON.stringify({ ...(await readTimes(root)), ...times }));
    },
  };
}

/** Reads what was kept of the named modules, such as `dist/edge/main.js`. */
export async function readCoverage(folder: string, modules: ReadonlySet<string>): Promise<Coverage> {
  const times = await readTimes(folder);
  const byModule = new Map<string, Map<string, Range[][]>>();
  for (const name of await namesIn(join(folder, 'v8'))) {
    const test = fileOf(name.slice(0, name.indexOf('~')));
    const report = await readReport(join(folder, 'v8', name));
    for (const { url, functions } of report?.result ?? []) {
      // From its build folder on, so that a folder may come from another copy of the project.
      const module = url.slice(url.search(OWN) + 1);
      if (!modules.has(module)) continue;
      const tests = byModule.get(module) ?? new Map<string, Range[][]>();
      byModule.set(module, tests);
      const processes = tests.get(test) ?? [];
      tests.set(test, processes);
      processes.push(functions.flatMap((one) => one.ranges));
    }
  }
  return {
    testsOf: (module, offset) =>
      [...(byModule.get(module) ?? [])]
        .filter(([, processes]) => processes.some((ranges) => runs(ranges, offset)))
        .map(([test]) => test)
        .sort((a, b) => (times[a] ?? 0) - (times[b] ?? 0)),
    tookMs: (test) => times[test] ?? 0,
  };
}

/** The innermost range around the offset decides. */
export function runs(ranges: readonly Range[], offset: number): boolean {
  let innermost: Range | null = null;
  for (const range of ranges) {
    if (range.startOffset > offset || range.endOffset <= offset) continue;
    const narrower =
      innermost === null || range.endOffset - range.startOffset <= innermost.endOffset - innermost.startOffset;
    if (narrower) innermost = range;
  }
  return innermost !== null && innermost.count > 0;
}

function ownPart(report: Report | null): Report | null {
  const result = report?.result.filter(({ url }) => OWN.test(url)) ?? [];
  if (report === null || result.length === 0) return null;
  const maps = Object.entries(report['source-map-cache'] ?? {}).filter(([url]) => OWN.test(url));
  return { result, 'source-map-cache': Object.fromEntries(maps) };
}

/** Null for what a killed process left unfinished. */
async function readReport(path: string): Promise<Report | null> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Report;
  } catch {
    return null;
  }
}

async function readTimes(folder: string): Promise<Record<string, number>> {
  try {
    return JSON.parse(await readFile(join(folder, TIMES), 'utf8')) as Record<string, number>;
  } catch {
    return {};
  }
}

async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return (await readdir(folder)).filter((name) => name.endsWith('.json'));
  } catch {
    return [];
  }
}

function nameOf(file: string): string {
  return file.replaceAll('/', '+');
}

function fileOf(name: string): string {
  return name.replaceAll('+', '/');
}
