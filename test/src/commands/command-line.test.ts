/** The small commands: version, secrets, completion, and what is said when something fails. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import t from 'tap';
import { completionFor, SHELLS } from '../../../src/commands/completion.js';
import { newSecret, writeSecret } from '../../../src/commands/secret.js';
import { ownVersion } from '../../../src/version.js';
import { runCli } from '../../kit/service.js';

void t.test('a secret is new each time, and a file is never replaced', async (t) => {
  t.match(newSecret(), /^[A-Za-z0-9_-]{43}$/);
  t.not(newSecret(), newSecret());
  const path = join(t.testdir(), 'secrets', 'edge');
  t.equal(await writeSecret(path), true);
  const text = await readFile(path, 'utf8');
  t.match(text, /^[A-Za-z0-9_-]{43}\n$/);
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.equal(await writeSecret(path), false);
  t.equal(await readFile(path, 'utf8'), text);
});

void t.test('each shell completes the commands, their options and the words that they take', async (t) => {
  const program = new Command('media-service');
  program
    .command('check')
    .description(`it's a "check": [all]`)
    .option('--live', 'try `it`')
    .addOption(new Option('--as <process>', 'which').choices(['edge', 'origin']));
  for (const shell of SHELLS) {
    const script = completionFor(shell, program);
    for (const word of ['check', 'live', 'as', 'edge', 'origin', 'help']) t.match(script, word, `${shell}: ${word}`);
    t.notMatch(script, /it's|`it`|\[all\]/, 'nothing that a shell would read as its own');
  }
});

void t.test('the command line says its version and its exit codes, and a failure is a sentence', async (t) => {
  const folder = t.testdir({ data: 'a file in the place of the folder' });
  const [version, help, failed] = await Promise.all([
    runCli(folder, ['--version']),
    runCli(folder, ['--help']),
    runCli(folder, ['dev']),
  ]);
  t.same(version, { code: 0, out: `${ownVersion()}\n`, err: '' });
  t.match(ownVersion(), /^\d+\.\d+\.\d+/);
  t.match(help.out, /Examples:[\s\S]*Exit codes: 0 done/);
  t.equal(failed.code, 1);
  t.match(failed.err, /^media-service: .*data.*: a part of it is a file and not a folder \(ENOTDIR\)\n$/);
  t.notMatch(failed.err + failed.out, /\n\s+at /);
});
