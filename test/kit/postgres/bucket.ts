/**
 * The bucket of a cluster: in memory (light-s3.ts), or a new one at the S3 server that the environment names, as
 * test/kit/radosgw does.
 */
import { randomUUID } from 'node:crypto';
import { CreateBucketCommand, paginateListObjectsV2, S3Client } from '@aws-sdk/client-s3';
import { type LightS3, openLightS3 } from '../origin/light-s3.js';

export interface Bucket {
  readonly endpoint: string;
  readonly name: string;
  readonly keyId: string;
  readonly secret: string;
  /** All keys that are stored. */
  keys(): Promise<readonly string[]>;
  close(): Promise<void>;
}

export function bucketOf(s3: LightS3): Bucket {
  return {
    endpoint: s3.url,
    name: s3.bucket,
    keyId: 'key',
    secret: 'secret',
    keys: async () => [...s3.objects.keys()],
    close: () => s3.close(),
  };
}

/** At the server of the environment if `CLUSTER_S3` is `environment`, else in memory. */
export async function openBucket(): Promise<Bucket> {
  const { CLUSTER_S3, S3_ENDPOINT: endpoint, S3_ACCESS_KEY: keyId = '', S3_SECRET_KEY: secret = '' } = process.env;
  if (CLUSTER_S3 !== 'environment') return bucketOf(await openLightS3());
  if (endpoint === undefined) throw new Error('S3_ENDPOINT is not set; run it with test/kit/radosgw');
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  const credentials = { accessKeyId: keyId, secretAccessKey: secret };
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
  const name = `cluster-${randomUUID()}`;
  await client.send(new CreateBucketCommand({ Bucket: name }));
  return {
    endpoint,
    name,
    keyId,
    secret,
    async keys() {
      const keys: string[] = [];
      for await (const page of paginateListObjectsV2({ client }, { Bucket: name })) {
        for (const { Key } of page.Contents ?? []) if (Key !== undefined) keys.push(Key);
      }
      return keys;
    },
    async close() {
      client.destroy();
    },
  };
}
