/** config.yaml is what operators read: every key, its default and its bounds as the code has them. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import t from 'tap';
import { entry as edge } from '../../edge/main.js';
import { entry as origin } from '../../origin/main.js';
import { parseConfig } from '../../src/config/load.js';

void t.test('config.yaml says what the product does without a file', async (t) => {
  const { stdout } = await promisify(execFile)(process.execPath, ['dist/src/cli.js', 'config']);
  t.equal(stdout, await readFile('config.yaml', 'utf8'), 'media-service config > config.yaml writes it anew');
});

void t.test('an example may stand in the place of its key as it is', async (t) => {
  const text = await readFile('config.yaml', 'utf8');
  const block = /^( *)(\w+): \[\]\n\1# For example:\n((?:\1# .*\n)+?)(?=\1# [A-Z]|\n)/gm;
  const secrets = { env: () => undefined, file: () => 'a secret of sufficient length for anything' };
  const keys: string[] = [];
  const used = text.replace(block, (_, _indent: string, key: string, lines: string) => {
    keys.push(key);
    return lines.replace(/^( *)# /gm, '$1');
  });
  t.same(keys, ['rules', 'rules'], 'the rules of retention, and those of the cache');
  t.notMatch(used, /# For example:/);
  for (const { sections } of [origin, edge]) {
    const loaded = parseConfig(used, sections, secrets);
    t.match(loaded, { kind: 'loaded' }, JSON.stringify(loaded));
    t.match(JSON.stringify(loaded), /"rules":\[\{.*?\},\{.*?\},\{/, 'three rules');
  }
});
