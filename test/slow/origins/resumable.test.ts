/**
 * Resumable uploads over several origins, with a PostgreSQL server of the system and a bucket: the contracts of the two
 * parts, and origins that are killed while bytes arrive. The other one goes on at the same path, with every byte that
 * was confirmed, and nothing is left in the bucket at the end.
 */
import { join } from 'node:path';
import t from 'tap';
import type { BlobKey } from '../../../origin/blobs/blob-store.js';
import { openLocalStore } from '../../../origin/blobs/local.js';
import { emptyTrash } from '../../../origin/blobs/sweep.js';
import { openUploadsInStore } from '../../../origin/ingest/resumable/uploads-in-store.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { systemClock } from '../../../src/clock.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { type HttpResponse, type RequestOptions, sendRequest } from '../../kit/http/request.js';
import { largePng } from '../../kit/media.js';
import { openLightS3 } from '../../kit/origin/light-s3.js';
import { PATCH, TUS } from '../../kit/origin/tus-requests.js';
import { unfinishedContract } from '../../kit/origin/uploads/unfinished-contract.js';
import { uploadTableContract } from '../../kit/origin/uploads/upload-table-contract.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { openStore } from '../../kit/postgres/stores.js';
import { asCaller, type Launched, openProcesses } from '../../kit/processes.js';
import { seeded } from '../../kit/random.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../../kit/until.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());

const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 6);
const SEED = Number(process.env['SEED'] ?? Date.now() % 100_000);
const SIZE = 1_500_000;
const FOREVER = Number.MAX_SAFE_INTEGER;

t.setTimeout(FILE_HANGS_AFTER_MS + ROUNDS * 30_000);

function sharedOf(store: MetaStore): NonNullable<MetaStore['shared']> {
  if (store.shared === null) throw new Error('the store shares nothing');
  return store.shared;
}

void t.test('the table of unfinished uploads fulfils its contract', { skip }, async (t) => {
  await uploadTableContract(t, async () => {
    const url = (await postgres?.database()) ?? '';
    const store = await openStore(url, { kind: 'origin', name: 'a' });
    t.teardown(() => store.close());
    return {
      table: sharedOf(store).uploads,
      intend: (keys) => store.intend(keys),
      async isIntended(key) {
        const found = await postgres?.query(url, `SELECT FROM intent WHERE key = '${key}'`);
        return found?.length !== 0;
      },
      trash: async () => [...(await store.trash(FOREVER, 10_000))].sort(),
    };
  });
});

void t.test('unfinished uploads of two origins fulfil the contract', { skip }, async (t) => {
  await unfinishedContract(t, async (t) => {
    const url = (await postgres?.database()) ?? '';
    const [one, other] = [
      await openStore(url, { kind: 'origin', name: 'a' }),
      await openStore(url, { kind: 'origin', name: 'b' }),
    ];
    const folder = t.testdir({});
    const blobs = await openLocalStore({ folder: join(folder, 'blobs'), stageFolder: join(folder, 'stage') });
    t.teardown(() => Promise.all([one.close(), other.close()]));
    const config = { partSizeBytes: 65_536, partEveryMs: 1_000 };
    const openAt = (meta: MetaStore) =>
      openUploadsInStore({ table: sharedOf(meta).uploads, meta, blobs, clock: systemClock, config });
    return {
      uploads: await openAt(one),
      again: () => openAt(other),
      async storedBytes() {
        await emptyTrash({ meta: one, blobs }, FOREVER, 1_000, new AbortController().signal);
        let bytes = 0;
        for await (const { key, sizeBytes } of blobs.list('part/')) {
          bytes += sizeBytes;
          t.same(await one.leftBehind([key]), [], 'what is stored is in a row');
        }
        return bytes;
      },
    };
  });
});

