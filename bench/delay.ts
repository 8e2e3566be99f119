/**
 * `npm run bench delay -- [SECONDS]`: how long the event loop of an edge is kept from
 * its other work while every request is a miss, memory and disk are full, and each
 * fill evicts others. Linux only: processor time of one thread is read from the system.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openProcesses } from '../test/kit/processes.js';
import { untilAsync } from '../test/kit/until.js';
import type { Delays } from './delay-probe.js';
import type { LoadAnswer, LoadTask } from './edge/load.js';

const SIZES = [8_192, 65_536, 1_048_576] as const;
const seconds = Number(process.argv[2] ?? '10');
const folder = mkdtempSync(join(tmpdir(), 'bench-delay-'));
const report = join(folder, 'delays.json');
const probe = fileURLToPath(new URL('./delay-probe.js', import.meta.url));
const origin = fork(new URL('./edge/bare.js', import.meta.url), [folder]);
const load = fork(new URL('./edge/load.js', import.meta.url));
const processes = await openProcesses(folder);
try {
  await measure();
} finally {
  await processes.close();
  load.disconnect();
  origin.disconnect();
  rmSync(folder, { recursive: true, force: true });
}

async function measure(): Promise<void> {
  const [port] = (await once(origin, 'message')) as [number];
  const edge = await processes.launch(
    'edge',
    {
      access: 'off',
      rate_limits: { enabled: false },
      upstream: { url: `http://127.0.0.1:${port}` },
      cache: { memory: { size: '32MB' }, disk: { size: '64MB', fill_room: '32MB', min_free: '0B' } },
    },
    { env: { NODE_OPTIONS: `--import ${probe}`, DELAY_REPORT: report } },
  );
  const edgePort = Number(new URL(await edge.ready).port);
  process.stdout.write(`node ${process.version}; milliseconds: 50 %, 99 %, 99.9 %, longest\n`);
  // Fills both tiers, so that all that follows evicts.
  for (let filled = 0; filled < 128; ) filled += await run(edgePort, 1_048_576, 1_000);
  for (const sizeBytes of SIZES) {
    await run(edgePort, sizeBytes, 1_000);
    rmSync(report, { force: true });
    process.kill(edge.pid, 'SIGUSR2');
    const requests = await run(edgePort, sizeBytes, seconds * 1_000);
    process.kill(edge.pid, 'SIGUSR2');
    const delays = await readReport();
    const columns = (values: readonly number[]): string => values.map((ms) => ms.toFixed(1).padStart(7)).join('');
    process.stdout.write(
      `${String(sizeBytes / 1_024).padStart(5)} KiB, ${requests} misses: busy${columns(delays.busy)}; by the clock${columns(delays.late)}\n`,
    );
  }
}

async function run(port: number, sizeBytes: number, forMs: number): Promise<number> {
  const task: LoadTask = {
    port,
    protocol: 'http/1.1',
    tls: false,
    method: 'GET',
    paths: [`/new/{n}/${sizeBytes}`],
    zipf: false,
    fields: `Host: 127.0.0.1:${port}\r\nAccept: */*\r\n`,
    body: '',
    lines: [],
    connections: 16,
    newConnections: false,
    forMs,
    status: 200,
    pids: [],
    sizeBytes,
    from: Math.round(performance.timeOrigin + performance.now() * 1_000),
  };
  load.send(task);
  const [answer] = (await once(load, 'message')) as [LoadAnswer];
  if ('failed' in answer) throw new Error(answer.failed);
  return answer.requests;
}

async function readReport(): Promise<Delays> {
  let delays: Delays | undefined;
  await untilAsync('the report of the probe', async () => {
    try {
      delays = JSON.parse(readFileSync(report, 'utf8')) as Delays;
    } catch {
      return false;
    }
    return true;
  });
  if (delays === undefined) throw new Error('the probe has reported nothing');
  return delays;
}
