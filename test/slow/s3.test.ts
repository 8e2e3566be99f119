/** The S3 adaptor with a server that checks signatures. See test/kit/radosgw. */
import { hash, randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import t from 'tap';
import type { BlobStore } from '../../origin/blobs/blob-store.js';
import { blobsSection } from '../../origin/blobs/config.js';
import { openBlobStore } from '../../origin/blobs/open.js';
import { systemClock } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import { createLog } from '../../src/log.js';
import { blobContract, bytesOf, put, stage } from '../kit/origin/blob-contract.js';
import { mediaKey } from '../kit/origin/keys.js';

const {
  S3_ENDPOINT: endpoint,
  S3_ACCESS_KEY: accessKeyId = '',
  S3_SECRET_KEY: secretAccessKey = '',
} = process.env as Readonly<Record<string, string | undefined>>;
const skip = endpoint === undefined ? 'S3_ENDPOINT is not set; run it with test/kit/radosgw' : false;
const REGION = 'us-east-1';

void t.test('blobs on a server that checks signatures', { skip, timeout: 180_000 }, async (t) => {
  const bucket = `media-${randomUUID()}`;
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  const client = new S3Client({
    endpoint: endpoint ?? '',
    region: REGION,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
  });
  t.teardown(() => client.destroy());
  await client.send(new CreateBucketCommand({ Bucket: bucket }));

  const open = async (over: Readonly<Record<string, unknown>> = {}, secret = secretAccessKey): Promise<BlobStore> => {
    const context = { env: (name: string) => (name === 'KEY' ? accessKeyId : secret), file: () => undefined };
    const config = blobsSection.schema(context).parse({
      adaptor: 's3',
      stage_folder: join(t.testdirName, 'stage'),
      s3: {
        endpoint,
        bucket,
        region: REGION,
        access_key_id: 'env:KEY',
        secret_access_key: 'env:SECRET',
        multipart_above: '5MiB',
        part_size: '5MiB',
        sockets_max: 8,
        ...over,
      },
    });
    const log = createLog('test', { level: 'silent' });
    return await openBlobStore(config, { clock: systemClock, log });
  };

  await t.test('keep the contract', async (t) => {
    await blobContract(t, () => open(), { largeBytes: 17_000_000, runs: 5 });
  });

  await t.test('are refused if their bytes are not those that were signed', async (t) => {
    const store = await open();
    t.teardown(() => store.close());
    const staged = await stage(store, randomBytes(10_000));
    const other = hash('sha256', 'other bytes') as Sha256;
    await t.rejects(store.adopt(staged.path, mediaKey(other), { sizeBytes: 10_000, sha256: other }), {
      code: 'storage_unavailable',
      cause: { name: 'XAmzContentSHA256Mismatch' },
    });
    t.equal(await store.stat(mediaKey(other)), undefined);
  });

  await t.test('are refused with a wrong secret and in a bucket that does not exist', async (t) => {
    for (const store of [await open({}, 'another secret'), await open({ bucket: 'no-such-bucket' })]) {
      await t.rejects(store.probe(), { code: 'storage_unavailable' });
      await t.rejects(put(store, 100), { code: 'storage_unavailable' });
      await store.close();
    }
  });

  await t.test('leave no parts when their write is aborted', async (t) => {
    const store = await open();
    t.teardown(() => store.close());
    const leaving = new AbortController();
    const staged = await stage(store, randomBytes(17_000_000));
    const adopted = store.adopt(staged.path, staged.key, staged.facts, leaving.signal);
    setImmediate(() => leaving.abort(new Error('left')));
    await t.rejects(adopted, { message: 'left' });
    const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
    t.same(Uploads, []);
  });

  await t.test('are written by many at once over few connections', async (t) => {
    const store = await open({ sockets_max: 4 });
    t.teardown(() => store.close());
    const blobs = await Promise.all(Array.from({ length: 40 }, (_, at) => put(store, 1_000 * (at + 1))));
    for (const { key, bytes } of blobs) t.ok(bytes.equals((await bytesOf(store, key)) ?? Buffer.alloc(0)));
  });
});
