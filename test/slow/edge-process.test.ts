/** The edge as a process, and what operators do while it runs: renew certificates, change secrets, send signals. */
import { once } from 'node:events';
import { access, mkdir, readFile, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import t from 'tap';
import { hasOpenssl, selfSigned, type TestCertificate } from '../kit/certificates.js';
import { member, sendRequest } from '../kit/http/request.js';
import { ownPort } from '../kit/ports.js';
import { asCaller, type Launched, openProcesses } from '../kit/processes.js';
import { untilReady } from '../kit/service.js';
import { untilAsync } from '../kit/until.js';

const skip = hasOpenssl ? false : 'there is no openssl to make certificates';

t.setTimeout(300_000);
void t.test('a certificate is replaced in the ways of deployments', { skip }, async (t) => {
  const folder = t.testdir({ archive: {}, live: {}, mount: { '..one': {}, '..two': {} } });
  const [live, mount] = [join(folder, 'live'), join(folder, 'mount')];
  const make = (place: string): TestCertificate => selfSigned(join(folder, place), 'tls');
  const [first, second, third, stranger] = [make('mount/..one'), make('mount/..two'), make('archive'), make('.')];
  // Like a mounted secret: files behind a link to a folder; the link is replaced.
  await symlink('..one', join(mount, '..data'));
  // Like an ACME client: links to files in an archive, replaced one by one.
  for (const file of ['tls.crt', 'tls.key']) await symlink(join('..', 'mount', '..data', file), join(live, file));

  const processes = await openProcesses(folder);
  t.teardown(() => processes.close());
  const edge = await processes.launch('edge', {
    access: 'off',
    listen: { port: 0, tls: { certificate_file: join(live, 'tls.crt'), key_file: join(live, 'tls.key') } },
  });
  const { port } = new URL(await edge.ready);
  const shows = async ({ cert }: TestCertificate): Promise<boolean> => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), ca: cert });
    const shown = await Promise.race([once(socket, 'secureConnect').then(() => true), refused(socket)]);
    socket.destroy();
    return shown;
  };
  const untilShown = async (certificate: TestCertificate): Promise<void> => {
    await untilAsync('the certificate', () => shows(certificate));
  };
  t.ok(await shows(first));

  await symlink('..two', join(mount, '..data_tmp'));
  await rename(join(mount, '..data_tmp'), join(mount, '..data'));
  await untilShown(second);
  t.pass('the link to the folder was replaced');

  for (const file of ['tls.crt', 'tls.key']) {
    await unlink(join(live, file));
    await symlink(join('..', 'archive', file), join(live, file));
  }
  await untilShown(third);
  t.pass('the links to the files were replaced');

  await writeFile(join(folder, 'archive', 'tls.key'), stranger.key);
  // The edge may read the file before all of it is written, and refuse that, too.
  await printed(edge, 'tls.key is not the key of');
  t.match(edge.printed(), /"reason":"[^"]*tls\.key is not the key of [^"]*tls\.crt"/);
  t.ok(await shows(third), 'a key that does not belong to the certificate is refused, and the current pair stays');
  process.kill(edge.pid, 'SIGHUP');
  await printed(edge, 'the changed configuration is refused');
  t.ok(await shows(third), 'also after SIGHUP');
  await writeFile(join(folder, 'archive', 'tls.crt'), stranger.cert);
  await untilShown(stranger);
  t.equal(await edge.stop(), 0);
});

void t.test('the file of the log is opened anew on SIGUSR1, and no process starts an inspector', async (t) => {
  const folder = t.testdir();
  const processes = await openProcesses(folder);
  t.teardown(() => processes.close());
  const edge = await processes.launch(
    'edge',
    { access: 'off', workers: 2, upstream: { url: `http://127.0.0.1:${await ownPort()}` } },
    { requests: 'all', level: 'info', log: { to: 'file', file: { path: 'logs/{process}.log' } } },
  );
  const url = await edge.ready;
  const file = join(folder, 'logs', 'edge.log');
  const lines = async (path = file): Promise<readonly Record<string, unknown>[]> =>
    (await readFile(path, 'utf8')).split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as never]));
  const asked = async (id: string): Promise<void> => {
    await sendRequest(`${url}/a?sig=secret`, { headers: { 'x-request-id': id } });
    await untilAsync('its line', async () => (await lines()).some(({ request_id }) => request_id === id));
  };
  await asked('before-the-signal');
  const pids = new Set((await lines()).map(({ pid }) => Number(pid)));
  t.equal(pids.size, 3, 'the parent and its workers write to one file');
  await rename(file, `${file}.1`);
  for (const pid of pids) process.kill(pid, 'SIGUSR1');
  await untilAsync('the new file', () =>
    access(file).then(
      () => true,
      () => false,
    ),
  );
  await asked('after-the-signal');
  t.notOk((await lines()).some(({ request_id }) => request_id === 'before-the-signal'));
  t.equal(await edge.stop(), 0);
  t.notMatch(edge.printed(), /Debugger/);
  const all = [...(await lines()), ...(await lines(`${file}.1`))];
  t.match(all.at(0), { name: 'edge' });
  t.ok(
    (await lines()).some(({ msg }) => msg === 'edge has stopped'),
    'nothing of the end is lost',
  );
  t.notMatch(JSON.stringify(all), /secret/);
});

