/** `src/deploy/cluster` as README tells to use it: three origins, two edges, one origin killed, and nothing left when it has ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { PORT_NAMES, type Ports } from '../../../src/deploy/layout.js';
import { isInPath } from '../../../src/deploy/process.js';
import { member, sendRequest } from '../../kit/http/request.js';
import { ownPort } from '../../kit/ports.js';
import { runCli } from '../../kit/service.js';
import { untilAsync } from '../../kit/until.js';

const programs = ['ceph-mon', 'ceph-osd', 'radosgw', 'radosgw-admin', 'setpriv'];
const found = await Promise.all(programs.map(isInPath));
const hasPostgres = (await readdir('/usr/lib/postgresql').catch(() => [])).length > 0;
const skip =
  found.every(Boolean) && hasPostgres ? false : 'postgresql, ceph-mon, ceph-osd and radosgw are not installed';

interface Cluster {
  readonly child: ChildProcess;
  /** What it has printed. */
  readonly out: () => string;
  readonly pidOf: (part: string) => number;
}

async function start(t: Test, folder: string, ports: Ports): Promise<Cluster> {
  const list = PORT_NAMES.map((name) => ports[name]).join(',');
  const child = spawn('bash', ['src/deploy/cluster', folder, '--ports', list], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  const ready = new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        out += chunk.toString();
        if (out.includes('All of them are ready')) resolve();
      });
    }
    child.once('exit', () => reject(new Error(`the cluster ended: ${out}`)));
  });
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    await once(child, 'exit');
  });
  await ready;
  const pidOf = (part: string): number => Number(new RegExp(`^${part} .*pid (\\d+)$`, 'm').exec(out)?.[1]);
  return { child, out: () => out, pidOf };
}

async function end({ child }: Cluster): Promise<number | null> {
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
  return child.exitCode;
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const PARTS = [
  'postgres',
  's3-monitor',
  's3-store',
  's3',
  'auth',
  'origin-1',
  'origin-2',
  'origin-3',
  'edge-1',
  'edge-2',
];

void t.test('a cluster of one command', { skip }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'cluster-'));
  // As a folder that somebody has made for it, which its database's user could not enter.
  await chmod(folder, 0o700);
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const ports: Record<string, number> = {};
  for (const name of PORT_NAMES) ports[name] = await ownPort();
  const at = (name: (typeof PORT_NAMES)[number], path: string): string => `http://127.0.0.1:${ports[name]}${path}`;
  const cluster = await start(t, folder, ports as Ports);
  const token = async (...more: readonly string[]): Promise<string> =>
    (await runCli(folder, ['token', '--config', 'origin-1.yaml', ...more])).out.trim();
  const user = { authorization: `Bearer ${await token()}` };
  const admin = { authorization: `Bearer ${await token('--sub', 'mo', '--admin')}` };
  const upload = async (where: (typeof PORT_NAMES)[number], body: string): Promise<string> => {
    const headers = { ...user, 'content-type': 'text/plain' };
    const answer = await sendRequest(at(where, '/v1/media'), { method: 'POST', headers, body });
    t.equal(answer.status, 201, answer.bytes.toString());
    return `/v1/media/${member(answer, 'id')}`;
  };
  const read = async (where: (typeof PORT_NAMES)[number], path: string): Promise<string> => {
    const answer = await sendRequest(at(where, path), { headers: user });
    return answer.status === 200 ? answer.bytes.toString() : String(answer.status);
  };

  const first = await upload('origin1', 'sent to the first origin');
  for (const edge of ['edge1', 'edge2'] as const) t.equal(await read(edge, first), 'sent to the first origin');
  for (const origin of ['origin2', 'origin3'] as const) t.equal(await read(origin, first), 'sent to the first origin');
  const kept = await upload('edge2', 'kept');

  process.kill(cluster.pidOf('origin-2'), 'SIGKILL');
  await untilAsync('it is told', async () => cluster.out().includes('ended by SIGKILL; the others go on'));
  for (const edge of ['edge1', 'edge2'] as const) {
    const path = await upload(edge, `sent to ${edge}`);
    for (const reader of ['edge1', 'edge2'] as const) t.equal(await read(reader, path), `sent to ${edge}`);
  }
  const gone = await sendRequest(at('edge1', `${first}?wait=edges`), { method: 'DELETE', headers: admin });
  t.equal(gone.status, 204);
  t.equal(gone.headers['takedown-confirmed'], '2/2', 'whichever origins the edges follow');
  await untilAsync('both edges show nothing', async () =>
    (await Promise.all([read('edge1', first), read('edge2', first)])).every((text) => text === '410'),
  );

  const pids = PARTS.map((part) => cluster.pidOf(part));
  t.ok(
    pids.every((pid) => pid > 0),
    cluster.out(),
  );
  t.equal(await end(cluster), 0);
  t.same(pids.filter(lives), [], 'nothing is left running');

  const again = await start(t, folder, ports as Ports);
  t.equal(await read('edge1', kept), 'kept', 'a second start goes on with what was stored');
  t.equal(await read('origin2', first), '410');
  const lastPids = PARTS.map((part) => again.pidOf(part));
  const killed = once(again.child, 'exit');
  again.child.kill('SIGKILL');
  await killed;
  const left = (): readonly string[] => PARTS.filter((_, index) => lives(lastPids[index] ?? 0));
  await untilAsync('nothing is left, although it could end nothing itself', async () => left().length === 0).catch(() =>
    t.fail(`left: ${left().join(', ')}`),
  );
});
