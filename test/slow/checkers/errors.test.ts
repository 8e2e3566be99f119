/** What a person sees where a command cannot do its work: one sentence on standard error, an exit code, and never a stack. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import t from 'tap';
import { newSecret } from '../../../src/commands/secret.js';
import { runCli } from '../../kit/service.js';

interface Case {
  readonly what: string;
  readonly args: readonly string[];
  /** Lines of config.yaml. None: no file. */
  readonly config?: readonly string[];
  /** Files to be there, by their paths; null: a secret. */
  readonly files?: Readonly<Record<string, string | null>>;
  readonly says: RegExp;
  readonly code: number;
}

const SECRETS = { 'data/secrets/edge': null, 'data/secrets/link': null };
const META = 'data/origin/meta/data.mdb';
const NOWHERE = 'postgres://user:a-password-of-its-own@127.0.0.1:1/media';

/** `port`: one that is taken. */
const casesOf = (port: number): readonly Case[] => [
  ...['origin', 'fsck', 'scrub', 'backup ./copy'].map((command) => ({
    what: `${command}: the metadata file is something else`,
    args: command.split(' '),
    files: { ...SECRETS, [META]: 'something else '.repeat(1_000) },
    says: /data\.mdb cannot be opened: it is not an LMDB file/,
    code: command === 'origin' ? 1 : 2,
  })),
  ...['origin', 'edge', 'dev'].map((command) => ({
    what: `${command}: a file is in the place of the data folder`,
    args: [command],
    files: { data: 'a file' },
    says: command === 'dev' ? /data.*: a part of it is a file and not a folder/ : /cannot be read/,
    code: command === 'dev' ? 1 : 2,
  })),
  ...['origin', 'edge'].map((command) => ({
    what: `${command}: the port is taken`,
    args: [command],
    config: [`${command}: { listen: { port: ${port} } }`],
    files: SECRETS,
    says: /another process already listens on 127\.0\.0\.1:\d+/,
    code: 1,
  })),
  ...['origin', 'fsck', 'scrub'].map((command) => ({
    what: `${command}: there is no database`,
    args: [command],
    config: [
      'origin:',
      '  meta: { adaptor: postgres, postgres: { url: file:./url } }',
      '  blobs: { folder_shared: true }',
      '  operators: { port: 0 }',
      '  listen: { port: 0 }',
    ],
    files: { ...SECRETS, url: NOWHERE },
    says: /127\.0\.0\.1:1\b/,
    code: command === 'origin' ? 1 : 2,
  })),
  { what: 'a secret is missing', args: ['edge'], says: /edge_secret: .*cannot be read/, code: 2 },
  {
    what: 'a key is misspelt',
    args: ['check'],
    config: ['edge: { cahce: {} }'],
    files: SECRETS,
    says: /line 1.*`cahce` .*; did you mean `cache`\?/s,
    code: 2,
  },
  { what: 'a file is no YAML', args: ['check'], config: ['edge: ['], says: /config\.yaml/, code: 2 },
  { what: 'there is no such command', args: ['sevre'], says: /unknown command 'sevre'/, code: 1 },
  { what: 'there is no such option', args: ['fsck', '--mend'], says: /unknown option '--mend'/, code: 1 },
  { what: 'no origin runs', args: ['thumbs', 'status'], files: SECRETS, says: /No origin answers at/, code: 2 },
  { what: 'there is no trace', args: ['simulate', '--trace', './none'], files: SECRETS, says: /none/, code: 1 },
  { what: 'no edge runs', args: ['top'], files: SECRETS, says: /No edge answers at/, code: 2 },
];

void t.test('a command that fails says why in a sentence', { timeout: 300_000 }, async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const address = taken.address();
  const cases = casesOf(typeof address === 'object' && address !== null ? address.port : 0);
  const root = t.testdir();
  const one = async ({ what, args, config, files = {}, says, code }: Case, index: number): Promise<void> => {
    const folder = join(root, String(index));
    mkdirSync(folder);
    if (config !== undefined) writeFileSync(join(folder, 'config.yaml'), `${config.join('\n')}\n`);
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true, mode: 0o700 });
      writeFileSync(join(folder, path), text ?? newSecret(), { mode: 0o600 });
    }
    const ran = await runCli(folder, args);
    // A process logs before it fails; that goes to standard output, a line each.
    const said = ran.err + (args[0] === 'origin' || args[0] === 'edge' ? '' : ran.out);
    t.equal(ran.code, code, `${what}: ${ran.err}`);
    t.match(ran.err, says, what);
    t.notMatch(said, /\n\s+at |Error: /, what);
    t.notMatch(ran.err + ran.out, /a-password-of-its-own/, what);
    t.ok(ran.err.trimEnd().split('\n').length <= 4, `${what}: ${ran.err}`);
  };
  for (let at = 0; at < cases.length; at += 3) {
    await Promise.all(cases.slice(at, at + 3).map((each, index) => one(each, at + index)));
  }
  taken.close();
});
