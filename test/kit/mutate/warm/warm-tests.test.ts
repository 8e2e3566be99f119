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
    'failing.test.js': `${TEST} void t.test('three', async (t) => { t.equal(two(), 3); });`,
  });
  const tests = createWarmTests(root);
  t.teardown(() => tests.close());
  const put = (text: string): Promise<void> => writeFile(join(root, 'product.js'), text);
  const run = (file: string): Promise<string> => tests.run(file, 'product.js', WITHIN_MS, () => put(RIGHT));

  t.equal(await run('sound.test.js'), 'passed');
  const wrongs = {
    'an assertion fails': 'export const two = () => 3;',
    'it does not load': 'export const three = 3;',
    'it throws later': 'setImmediate(() => { throw new Error(); }); export const two = () => 2;',
    'it ends the process': 'process.exit();',
  };
  for (const [name, wrong] of Object.entries(wrongs)) {
    await put(wrong);
    t.equal(await run('sound.test.js'), 'failed', name);
    t.equal(await run('sound.test.js'), 'passed', `${name}, and not once the right line is back`);
  }
  t.equal(await run('failing.test.js'), 'unclear', 'it fails without a wrong line');
});
