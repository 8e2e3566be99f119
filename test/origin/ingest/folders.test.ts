/** Folders of a running origin that somebody removes or replaces, and what a process that died has left in them. */
import { cpSync, renameSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { json, member } from '../../kit/http/request.js';
import { largePng, png } from '../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../kit/origin/origin.js';
import { untilAsync } from '../../kit/until.js';

/** No thumbnail is being made while a folder is removed. */
const STILL = { thumbs: { enabled: false, video: { enabled: false } } };

async function origin(t: Test): Promise<TestOrigin> {
  const origin = await startOrigin(t.testdir({}), STILL);
  t.teardown(() => origin.close());
  return origin;
}

async function notReady(t: Test, origin: TestOrigin): Promise<unknown> {
  // Checks are shared for a moment.
  origin.clock.advance(2_000);
  const answer = await origin.send('/readyz');
  t.equal(answer.headers['content-type']?.startsWith('application/json'), true);
  return json(answer)['failed'];
}

for (const folder of ['stage', 'blobs/media', 'blobs/thumb']) {
  void t.test(`${folder} is made again when somebody removes it`, async (t) => {
    const server = await origin(t);
    await server.uploaded(png(1));
    await rm(join(server.folder, folder), { recursive: true });
    t.equal((await server.upload(png(2))).status, 201);
    await rm(join(server.folder, folder), { recursive: true, force: true });
    t.same(await notReady(t, server), []);
  });
}

void t.test('thumbnails are made although somebody removed the stage', async (t) => {
  const server = await startOrigin(t.testdir({}), { thumbs: { video: { enabled: false } } });
  t.teardown(() => server.close());
  await rm(join(server.folder, 'stage'), { recursive: true });
  const id = await server.uploaded(png(1));
  await untilAsync('the thumbnail', async () => (await server.as('bob', `/v1/media/${id}/thumb`)).status === 200);
});

for (const folder of ['stage', 'blobs']) {
  void t.test(`a file in the place of ${folder} is a storage that cannot be used, and shows in /readyz`, async (t) => {
    const server = await origin(t);
    await rm(join(server.folder, folder), { recursive: true });
    await writeFile(join(server.folder, folder), '');
    // A small one is not staged.
    const bytes = largePng(1, 300_000);
    const refused = await server.upload(bytes);
    t.equal(refused.status, 503);
    t.equal(member(refused, 'code'), 'storage_unavailable');
    t.same(await notReady(t, server), ['storage']);
    await rm(join(server.folder, folder));
    if (folder === 'blobs') await mkdir(join(server.folder, folder));
    t.equal((await server.upload(bytes)).status, 201);
    t.same(await notReady(t, server), []);
  });
}

for (const [what, replace] of [
  ['removed', () => undefined],
  ['put back from a copy', (folder: string) => renameSync(`${folder}-copy`, folder)],
] as const) {
  void t.test(`nothing is acknowledged once the metadata of a running origin were ${what}`, async (t) => {
    const server = await origin(t);
    const folder = join(server.folder, 'meta');
    cpSync(folder, `${folder}-copy`, { recursive: true });
    const [id, other] = [await server.uploaded(png(1)), await server.uploaded(png(3))];
    await rm(folder, { recursive: true });
    replace(folder);
    const refused = await server.upload(png(2));
    t.equal(refused.status, 503);
    t.equal(member(refused, 'code'), 'storage_unavailable');
    t.equal((await server.asAdmin(`/v1/media/${id}`, { method: 'DELETE' })).status, 503);
    t.match(await notReady(t, server), ['database']);
    t.equal((await server.as('alice', `/v1/media/${other}`)).status, 200, 'what is known is served');
  });
}

const TUS = { 'tus-resumable': '1.0.0' };
const create = (server: TestOrigin) =>
  server.as('alice', '/v1/uploads', { method: 'POST', headers: { ...TUS, 'upload-length': '10' } });

void t.test('a resumable upload whose bytes were removed is gone, and others can begin', async (t) => {
  const server = await origin(t);
  const location = (await create(server)).headers['location'] ?? '';
  await rm(join(server.folder, 'stage'), { recursive: true });
  t.equal((await server.as('alice', location, { method: 'HEAD', headers: TUS })).status, 404);
  const again = await create(server);
  t.equal(again.status, 201);
  t.equal((await server.as('alice', again.headers['location'] ?? '', { method: 'HEAD', headers: TUS })).status, 200);
});

void t.test('uploads that died with their process are removed from the stage at the next start', async (t) => {
  const server = await origin(t);
  const location = (await create(server)).headers['location'] ?? '';
  const stage = join(server.folder, 'stage');
  for (const name of ['upload-1', 'upload-1-stripped', 'rescan-1', '.probe-1']) {
    await writeFile(join(stage, name), 'x');
  }
  await server.restart();
  t.same(
    (await readdir(stage)).filter((name) => !['resumable', 'lock'].includes(name)),
    [],
  );
  t.equal((await server.as('alice', location, { method: 'HEAD', headers: TUS })).status, 200, 'not the resumable ones');
});
