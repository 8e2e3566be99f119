/** A copy of the build in which one module at a time is wrong, and the tests that are run there. */
import { cp, link, lstat, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { runTestFile } from '../test-process.js';
import type { Mutant } from './operators.js';

export type Verdict =
  | { readonly kind: 'noticed'; readonly by: string }
  /** Every test that runs the line passed. */
  | { readonly kind: 'survived' }
  /** Those that were run within the allowed time passed; others were not run. */
  | { readonly kind: 'survived so far' }
  | { readonly kind: 'not covered' };

export type Trial = {
  readonly module: string;
  readonly mutant: Mutant;
  /** Test files in the order in which they are run, with how long each takes unharmed. */
  readonly tests: readonly { readonly file: string; readonly tookMs: number }[];
};

export type Sandbox = {
  /** Runs the tests until one fails, or until those that were run take longer than `budgetMs`. */
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

  return {
    async tryOut({ module, mutant, tests }, budgetMs) {
      if (tests.length === 0) return { kind: 'not covered' };
      const place = join(root, module);
      const text = await readFile(module, 'utf8');
      await replace(place, text.slice(0, mutant.start) + mutant.replacement + text.slice(mutant.end));
      try {
        let spentMs = 0;
        for (const { file, tookMs } of tests) {
          if (spentMs > 0 && spentMs + tookMs > budgetMs) return { kind: 'survived so far' };
          const withinSeconds = Math.max(HANGS_MIN_SECONDS, Math.ceil((tookMs * HANGS_FACTOR) / 1_000));
          const result = await runTestFile({ root, file, withinSeconds, loud: false });
          if (result.outcome !== 'passed') return { kind: 'noticed', by: file };
          spentMs += tookMs;
        }
        return { kind: 'survived' };
      } finally {
        await replace(place, text);
      }
    },
    remove: () => rm(root, { recursive: true, force: true }),
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
