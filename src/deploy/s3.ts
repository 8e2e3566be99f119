/**
 * An S3 server as three parts of a cluster: Ceph's monitor, one object store on a file, and its gateway. One copy of
 * everything, and no authentication between the three, which listen on loopback only: for trying things out, and for
 * nothing that must not be lost.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { createFile } from '../private-folder.js';
import { BUCKET, type Layout, pathsOf } from './layout.js';
import { isInPath, isThere, type Part, run, startPart, untilReady } from './process.js';

/** The packages of the programs that are used here. */
const PACKAGE_OF: Readonly<Record<string, string>> = {
  ceph: 'ceph-common',
  'ceph-authtool': 'ceph-common',
  monmaptool: 'ceph-common',
  'ceph-mon': 'ceph-mon',
  'ceph-osd': 'ceph-osd',
  radosgw: 'radosgw',
  'radosgw-admin': 'radosgw',
};

export async function missingS3(): Promise<readonly string[]> {
  const missing = new Set<string>();
  for (const [program, name] of Object.entries(PACKAGE_OF)) if (!(await isInPath(program))) missing.add(name);
  return [...missing];
}

/** Makes the keys, unless there are some. */
export async function prepareS3(layout: Layout, newSecret: () => string): Promise<void> {
  const { s3Key, s3Secret } = pathsOf(layout);
  await createFile(s3Key, `${newSecret()}\n`);
  await createFile(s3Secret, `${newSecret()}\n`);
}

/** Adds each part to `parts` as it starts. */
export async function startS3(
  layout: Layout,
  newClusterId: () => string,
  parts: Part[],
  signal: AbortSignal,
): Promise<void> {
  const { folder } = layout;
  const paths = pathsOf(layout);
  const home = paths.s3;
  const env = { CEPH_CONF: join(home, 'ceph.conf') };
  for (const name of ['mon', 'osd', 'run', 'log']) await mkdir(join(home, name), { recursive: true, mode: 0o700 });
  const ceph = (...args: readonly string[]): Promise<string> => run('ceph', args, { folder, env });
  const start = (name: string, program: string, ...args: readonly string[]): Part => {
    const logFile = paths.log(name);
    // The gateway ends in order only while there is a store.
    const orphaned = name === 's3' ? ({ orphaned: 'SIGKILL' } as const) : {};
    const part = startPart({ name, program, args, folder, env, logFile, signal: 'SIGTERM', ...orphaned });
    parts.push(part);
    return part;
  };
  await once(join(home, 'monitor-made'), async () => {
    await createFile(join(home, 'cluster-id'), newClusterId());
    await writeFile(env.CEPH_CONF, await cephConfig(layout));
    await emptied(join(home, 'mon'));
    await makeMonitor(layout, env);
  });
  await writeFile(env.CEPH_CONF, await cephConfig(layout));
  const monitor = start('s3-monitor', 'ceph-mon', '-f', '-i', 'a');
  await untilReady(monitor, async () => (await ceph('--connect-timeout', '5', 'fsid')) !== '', signal);
  await once(join(home, 'store-made'), async () => {
    // The monitor refuses for a moment after its start. The only store has the number 0.
    await untilReady(
      monitor,
      async () => (await ceph('osd', 'ls')).split('\n').includes('0') || (await ceph('osd', 'create')) !== '',
      signal,
    );
    await emptied(join(home, 'osd'));
    await run('ceph-osd', ['-i', '0', '--mkfs'], { folder, env });
  });
  // Started before the monitor has told it the cluster's name, a store ends: it is started again.
  let store = start('s3-store', 'ceph-osd', '-f', '-i', '0');
  let ended = false;
  const watch = (): void => void store.ended.then(() => (ended = true));
  watch();
  await untilReady(
    monitor,
    async () => {
      if (ended) {
        ended = false;
        parts.splice(parts.indexOf(store), 1);
        store = start('s3-store', 'ceph-osd', '-f', '-i', '0');
        watch();
      }
      return (await ceph('--connect-timeout', '5', 'osd', 'stat')).includes(' 1 up');
    },
    signal,
  );
  const gateway = start('s3', 'radosgw', '-f', '-n', 'client.admin');
  const endpoint = `http://127.0.0.1:${layout.ports.s3}`;
  await untilReady(gateway, async () => (await fetch(endpoint)).status > 0, signal);
  const accessKeyId = (await readFile(paths.s3Key, 'utf8')).trim();
  const secretAccessKey = (await readFile(paths.s3Secret, 'utf8')).trim();
  await once(join(home, 'user-made'), async () => {
    const admin = (...args: readonly string[]): Promise<string> => run('radosgw-admin', args, { folder, env });
    const keys = [`--access-key=${accessKeyId}`, `--secret=${secretAccessKey}`];
    const isMade = async (): Promise<boolean> => (await admin('user', 'list')).includes('"media"');
    const make = (): Promise<string> => admin('user', 'create', '--uid=media', '--display-name=media', ...keys);
    await untilReady(gateway, async () => (await isMade()) || (await make()) !== '', signal);
  });
  // It warns of versions of Node that it will not support one day.
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
  try {
    await once(
      join(home, 'bucket-made'),
      async () => void (await client.send(new CreateBucketCommand({ Bucket: BUCKET }))),
    );
  } finally {
    client.destroy();
  }
}

async function makeMonitor(layout: Layout, env: Readonly<Record<string, string>>): Promise<void> {
  const { folder, ports } = layout;
  const home = pathsOf(layout).s3;
  const id = await readFile(join(home, 'cluster-id'), 'utf8');
  const [keyring, map] = [join(home, 'keyring'), join(home, 'monmap')];
  const options = { folder, env };
  const all = (...of: readonly string[]): readonly string[] => of.flatMap((each) => ['--cap', each, 'allow *']);
  await run('ceph-authtool', ['--create-keyring', keyring, '--gen-key', '-n', 'mon.', ...all('mon')], options);
  await run('ceph-authtool', [keyring, '--gen-key', '-n', 'client.admin', ...all('mon', 'osd', 'mgr')], options);
  const address = `[v1:127.0.0.1:${ports.s3Monitor}]`;
  await run('monmaptool', ['--create', '--clobber', '--fsid', id, '--addv', 'a', address, map], options);
  await run('ceph-mon', ['--mkfs', '-i', 'a', '--monmap', map, '--keyring', keyring], options);
}

async function cephConfig(layout: Layout): Promise<string> {
  const home = pathsOf(layout).s3;
  return `[global]
fsid = ${await readFile(join(home, 'cluster-id'), 'utf8')}
mon host = [v1:127.0.0.1:${layout.ports.s3Monitor}]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = ${home}/keyring
run dir = ${home}/run
admin socket = ${home}/run/$name.asok
log file = ${home}/log/$name.log
debug default = 0/0
mon data = ${home}/mon
mon allow pool size one = true
osd data = ${home}/osd
osd objectstore = bluestore
bluestore block size = 17179869184
bluestore cache size = 134217728
bluestore cache autotune = false
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
rgw frontends = beast endpoint=127.0.0.1:${layout.ports.s3}
rgw thread pool size = 64
rgw run sync thread = false
rgw dynamic resharding = false
rgw enable usage log = false
`;
}

/** Without what a start has left that was stopped. */
async function emptied(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { mode: 0o700 });
}

/** Does what later starts need not do again. The file says that it was done to its end. */
async function once(path: string, work: () => Promise<void>): Promise<void> {
  if (await isThere(path)) return;
  await work();
  await createFile(path, '');
}
