/** config.yaml is what operators read: every key, its default and its bounds as the code has them. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import t from 'tap';

void t.test('config.yaml says what the product does without a file', async (t) => {
  const { stdout } = await promisify(execFile)(process.execPath, ['dist/src/cli.js', 'config']);
  t.equal(stdout, await readFile('config.yaml', 'utf8'), 'media-service config > config.yaml writes it anew');
});
