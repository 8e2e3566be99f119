/**
 * `npm run bench edge -- [--rows TEXT,…] [--rounds N] [--slice SECONDS] [--heat SECONDS] [--beside FOLDER] [--write]`
 *
 * Processor time per request of the edge beside nginx, Varnish and node:http, in
 * one run: each round measures all servers of a row one after the other, and a
 * ratio is that of one round. Every answer is compared with the expected bytes
 * before it is timed. Processor time is read from the system (Linux), so that a
 * busy machine changes the requests per second much more than these figures.
 *
 * `--heat`: how much processor time the edge has used up for a row before it is measured.
 * `--rows`: only the rows whose names contain one of these texts. `--beside`: the
 * folder of another build, whose edges are measured in the same rounds.
 * `--write`: puts the table into bench/README.md and draws bench/edge.svg.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { LoadAnswer, LoadTask } from './load.js';
import { versionOf } from './others.js';
import { prove } from './prove.js';
import { type Measured, printRow, type RowResult, writeReport } from './report.js';
import { ROWS, type Row } from './rows.js';
import { type Server, type Started, startServers } from './servers.js';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '' },
    rounds: { type: 'string', default: '5' },
    slice: { type: 'string', default: '1' },
    heat: { type: 'string', default: '3' },
    beside: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});
/** Far apart for each task, so that no number of a new path comes twice. */
let from = Date.now();
const texts = values.rows.split(',');
const rows = ROWS.filter(({ name }) => texts.some((text) => name.includes(text)));
const [rounds, sliceMs, heatMs] = [Number(values.rounds), Number(values.slice) * 1_000, Number(values.heat) * 1_000];
const folder = mkdtempSync(join(tmpdir(), 'bench-edge-'));
const stops: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
try {
  await main();
} finally {
  for (const stop of stops.toReversed()) await stop();
}

async function main(): Promise<void> {
  const versions = [
    `node ${process.version.slice(1)}`,
    ...(['nginx', 'varnishd'] as const).map((program) => `${program} ${versionOf(program) ?? 'is not installed'}`),
    `${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}`,
    `${rounds} rounds of ${values.slice} s`,
  ].join(', ');
  process.stdout.write(`${versions}\n`);
  const started = await startServers({
    folder,
    wanted: new Set(rows.flatMap(({ servers }) => servers)),
    beside: values.beside === undefined ? undefined : resolve(values.beside, 'dist/src/cli.js'),
    stops,
  });
  const load = fork(new URL('./load.js', import.meta.url));
  load.once('exit', () => load.emit('error', new Error('the client has ended')));
  stops.push(() => load.removeAllListeners('exit').disconnect());
  const results: RowResult[] = [];
  for (const row of rows) {
    const result = await measureRow(load, started, row);
    results.push(result);
    printRow(result);
  }
  if (values.write) writeReport(results, versions);
}

async function measureRow(load: ChildProcess, started: Started, row: Row): Promise<RowResult> {
  const names: readonly string[] = [...row.servers, ...row.servers.map((name) => `${name} (beside)`)];
  const servers = started.servers.filter(({ name }) => names.includes(name));
  const measured = new Map<string, Measured[]>(servers.map(({ name }) => [name, []]));
  for (const server of servers) {
    const task = taskOf(server, row, started);
    await prove(server, row, task, started.bodies);
    // Native programs need no compiler to warm up.
    const enoughMs = server.name.startsWith('edge') || server.name === 'node:http' ? heatMs : 0;
    for (let cpuMs = -1; cpuMs < enoughMs; ) {
      const heated = await loaded(load, server, row, { ...taskOf(server, row, started), forMs: 500 });
      cpuMs += heated.cpuMs;
    }
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const server of servers) {
      const { requests, wallMs, cpuMs, p50Ms, p99Ms } = await loaded(load, server, row, taskOf(server, row, started));
      measured
        .get(server.name)
        ?.push({ cpuUs: (cpuMs * 1_000) / requests, perSecond: (requests * 1_000) / wallMs, p50Ms, p99Ms });
    }
  }
  return { row, measured };
}

async function loaded(load: ChildProcess, server: Server, row: Row, task: LoadTask) {
  load.send(task);
  const [answer] = (await once(load, 'message')) as [LoadAnswer];
  if ('failed' in answer) throw new Error(`${server.name}, ${row.name}: ${answer.failed}`);
  return answer;
}

function taskOf(server: Server, row: Row, { bodies }: Started): LoadTask {
  const { what } = row;
  const body = row.method === 'POST' ? '{}' : '';
  const length = body === '' ? '' : `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
  const close = row.connection === 'closed' ? 'Connection: close\r\n' : '';
  from += 10_000_000;
  const whole = what.kind === 'content' ? bodies.get(what.content) : undefined;
  return {
    port: server.port,
    protocol: row.protocol,
    tls: server.tls,
    method: row.method,
    paths: pathsOf(server, row),
    zipf: what.kind === 'zipf',
    fields: `Host: 127.0.0.1:${server.port}\r\n${row.fields}${server.fields}${length}${close}`,
    body,
    lines: linesOf(row, whole),
    connections: row.connections,
    newConnections: row.connection !== 'kept',
    forMs: sliceMs,
    status: row.status,
    pids: server.pids(),
    sizeBytes:
      row.rangeBytes ?? (what.kind === 'new' || what.kind === 'zipf' ? what.sizeBytes : (whole?.length ?? null)),
    from,
  };
}

/** The entity tag of a body, which is the same at each server, or its ranges. */
function linesOf({ conditional, rangeBytes }: Row, body: Buffer | undefined): readonly string[] {
  if (body === undefined) return [];
  if (conditional) return [`If-None-Match: "sha256:${createHash('sha256').update(body).digest('hex')}"\r\n`];
  if (rangeBytes === null) return [];
  return Array.from({ length: body.length / rangeBytes }, (_, index) => {
    const first = index * rangeBytes;
    return `Range: bytes=${first}-${first + rangeBytes - 1}\r\n`;
  });
}

function pathsOf(server: Server, { what }: Row): readonly string[] {
  switch (what.kind) {
    case 'content':
      return [server.pathOf(what.content)];
    case 'new':
      return [`/new/{n}/${what.sizeBytes}`];
    case 'zipf':
      return Array.from({ length: what.paths }, (_, rank) => `/zipf/${rank}/${what.sizeBytes}`);
    case 'post':
      return [`${server.pathOf('k1')}/link`];
  }
}
