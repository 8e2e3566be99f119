/**
 * Runs test files, each in a process of its own, several at the same time:
 *
 *   node dist/test/kit/run.js [--jobs NUMBER] [--timeout SECONDS] [FILE...]
 *
 * Without files it runs the quick tests. The timeout is that of one file. The command `tap` does the same, but loads every
 * process, those too that a test starts, through module hooks, which doubles the time of a run.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import Summary from './tap-summary.js';

/** They have scripts of their own in .ci/suites. */
const NOT_QUICK = ['slow', 'browser'];

const { values, positionals } = parseArgs({
  options: {
    // One more than processors, as tests also wait.
    jobs: { type: 'string', default: String(availableParallelism() + 1) },
    timeout: { type: 'string', default: '60' },
  },
  allowPositionals: true,
});
const files = positionals.length > 0 ? [...new Set(positionals)] : quickTests();
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
  const child = spawn(process.execPath, ['--enable-source-maps', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TAP_TIMEOUT: values.timeout, TAP_OMIT_VERSION: '1' },
  });
  const startedAt = performance.now();
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (code !== 0) {
    process.exitCode = 1;
    // A file with a failed test has reported it. One that ended otherwise may have reported nothing.
    if (!/^\s*not ok /m.test(output)) output += `not ok - it ended with ${String(code ?? signal)}\n`;
  }
  const result = `${code === 0 ? 'ok' : 'not ok'} ${number} - ${file} # time=${performance.now() - startedAt}ms`;
  return `# Subtest: ${file}\n${output.replace(/^(?=.)/gm, '    ')}${result}\n`;
}