void t.test('an edge secret is changed while both run, and every request is accepted meanwhile', async (t) => {
  const folder = t.testdir();
  const processes = await openProcesses(folder);
  t.teardown(() => processes.close());
  const secrets = join(folder, 'data', 'secrets');
  const [before, after] = ['before-'.repeat(6), 'after-'.repeat(7)];
  await writeFile(join(secrets, 'before'), before);
  await writeFile(join(secrets, 'after'), after);
  await mkdir(join(folder, 'own'));
  await writeFile(join(folder, 'own', 'secret'), before);

  const origin = await processes.launch(
    'origin',
    { upload: { free_min: '0B' } },
    { access: { edge_secret: 'file:data/secrets/before' }, level: 'info' },
  );
  const originUrl = await origin.ready;
  const setOriginSecrets = async (edge_secret: string, edge_secrets_accepted: readonly string[]): Promise<void> => {
    const config = JSON.parse(await readFile(origin.configPath, 'utf8')) as { access: object };
    const access = { ...config.access, edge_secret, edge_secrets_accepted };
    const before = origin.printed().length;
    await writeFile(origin.configPath, JSON.stringify({ ...config, access }));
    process.kill(origin.pid, 'SIGHUP');
    await printed(origin, 'the configuration was read again', before);
  };
  const edge = await processes.launch(
    'edge',
    { upstream: { url: originUrl } },
    { access: { edge_secret: 'file:own/secret' }, level: 'info' },
  );
  const url = await edge.ready;
  const fetchNew = async (): Promise<number> => {
    const headers = { 'content-type': 'text/plain' };
    const body = `words of ${performance.now()}`;
    const created = await sendRequest(`${url}/v1/media`, asCaller(processes.user, { method: 'POST', headers, body }));
    return (await sendRequest(`${url}/v1/media/${member(created, 'id')}`, asCaller(processes.user))).status;
  };
  await untilReady(url);
  t.equal(await fetchNew(), 200, 'with the secret that both know');

  await setOriginSecrets('file:data/secrets/before', ['file:data/secrets/after']);
  await writeFile(join(folder, 'own', 'next'), after);
  await rename(join(folder, 'own', 'next'), join(folder, 'own', 'secret'));
  t.equal(await fetchNew(), 200, 'while the edge changes to another');
  await printed(edge, 'the configuration was read again');
  await setOriginSecrets('file:data/secrets/after', []);
  await printed(origin, '"reason":"secret_withdrawn"');
  // The lease may be an old one. Only a confirmed takedown proves that the edge follows the journal again.
  for (let confirmed = ''; confirmed !== '1/1'; ) {
    const headers = { 'content-type': 'text/plain' };
    const body = `words of ${performance.now()}`;
    const created = await sendRequest(
      `${originUrl}/v1/media`,
      asCaller(processes.user, { method: 'POST', headers, body }),
    );
    const path = `/v1/media/${member(created, 'id')}?wait=edges`;
    const done = await sendRequest(originUrl + path, asCaller(processes.admin, { method: 'DELETE' }));
    confirmed = String(done.headers['takedown-confirmed']);
  }
  t.equal(await fetchNew(), 200, 'and once the origin accepts only that one');
  t.equal(await edge.stop(), 0);
  t.equal(await origin.stop(), 0);
});

/** Resolves once a process has printed a text, from an offset of its output on. */
function printed(process: Launched, text: string, from = 0): Promise<void> {
  return untilAsync(text, async () => process.printed().slice(from).includes(text));
}

function refused(socket: ReturnType<typeof connect>): Promise<boolean> {
  return new Promise((resolve) => {
    socket.once('error', () => resolve(false));
  });
}
