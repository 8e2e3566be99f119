/**
 * Runs test files, each in a process of its own, several at the same time:
 *
 *   node dist/test/kit/run.js [--jobs NUMBER] [--timeout SECONDS] [FILE...]
 *
 * Without files it runs the quick tests. The timeout is that of one file. Into the folder TEST_COVERAGE, where that is set,
 * it puts what each test file covers of the product's code, for `npm run mutate` and for `c8 report`. The command `tap` does the same, but loads
 * every process, those too that a test starts, through module hooks, which doubles the time of a run.
 */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type CoverageFolder, coverageOf } from './mutate/coverage.js';
import Summary from './tap-summary.js';
import { runTestFile } from './test-process.js';
import { FILE_HANGS_AFTER_MS } from './until.js';

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
let started = 0;
await Promise.all(Array.from({ length: Number(values.jobs) }, runInTurn));
summary.end(`1..${files.length}\n`);

/** By their sources: `dist` may hold tests that have moved since. */
function quickTests(): readonly string[] {
  return readdirSync('test', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts') && !NOT_QUICK.some((folder) => name.startsWith(`${folder}/`)))
    .map((name) => join('dist', 'test', name.replace(/ts$/, 'js')))
    .sort();
}

async function runInTurn(): Promise<void> {
  for (let file = files[started]; file !== undefined; file = files[started]) {
    started += 1;
    summary.write(await run(file, started));
  }
}

/** Resolves with the file's output as a TAP subtest. */
async function run(file: string, number: number): Promise<string> {
  const env = coverage?.envOf(file);
  const { outcome, output, tookMs } = await runTestFile({
    file,
    withinSeconds: Number(values.timeout),
    ...(env === undefined ? {} : { env }),
  });
  if (outcome !== 'passed') process.exitCode = 1;
  await coverage?.keep(file, tookMs);
  const result = `${outcome === 'passed' ? 'ok' : 'not ok'} ${number} - ${file} # time=${tookMs}ms`;
  return `# Subtest: ${file}\n${output.replace(/^(?=.)/gm, '    ')}${result}\n`;
}
