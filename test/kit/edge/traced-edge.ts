/** A whole edge in the process of the test that records what it serves, and a load of requests that is the same for the same seed. */
import { Agent } from 'node:http';
import { join } from 'node:path';
import { edgeSection } from '../../../edge/config.js';
import { readTraces, type TraceColumns } from '../../../edge/simulate/read-trace.js';
import type { SimulatedConfig } from '../../../edge/simulate/settings.js';
import { parseConfig } from '../../../src/config/load.js';
import { json, sendRequest } from '../http/request.js';
import { seeded } from '../random.js';
import { until } from '../until.js';
import { startEdge } from './media-edge.js';
import { openScriptedOrigin } from './scripted-origin.js';

/** Keys below `edge` in config.yaml. */
export type EdgeKeys = Readonly<Record<string, unknown>>;

export interface Load {
  readonly seed: number;
  readonly requests: number;
  readonly objects: number;
  readonly sizeMaxBytes: number;
  /** How many clients send at once. A single one waits after each request until nothing is written or read any more. */
  readonly clients: number;
  /** Called with the number of requests before each one. */
  readonly before?: (sent: number, edge: { readonly operators: string }) => Promise<void>;
}

export interface LiveFigures {
  readonly objects: number;
  readonly bytes: number;
  readonly evictions: Readonly<Record<'memory' | 'disk', number>>;
  readonly outcomes: Readonly<Record<string, { readonly requests: number }>>;
}

/** Serves the load, and says what the edge's own figures are then. The trace is complete in `traceFolder(folder)`. */
export async function serveTraced(folder: string, keys: EdgeKeys, load: Load): Promise<LiveFigures> {
  const origin = await openScriptedOrigin();
  const types = ['image/jpeg', 'image/webp', 'video/mp4', 'audio/ogg', 'application/pdf'];
  const bodyOf = (number: number): Buffer => Buffer.alloc(sizeOf(load, number), number % 256);
  origin.on('*', ({ path, method }, answer) => {
    const number = Number(path.slice(1));
    const body = bodyOf(number);
    answer.head(200, {
      'content-type': types[number % types.length] ?? '',
      'content-length': String(body.length),
      'cache-control': 'max-age=86400',
      etag: `"${number}"`,
    });
    answer.end(method === 'HEAD' ? undefined : body);
  });
  const auth = { issuer: 'http://127.0.0.1:1', jwksUrl: 'http://127.0.0.1:1/jwks' };
  const edge = await startEdge(folder, { url: origin.url, auth } as Parameters<typeof startEdge>[1], {
    access: 'off',
    ...keys,
    cache: { folder: join(folder, 'cache'), ...(keys['cache'] as object) },
    trace: { enabled: true, folder: traceFolder(folder), ...(keys['trace'] as object) },
  });
  try {
    await send(edge, load);
    const stats = json(await sendRequest(`${edge.operators}/stats`));
    const { hit_ratio: objects, byte_hit_ratio: bytes, outcomes } = stats['requests'] as Record<string, unknown>;
    const { memory, disk } = stats['cache'] as Record<string, { readonly evictions: number }>;
    return {
      objects: Number(objects),
      bytes: Number(bytes),
      evictions: { memory: memory?.evictions ?? 0, disk: disk?.evictions ?? 0 },
      outcomes: outcomes as LiveFigures['outcomes'],
    };
  } finally {
    // What waits is written at the end.
    await edge.close();
    await origin.close();
  }
}

async function send(edge: { readonly url: string; readonly operators: string }, load: Load): Promise<void> {
  const random = seeded(load.seed);
  const agent = new Agent({ keepAlive: true, maxSockets: load.clients });
  let sent = 0;
  const client = async (): Promise<void> => {
    for (; sent < load.requests; ) {
      sent += 1;
      await load.before?.(sent, edge);
      // The lower numbers are asked for much more often.
      const number = Math.floor(load.objects ** random());
      const kind = random();
      const method = kind < 0.04 ? 'HEAD' : 'GET';
      await sendRequest(`${edge.url}/${number}`, {
        method,
        agent,
        headers: kind > 0.95 ? { range: 'bytes=0-99' } : {},
      });
      if (load.clients === 1) await diskRests();
    }
  };
  try {
    await Promise.all(Array.from({ length: load.clients }, client));
  } finally {
    agent.destroy();
  }
}

/** No file operation of this process is under way, in two turns of the event loop. */
async function diskRests(): Promise<void> {
  for (let turn = 0; turn < 2; turn += 1) {
    await new Promise(setImmediate);
    await until('the disk to rest', () => !process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq')));
  }
}

/** Most bodies are small, a few are large. */
function sizeOf({ seed, sizeMaxBytes }: Load, number: number): number {
  return Math.floor(200 + (sizeMaxBytes - 200) * seeded(seed * 100_003 + number)() ** 4);
}

export function traceFolder(folder: string): string {
  return join(folder, 'trace');
}

export function readTracesIn(folder: string, sampleShare = 1): Promise<TraceColumns> {
  const { signal } = new AbortController();
  return readTraces([traceFolder(folder)], { sampleShare, signal, progress: () => undefined });
}

export function configOf(keys: EdgeKeys): SimulatedConfig {
  const outcome = parseConfig(JSON.stringify({ edge: keys }), { edge: edgeSection });
  if (outcome.kind === 'faulty') throw new Error(JSON.stringify(outcome.faults));
  return outcome.config.edge;
}
