/**
 * Puts wrong lines into the product, one at a time, and says which of them the quick tests notice:
 *
 *   npm run mutate -- [--sample NUMBER] [--seed NUMBER] [--seconds NUMBER] [--jobs NUMBER] [--floor PERCENT]
 *                     [--within SECONDS] [--coverage FOLDER] [PATH...]
 *
 * Without paths it takes the whole product. A path is a source file or a folder. Without `--sample` it tries every wrong
 * line there. `--seconds` bounds the tests that are run for one wrong line: none is begun that would end later, and the line
 * is not judged (report.ts). `--within` bounds the whole run: no further wrong line is begun. What each test covers is read from FOLDER, which `npm run mutate` fills first where it is missing. Exits with 1 below the floor.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { seeded } from '../random.js';
import { type Coverage, readCoverage } from './coverage.js';
import { type Mutant, mutantsOf } from './operators.js';
import { createReport } from './report.js';
import { createSandbox, type Sandbox, type Trial } from './sandbox.js';

const FOLDERS = ['src', 'origin', 'edge'];
/** What the command line and the development mode print is for people, and benches are not the product. */
const LEFT_OUT = /^(src\/dev\/|src\/client\/)/;

const { values, positionals } = parseArgs({
  options: {
    sample: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    seconds: { type: 'string', default: '60' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    within: { type: 'string', default: 'Infinity' },
    floor: { type: 'string', default: '0' },
    coverage: { type: 'string', default: '.coverage/quick' },
  },
  allowPositionals: true,
});
// Handlers of `exit` end the test files that are under way, and remove the copies.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
const random = seeded(Number(values.seed));
if (!existsSync(join(values.coverage, 'times.json'))) await collectCoverage(values.coverage);
const sources = await sourcesIn(positionals.length > 0 ? positionals : FOLDERS);
const mutants = (await Promise.all(sources.map(mutantsIn))).flat();
const chosen = values.sample === undefined ? mutants : drawn(mutants, Number(values.sample));
process.stdout.write(
  `${chosen.length} of ${mutants.length} wrong lines in ${sources.length} files, seed ${values.seed}\n`,
);
const coverage = await readCoverage(values.coverage, new Set(chosen.map((one) => one.module)));
const report = createReport(chosen.length);
const waiting = [...chosen];
const endsAt = performance.now() + Number(values.within) * 1_000;
await Promise.all(Array.from({ length: Number(values.jobs) }, work));
process.exitCode = report.end(Number(values.floor));

type Placed = { readonly source: string; readonly module: string; readonly mutant: Mutant };

async function work(): Promise<void> {
  const sandbox: Sandbox = await createSandbox();
  try {
    for (let next = waiting.shift(); next !== undefined && performance.now() < endsAt; next = waiting.shift()) {
      const verdict = await sandbox.tryOut(trialOf(next, coverage), Number(values.seconds) * 1_000);
      report.add(next, verdict);
    }
  } finally {
    await sandbox.remove();
  }
}

/** The test file that mirrors the source comes first, then its neighbours, then all others; of each kind the quick ones. */
function trialOf({ source, module, mutant }: Placed, known: Coverage): Trial {
  const mirror = join('dist', 'test', source.replace(/ts$/, 'test.js'));
  const near = join('dist', 'test', dirname(source));
  const rankOf = (file: string): number => (file === mirror ? 0 : dirname(file) === near ? 1 : 2);
  const tests = known
    .testsOf(module, mutant.start)
    .map((file) => ({ file, tookMs: known.tookMs(file) }))
    .sort((a, b) => rankOf(a.file) - rankOf(b.file));
  return { module, mutant, tests };
}

async function mutantsIn(source: string): Promise<readonly Placed[]> {
  const module = join('dist', source.replace(/ts$/, 'js'));
  return mutantsOf(await readFile(module, 'utf8'), module).map((mutant) => ({ source, module, mutant }));
}

async function sourcesIn(paths: readonly string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const path of paths) {
    if (!(await stat(path)).isDirectory()) found.push(path);
    else for (const name of readdirSync(path, { recursive: true, encoding: 'utf8' })) found.push(join(path, name));
  }
  return [...new Set(found)].filter((name) => name.endsWith('.ts') && !LEFT_OUT.test(name)).sort();
}

function drawn<Item>(items: readonly Item[], count: number): readonly Item[] {
  const left = [...items];
  const taken: Item[] = [];
  while (taken.length < count && left.length > 0) taken.push(...left.splice(Math.floor(random() * left.length), 1));
  return taken;
}

async function collectCoverage(folder: string): Promise<void> {
  process.stdout.write('learning what each test covers\n');
  const child = spawn(process.execPath, ['dist/test/kit/run.js'], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, TEST_COVERAGE: folder },
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code === 0) return;
  await rm(folder, { recursive: true, force: true });
  throw new Error('the tests fail without a wrong line; `npm test` says where');
}
