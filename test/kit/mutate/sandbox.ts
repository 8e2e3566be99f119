/**
 * A copy of the build in which one module at a time is wrong, and the tests that are run there: in a process that stays
 * where they can be, so that processes which a test starts meet the wrong line too, and otherwise in one of their own.
 */
import { rmSync } from 'node:fs';
import { cp, link, lstat, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { runTestFile, type TestResult } from '../runner/test-process.js';
import type { Mutant } from './operators.js';
import { createWarmTests, type WarmVerdict } from './warm/warm-tests.js';

export type Verdict =
  | { readonly kind: 'noticed'; readonly by: string }
  /** Every test that runs the line passed. */
  | { readonly kind: 'survived' }
  /** Those that were run within the allowed time passed; others were not run. */
  | { readonly kind: 'out of time' }
  | { readonly kind: 'not covered' };

export type Trial = {
  readonly module: string;
  readonly mutant: Mutant;
  /** Test files in the order in which they are run, with how long each takes unharmed. */
  readonly tests: readonly { readonly file: string; readonly tookMs: number }[];
};

export type Sandbox = {
  /** Runs the tests until one fails. After the first it begins none that would end after `budgetMs`, by its usual time. */
  tryOut(trial: Trial, budgetMs: number): Promise<Verdict>;
  remove(): Promise<void>;
};

/** A test that takes this many times as long as unharmed hangs. */
const HANGS_FACTOR = 4;
const HANGS_MIN_SECONDS = 10;

/** What each copy has of its own: the build, and the folders of its tests. */
const OWN: ReadonlySet<string> = new Set(['dist', '.git', '.tap']);

export async function createSandbox(): Promise<Sandbox> {
  const root = await mkdtemp(join(tmpdir(), 'mutants-'));
  for (const name of await readdir('.')) {
    if (!OWN.has(name)) await symlink(resolve(name), join(root, name));
  }
  await linkTree('dist', join(root, 'dist'));
  const warm = createWarmTests(root);
  const onExit = (): void => rmSync(root, { recursive: true, force: true });
  process.once('exit', onExit);

  return {
    async tryOut({ module, mutant, tests }, budgetMs) {
      if (tests.length === 0) return { kind: 'not covered' };
      const place = join(root, module);
      const text = await readFile(module, 'utf8');
      const wrong = text.slice(0, mutant.start) + mutant.replacement + text.slice(mutant.end);
      const put = { wrong: () => replace(place, wrong), right: () => replace(place, text) };
      const startedAt = performance.now();
      try {
        for (const { file, tookMs } of tests) {
          const spentMs = performance.now() - startedAt;
          if (spentMs > budgetMs || (file !== tests[0]?.file && spentMs + tookMs > budgetMs))
            return { kind: 'out of time' };
          const withinMs = Math.max(HANGS_MIN_SECONDS * 1_000, tookMs * HANGS_FACTOR);
          let outcome: WarmVerdict | TestResult['outcome'] = await warm.run(file, module, withinMs, put);
          if (outcome === 'unclear') {
            await put.wrong();
            ({ outcome } = await runTestFile({ root, file, withinSeconds: Math.ceil(withinMs / 1_000), loud: false }));
          }
          if (outcome !== 'passed') return { kind: 'noticed', by: file };
        }
        return { kind: 'survived' };
      } finally {
        await put.right();
      }
    },
    async remove() {
      warm.close();
      process.off('exit', onExit);
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** Never writes into a file that the build itself links to. */
async function replace(path: string, text: string): Promise<void> {
  await rm(path);
  await writeFile(path, text);
}

async function linkTree(from: string, to: string): Promise<void> {
  await cp(from, to, { recursive: true, filter: async (path) => (await lstat(path)).isDirectory() });
  for (const name of await readdir(from, { recursive: true })) {
    if (!(await lstat(join(from, name))).isDirectory())
      await link(join(from, name), join(to, name)).catch(() => cp(join(from, name), join(to, name)));
  }
}
