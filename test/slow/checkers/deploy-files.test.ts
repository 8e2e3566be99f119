/** What src/deploy has for systemd, nginx, HAProxy, logrotate and shells, each judged by the program that reads it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { runCli } from '../../kit/service.js';

const DEPLOY = fileURLToPath(new URL('../../../../src/deploy/', import.meta.url));
const CLI = fileURLToPath(new URL('../../../src/cli.js', import.meta.url));

interface Ran {
  readonly code: number | null;
  readonly said: string;
}

async function run(program: string, words: readonly string[]): Promise<Ran | undefined> {
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  try {
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, said };
  } catch {
    return undefined;
  }
}

/** A reason to skip, or false. */
async function lacks(program: string, asked = '--version'): Promise<string | false> {
  return (await run(program, [asked])) === undefined ? `${program} is not installed` : false;
}

async function certificate(t: Test): Promise<{ readonly folder: string }> {
  const folder = t.testdir();
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const words = [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-subj',
    '/CN=media.example',
    '-keyout',
    key,
    '-out',
    cert,
  ];
  await run('openssl', words);
  await writeFile(join(folder, 'both.pem'), Buffer.concat([await readFile(cert), await readFile(key)]));
  return { folder };
}

const read = (name: string): Promise<string> => readFile(join(DEPLOY, name), 'utf8');

void t.test('systemd reads the units without a remark', { skip: await lacks('systemd-analyze') }, async (t) => {
  const folder = t.testdir();
  for (const name of ['media-origin.service', 'media-edge.service']) {
    const unit = (await read(`systemd/${name}`))
      .replaceAll('/usr/bin/node', process.execPath)
      .replaceAll('/opt/media-service/dist/src/cli.js', CLI);
    await writeFile(join(folder, name), unit);
    const { code, said } = (await run('systemd-analyze', ['verify', '--man=no', join(folder, name)])) ?? {
      code: 1,
      said: '',
    };
    t.notMatch(said, new RegExp(name.replace('.', '\\.')), said);
    t.equal(code, 0, said);
  }
});

void t.test(
  'nginx reads its example',
  { skip: (await lacks('nginx', '-v')) || (await lacks('openssl', 'version')) },
  async (t) => {
    const { folder } = await certificate(t);
    const own = (await read('proxy/nginx.conf'))
      .replaceAll('/etc/media-service/tls', folder)
      .replace(/^ *listen \[::\].*$/m, '');
    await writeFile(join(folder, 'media.conf'), own);
    await mkdir(join(folder, 'logs'));
    const main = `pid ${folder}/pid; error_log ${folder}/logs/error.log; events {} http { access_log off; include ${folder}/media.conf; }`;
    await writeFile(join(folder, 'main.conf'), main);
    const { code, said } = (await run('nginx', ['-t', '-p', folder, '-c', join(folder, 'main.conf')])) ?? {
      code: 1,
      said: '',
    };
    t.equal(code, 0, said);
  },
);

void t.test(
  'HAProxy reads its examples',
  { skip: (await lacks('haproxy', '-v')) || (await lacks('openssl', 'version')) },
  async (t) => {
    const { folder } = await certificate(t);
    for (const name of ['haproxy-http.cfg', 'haproxy-tcp.cfg']) {
      await writeFile(join(folder, name), (await read(`proxy/${name}`)).replaceAll('/etc/media-service/tls', folder));
      const { code, said } = (await run('haproxy', ['-c', '-f', join(folder, name)])) ?? { code: 1, said: '' };
      t.equal(code, 0, `${name}: ${said}`);
    }
  },
);

void t.test('logrotate reads its file', { skip: await lacks('logrotate') }, async (t) => {
  const folder = t.testdir();
  await writeFile(
    join(folder, 'media-service'),
    (await read('logrotate/media-service')).replaceAll('su media media', 'su root root'),
    { mode: 0o644 },
  );
  const words = ['--debug', '--state', join(folder, 'state'), join(folder, 'media-service')];
  const { code, said } = (await run('logrotate', words)) ?? { code: 1, said: '' };
  t.equal(code, 0, said);
  t.notMatch(said, /error:/, said);
});

for (const shell of ['bash', 'zsh', 'fish']) {
  void t.test(`${shell} reads its completion`, { skip: await lacks(shell) }, async (t) => {
    const folder = t.testdir();
    const { code, out } = await runCli(folder, ['completion', shell]);
    t.equal(code, 0);
    await writeFile(join(folder, 'script'), out);
    const checked = await run(shell, ['-n', join(folder, 'script')]);
    t.same(checked, { code: 0, said: '' });
  });
}
