/** The edge as a process beside what operators do to it: certificates that are renewed, secrets that are changed, signals. */
import { once } from 'node:events';
import { mkdir, readFile, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import t from 'tap';
import { hasOpenssl, selfSigned, type TestCertificate } from '../kit/certificates.js';
import { member, sendRequest } from '../kit/http/request.js';
import { asCaller, openProcesses } from '../kit/processes.js';

const skip = hasOpenssl ? false : 'there is no openssl to make certificates with';

t.setTimeout(300_000);
void t.test('a certificate that is replaced as deployments do it', { skip }, async (t) => {
  const folder = t.testdir({ archive: {}, live: {}, mount: { '..one': {}, '..two': {} } });
  const [live, mount] = [join(folder, 'live'), join(folder, 'mount')];
  const make = (place: string): TestCertificate => selfSigned(join(folder, place), 'tls');
  const [first, second, third, stranger] = [make('mount/..one'), make('mount/..two'), make('archive'), make('.')];
  // As a mounted secret: files behind a link to a folder, which is swapped whole.
  await symlink('..one', join(mount, '..data'));
  // As a client of ACME: links to files in an archive, replaced one by one.
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
  const comesToShow = async (certificate: TestCertificate): Promise<void> => {
    while (!(await shows(certificate))) await later(50);
  };
  t.ok(await shows(first));

  await symlink('..two', join(mount, '..data_tmp'));
  await rename(join(mount, '..data_tmp'), join(mount, '..data'));
  await comesToShow(second);
  t.pass('a folder behind a link was swapped');

  for (const file of ['tls.crt', 'tls.key']) {
    await unlink(join(live, file));
    await symlink(join('..', 'archive', file), join(live, file));
  }
  await comesToShow(third);
  t.pass('links were replaced one by one');

  await writeFile(join(folder, 'archive', 'tls.key'), stranger.key);
  while (!edge.printed().includes('the changed certificate is refused')) await later(50);
  t.match(edge.printed(), /"reason":"[^"]*tls\.key is not the key of [^"]*tls\.crt"/);
  t.ok(await shows(third), 'a key of another certificate is refused, and the pair in force stays');
  process.kill(edge.pid, 'SIGHUP');
  while (!edge.printed().includes('the changed configuration is refused')) await later(50);
  t.ok(await shows(third), 'also when it is told to read everything again');
  await writeFile(join(folder, 'archive', 'tls.crt'), stranger.cert);
  await comesToShow(stranger);
  t.equal(await edge.stop(), 0);
});

void t.test('an edge secret is changed while both run, and nobody is a stranger meanwhile', async (t) => {
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
  const tellOrigin = async (edge_secret: string, edge_secrets_accepted: readonly string[]): Promise<void> => {
    const config = JSON.parse(await readFile(origin.configPath, 'utf8')) as { access: object };
    const access = { ...config.access, edge_secret, edge_secrets_accepted };
    const before = origin.printed().length;
    await writeFile(origin.configPath, JSON.stringify({ ...config, access }));
    process.kill(origin.pid, 'SIGHUP');
    while (!origin.printed().slice(before).includes('the configuration was read again')) await later(50);
  };
  const edge = await processes.launch(
    'edge',
    { upstream: { url: originUrl } },
    { access: { edge_secret: 'file:own/secret' }, level: 'info' },
  );
  const url = await edge.ready;
  const untilReady = async (): Promise<void> => {
    while ((await sendRequest(`${url}/readyz`)).status !== 200) await later(50);
  };
  const fetchNew = async (): Promise<number> => {
    const headers = { 'content-type': 'text/plain' };
    const body = `words of ${performance.now()}`;
    const created = await sendRequest(`${url}/v1/media`, asCaller(processes.user, { method: 'POST', headers, body }));
    return (await sendRequest(`${url}/v1/media/${member(created, 'id')}`, asCaller(processes.user))).status;
  };
  await untilReady();
  t.equal(await fetchNew(), 200, 'by the secret that both know');

  await tellOrigin('file:data/secrets/before', ['file:data/secrets/after']);
  await writeFile(join(folder, 'own', 'next'), after);
  await rename(join(folder, 'own', 'next'), join(folder, 'own', 'secret'));
  t.equal(await fetchNew(), 200, 'while the edge turns to another');
  while (!edge.printed().includes('the configuration was read again')) await later(50);
  await tellOrigin('file:data/secrets/after', []);
  while (!origin.printed().includes('"reason":"secret_withdrawn"')) await later(50);
  // The lease may be of before: only a takedown that is confirmed proves that the journal is followed anew.
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
  t.equal(await fetchNew(), 200, 'and once the origin knows that one alone');
  t.equal(await edge.stop(), 0);
  t.equal(await origin.stop(), 0);
});

function refused(socket: ReturnType<typeof connect>): Promise<boolean> {
  return new Promise((resolve) => {
    socket.once('error', () => resolve(false));
  });
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
