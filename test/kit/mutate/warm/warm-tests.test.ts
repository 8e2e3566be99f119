/** Test files that run again and again in a process that stays. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { createWarmTests } from './warm-tests.js';

const WITHIN_MS = 60_000;
const RIGHT = 'export const two = () => 1 + 1;';
const TEST = "import t from 'tap';\nimport { two } from './product.js';\n";

void t.test('a file in a process that stays', async (t) => {
  const root = t.testdir({
    'package.json': JSON.stringify({ type: 'module' }),
    'product.js': RIGHT,
    'sound.test.js': `${TEST} void t.test('two', async (t) => { t.equal(two(), 2); });`,
    'chance.test.js': `${TEST} void t.test('chance', async (t) => { t.equal(two() + (globalThis.n = (globalThis.n ?? 0) + 1) > 3, true); });`,
    'failing.test.js': `${TEST} void t.test('three', async (t) => { t.equal(two(), 3); });`,
  });
  const tests = createWarmTests(root);
  t.teardown(() => tests.close());
  const put = (text: string): Promise<void> => writeFile(join(root, 'product.js'), text);
  const run = (file: string, wrong: string): Promise<string> =>
    tests.run(file, 'product.js', WITHIN_MS, { wrong: () => put(wrong), right: () => put(RIGHT) });

  t.equal(await run('sound.test.js', RIGHT), 'passed');
  const wrongs = {
    'an assertion fails': 'export const two = () => 3;',
    'it does not load': 'export const three = 3;',
    'it throws later': 'setImmediate(() => { throw new Error(); }); export const two = () => 2;',
    'it ends the process': 'process.exit();',
  };
  for (const [name, wrong] of Object.entries(wrongs)) {
    t.equal(await run('sound.test.js', wrong), 'failed', name);
    t.equal(await run('sound.test.js', RIGHT), 'passed', `${name}, and not once the right line is back`);
  }
  t.equal(await run('failing.test.js', 'export const two = () => 4;'), 'unclear', 'it fails without a wrong line');
  t.equal(await run('failing.test.js', 'export const two = () => 3;'), 'unclear', 'and a process of its own decides');
  t.equal(await run('chance.test.js', RIGHT), 'unclear', 'it fails once');
});
