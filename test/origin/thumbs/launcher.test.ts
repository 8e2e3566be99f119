import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { openLauncher } from '../../../origin/thumbs/render/launcher.js';
import { NO_LIMITS } from '../../../origin/thumbs/render/limits.js';
import { createLog } from '../../../src/log.js';
import { openThumbFixture } from '../../kit/origin/thumb-fixture.js';
import { untilAsync } from '../../kit/until.js';

const log = createLog('test', { level: 'silent' });
const skip = process.platform === 'linux' ? false : 'only Linux shows descriptors and privileges';

/** What a shell adds, and what Node adds where coverage is measured. */
const USUAL = new Set(['PATH', 'HOME', 'TMPDIR', 'LC_ALL', 'PWD', 'OLDPWD', '_', 'SHLVL', 'NODE_V8_COVERAGE']);

const all = async (stream: Readable | null): Promise<string> => (stream === null ? '' : text(stream));

/** What a program that was taken over finds: regular files that are open, its environment, the network. */
const LOOK = `
const { fstatSync, readdirSync, readFileSync } = require('node:fs');
const files = readdirSync('/proc/self/fd').filter((each) => {
  try { return fstatSync(Number(each)).isFile(); } catch { return false; }
});
const status = readFileSync('/proc/self/status', 'latin1');
const field = (name) => new RegExp('^' + name + ':\\\\s*(\\\\S+)', 'm').exec(status)?.[1];
const seen = { files, env: Object.keys(process.env), folder: process.cwd(), noNewPrivileges: field('NoNewPrivs') };
const tell = (network) => process.stdout.write(JSON.stringify({ ...seen, capabilities: field('CapEff'), network }));
require('node:net').connect(Number(process.argv[1]), '127.0.0.1')
  .on('connect', function () { this.destroy(); tell('reached'); })
  .on('error', (error) => tell(error.code));
`;

void t.test('a program that reads media has its own pipes and no network', { skip }, async (t) => {
  const folder = t.testdir({ own: {} });
  const fixture = await openThumbFixture(folder);
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(async () => {
    server.close();
    await fixture.close();
  });
  const own = join(folder, 'own');
  const launcher = await openLauncher(own, log);
  const { port } = server.address() as AddressInfo;
  const look = async (network: 'none' | 'shared'): Promise<Record<string, unknown>> => {
    const command = { program: process.execPath, args: ['-e', LOOK, String(port)] };
    const launch = {
      command,
      limits: NO_LIMITS,
      folder: own,
      env: { LC_ALL: 'C' },
      channels: 'output',
      network,
    } as const;
    const running = launcher.start(launch);
    const [output, errors] = await Promise.all([all(running.stdout), all(running.stderr)]);
    t.equal(errors, '');
    return JSON.parse(output) as Record<string, unknown>;
  };

  const seen = await look('none');
  t.same(seen['files'], [], 'the metadata are open here and not there');
  t.same(
    (seen['env'] as string[]).filter((name) => !USUAL.has(name)),
    [],
  );
  t.equal(seen['folder'], own);
  const { network, privileges } = launcher.confinement;
  t.equal(seen['noNewPrivileges'], privileges === 'none_gained' ? '1' : '0');
  if (network === 'none') t.not(seen['network'], 'reached');
  if (privileges === 'none_gained') {
    const all = BigInt(`0x${String(seen['capabilities'])}`);
    t.equal(all & ~0x2n, 0n, 'no capability but that of reading all files, and that for root only');
  }
  t.match(await look('shared'), { network: 'reached', files: [] }, 'a scanner has the network');
});

void t.test('a process that renders has a folder of its own while it lives', async (t) => {
  const folder = t.testdir({});
  const fixture = await openThumbFixture(folder);
  t.teardown(() => fixture.close());
  const stage = join(folder, 'stage');
  await writeFile(join(stage, 'other'), '');
  const thumbs = await fixture.open({ children: { count: 1 }, video: { enabled: false } });
  const sha256 = await fixture.put(Buffer.from('not a picture'), 'image/png');
  await fixture.finished(thumbs, sha256);
  const [own = '', ...more] = (await readdir(stage)).filter((name) => name.startsWith('thumb-child-'));
  t.same(more, []);
  t.same(await readdir(join(stage, own)), []);
  await thumbs.close();
  await untilAsync('its end', async () => (await readdir(stage)).length === 1);
  t.same(await readdir(stage), ['other']);
});