void t.test('an origin that is killed at any moment loses no confirmed byte', { skip }, async (t) => {
  t.comment(`seed ${SEED}, ${ROUNDS} rounds`);
  const random = seeded(SEED);
  const s3 = await openLightS3();
  const url = (await postgres?.database()) ?? '';
  const processes = await openProcesses(t.testdir());
  t.teardown(async () => {
    await processes.close();
    await s3.close();
  });
  const partsLeft = (): readonly BlobKey[] =>
    [...s3.objects.keys()].filter((key) => key.startsWith('part/')) as BlobKey[];

  const launch = (name: string): Promise<Launched> =>
    processes.launch(
      'origin',
      {
        name,
        upload: { size_max: '5MB' },
        thumbs: { enabled: false, video: { enabled: false } },
        resumable: { part_size: '64KiB', part_every: '100ms', sweep_every: '1s' },
        retention: { sweep_every: '1s', trash: '1s' },
        audit: { file: `./data/${name}/audit.jsonl` },
        meta: { adaptor: 'postgres', postgres: { url: 'env:DATABASE' } },
        blobs: {
          adaptor: 's3',
          stage_folder: `./data/${name}/stage`,
          s3: { endpoint: s3.url, bucket: s3.bucket, access_key_id: 'env:KEY', secret_access_key: 'env:KEY' },
        },
      },
      { as: name, env: { DATABASE: url, KEY: 'x' } },
    );
  const origins = [await launch('one'), await launch('two')];
  const send = async (at: number, path: string, options: RequestOptions = {}): Promise<HttpResponse> => {
    const base = (await origins[at]?.ready) ?? '';
    return sendRequest(base + path, asCaller(processes.user, { ...options, headers: { ...TUS, ...options.headers } }));
  };
  const offsetAt = async (at: number, path: string): Promise<number> =>
    Number((await send(at, path, { method: 'HEAD' })).headers['upload-offset']);

  for (let round = 0; round < ROUNDS; round += 1) {
    const [dying, living] = round % 2 === 0 ? [0, 1] : [1, 0];
    const bytes = largePng(round, SIZE);
    const headers = { 'upload-length': String(bytes.length) };
    const path = String((await send(dying, '/v1/uploads', { method: 'POST', headers })).headers.location);
    const abandoned = await send(dying, '/v1/uploads', {
      method: 'POST',
      headers: { ...headers, ...PATCH },
      body: bytes.subarray(0, 100_000),
    });
    t.equal(abandoned.status, 201);
    // A confirmed beginning, and a body of which an unknown part arrives.
    const confirmed = Math.floor(random() * 200_000);
    const first = { ...PATCH, 'upload-offset': '0' };
    t.equal(
      (await send(dying, path, { method: 'PATCH', headers: first, body: bytes.subarray(0, confirmed) })).status,
      204,
    );
    const wire = await connectRaw(Number(new URL((await origins[dying]?.ready) ?? '').port));
    const rest = bytes.subarray(confirmed);
    const fields = { ...PATCH, ...processes.user, 'upload-offset': String(confirmed), 'content-length': rest.length };
    wire.write(requestHead('PATCH', path, fields));
    wire.write(rest.subarray(0, Math.floor(rest.length * random() * 1.2)));
    await new Promise((resolve) => setTimeout(resolve, random() * 400));
    await origins[dying]?.kill();
    wire.reset();

    const offset = await offsetAt(living, path);
    t.ok(offset >= confirmed, `round ${round}: ${offset} bytes of at least ${confirmed}`);
    const stale = { ...PATCH, 'upload-offset': String(offset + 1) };
    t.equal((await send(living, path, { method: 'PATCH', headers: stale, body: Buffer.from('x') })).status, 409);
    if (offset < bytes.length) {
      const next = { ...PATCH, 'upload-offset': String(offset) };
      const answer = await send(living, path, { method: 'PATCH', headers: next, body: bytes.subarray(offset) });
      t.equal(answer.status, 204);
    }
    const done = await send(living, path, { method: 'HEAD' });
    const media = await send(living, String(done.headers['media-location']));
    t.ok(media.bytes.equals(bytes), `round ${round}: the bytes of the file`);
    origins[dying] = await launch(dying === 0 ? 'one' : 'two');
    t.equal(
      (await send(dying, path, { method: 'HEAD' })).headers['media-location'],
      done.headers['media-location'],
      'the other one tells the same',
    );
  }

  t.ok(partsLeft().length >= ROUNDS, 'what was abandoned is still there');
  await postgres?.query(url, 'UPDATE upload SET expires_at = 0');
  await untilAsync('nothing is left in the bucket', async () => partsLeft().length === 0);
  const left = await postgres?.query(
    url,
    'SELECT (SELECT count(*)::int FROM upload) AS uploads, (SELECT count(*)::int FROM upload_part) AS parts',
  );
  t.same(left, [{ uploads: 0, parts: 0 }]);
});
