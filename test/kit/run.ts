/**
 * Runs test files, each in a process of its own or several small ones in one (runner/groups.ts), and some at the same time:
 *
 *   node dist/test/kit/run.js [--jobs NUMBER] [--timeout SECONDS] [FILE...]
 *
 * Without files it runs the quick tests. The timeout is that of one file. Into the folder TEST_COVERAGE, where that is set,
 * it puts what each test file covers of the product's code, for `npm run mutate` and for `c8 report`: then each has its own process. The command `tap` does the same, but loads
 * every process, those too that a test starts, through module hooks, which doubles the time of a run.
 */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type CoverageFolder, coverageOf } from './mutate/coverage.js';
import { type FileOutput, groupsOf, outputsOf } from './runner/groups.js';
import Summary from './runner/tap-summary.js';
import { runTestFile } from './runner/test-process.js';
import { FILE_HANGS_AFTER_MS } from './until.js';

const TOGETHER = join('dist', 'test', 'kit', 'runner', 'together.js');
/** They have scripts of their own in .ci/suites. */
const NOT_QUICK = ['slow', 'browser'];

const { values, positionals } = parseArgs({
  options: {
    // One more than processors, as tests also wait.
    jobs: { type: 'string', default: String(availableParallelism() + 1) },
    timeout: { type: 'string', default: String(FILE_HANGS_AFTER_MS / 1_000) },
  },
  allowPositionals: true,
});
const files = positionals.length > 0 ? [...new Set(positionals)] : quickTests();
const folder = process.env['TEST_COVERAGE'];
const coverage: CoverageFolder | null = folder === undefined || folder === '' ? null : coverageOf(folder);
const summary = new Summary();
summary.pipe(process.stdout);
const groups = coverage === null ? groupsOf(files) : files.map((file) => [file]);
let started = 0;
let reported = 0;
await Promise.all(Array.from({ length: Number(values.jobs) }, runInTurn));
summary.end(`1..${reported}\n`);

/** By their sources: `dist` may hold tests that have moved since. */
function quickTests(): readonly string[] {
  return readdirSync('test', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts') && !NOT_QUICK.some((folder) => name.startsWith(`${folder}/`)))
    .map((name) => join('dist', 'test', name.replace(/ts$/, 'js')))
    .sort();
}

async function runInTurn(): Promise<void> {
  for (let group = groups[started]; group !== undefined; group = groups[started]) {
    started += 1;
    const [file, ...others] = group;
    for (const each of others.length === 0 ? [await runAlone(file ?? '')] : await runTogether(group)) report(each);
  }
}

async function runAlone(file: string): Promise<FileOutput> {
  const env = coverage?.envOf(file);
  const { outcome, output, tookMs } = await runTestFile({
    file,
    withinSeconds: Number(values.timeout),
    ...(env === undefined ? {} : { env }),
  });
  await coverage?.keep(file, tookMs);
  return { file, output, passed: outcome === 'passed', tookMs };
}

async function runTogether(group: readonly string[]): Promise<readonly FileOutput[]> {
  const withinSeconds = Number(values.timeout);
  const { outcome, output } = await runTestFile({ file: TOGETHER, runs: group, withinSeconds });
  const outputs = outputsOf(group, output);
  if (outcome === 'passed' || outputs.some(({ passed }) => !passed)) return outputs;
  // All tests have passed, and yet the process did not end as it should.
  const whole = {
    file: group.join(' + '),
    output: `not ok 1 - the process: ${outcome}\n1..1\n`,
    passed: false,
    tookMs: 0,
  };
  return [...outputs, whole];
}

/** Writes the file's output as a TAP subtest. */
function report({ file, output, passed, tookMs }: FileOutput): void {
  if (!passed) process.exitCode = 1;
  reported += 1;
  const result = `${passed ? 'ok' : 'not ok'} ${reported} - ${file} # time=${tookMs}ms`;
  summary.write(`# Subtest: ${file}\n${output.replace(/^(?=.)/gm, '    ')}${result}\n`);
}
