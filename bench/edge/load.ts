/**
 * Sends requests over a number of connections for some time, one at a time on
 * each, and checks the answers. It runs as a process of its own, so that its work
 * is not measured with that of a server. HTTP/1.1 goes over bare sockets, because
 * the client must cost little compared with a server. Connections that are kept
 * are opened, and used once, before anything is measured.
 */
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2, type OutgoingHttpHeaders } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { cpuMsOf } from './cpu.js';

export interface LoadTask {
  readonly port: number;
  readonly protocol: 'http/1.1' | 'h2';
  readonly tls: boolean;
  readonly method: string;
  /** One is taken at random for each request. `{n}` stands for a number that no other request has. */
  readonly paths: readonly string[];
  /** With Zipf's law: the first path most often. */
  readonly zipf: boolean;
  /** Fields with their line ends, and without the empty line. */
  readonly fields: string;
  readonly body: string;
  /** One line of fields that is added, taken at random. */
  readonly lines: readonly string[];
  readonly connections: number;
  readonly newConnections: boolean;
  readonly forMs: number;
  readonly status: number;
  /** The length of each body; null where any will do. */
  readonly sizeBytes: number | null;
  /** The processes of the server, whose processor time is measured. */
  readonly pids: readonly number[];
  /** Of the first number in place of `{n}`. */
  readonly from: number;
}

export type LoadAnswer =
  | {
      readonly requests: number;
      readonly wallMs: number;
      readonly cpuMs: number;
      readonly p50Ms: number;
      readonly p99Ms: number;
    }
  | { readonly failed: string };

process.on('message', (task: LoadTask) => {
  load(task).then(
    (answer) => process.send?.(answer),
    (thrown: unknown) => process.send?.({ failed: String(thrown) } satisfies LoadAnswer),
  );
});
process.once('disconnect', () => process.exit());

async function load(task: LoadTask): Promise<LoadAnswer> {
  const run = new Run(task);
  if (task.protocol === 'h2') {
    const sessions = Math.ceil(task.connections / STREAMS);
    await Promise.all(Array.from({ length: sessions }, () => http2Client(run)));
  } else {
    await Promise.all(Array.from({ length: task.connections }, () => http1Client(run)));
  }
  return run.answer();
}

/** Requests at once on one HTTP/2 connection. */
const STREAMS = 8;

/** What all connections of a task share. */
class Run {
  readonly task: LoadTask;
  #startedMs = Number.POSITIVE_INFINITY;
  #beganCpuMs = 0;
  #ended: { readonly atMs: number; readonly cpuMs: number } | undefined;
  #waiting: (() => void)[] = [];
  readonly #tookMs: number[] = [];
  readonly #cumulated: number[] = [];
  #number: number;

  constructor(task: LoadTask) {
    this.task = task;
    this.#number = task.from;
    let sum = 0;
    if (!task.zipf) return;
    for (let rank = 1; rank <= task.paths.length; rank += 1) {
      sum += 1 / rank ** 0.9;
      this.#cumulated.push(sum);
    }
  }

  get over(): boolean {
    const over = performance.now() - this.#startedMs >= this.task.forMs;
    if (over) this.#ended ??= { atMs: performance.now(), cpuMs: cpuMsOf(this.task.pids) };
    return over;
  }

  /** Calls back once all connections have got here. Those that are not kept need not wait for each other. */
  begin(go: () => void): void {
    this.#waiting.push(go);
    if (this.#waiting.length < this.task.connections) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#tookMs.length = 0;
    this.#beganCpuMs = cpuMsOf(this.task.pids);
    this.#startedMs = performance.now();
    for (const each of waiting) each();
  }

  path(): string {
    const { paths, zipf } = this.task;
    const path = paths[zipf ? this.#rank() : Math.floor(Math.random() * paths.length)] ?? '/';
    this.#number += 1;
    return path.replace('{n}', String(this.#number));
  }

  line(): string {
    const { lines } = this.task;
    return lines.length === 0 ? '' : (lines[Math.floor(Math.random() * lines.length)] ?? '');
  }

  #rank(): number {
    const wanted = Math.random() * (this.#cumulated.at(-1) ?? 0);
    let [low, high] = [0, this.#cumulated.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#cumulated[middle] ?? 0) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  done(sentMs: number): void {
    if (this.#ended === undefined) this.#tookMs.push(performance.now() - sentMs);
  }

  answer(): LoadAnswer {
    const took = Float64Array.from(this.#tookMs).sort();
    const at = (share: number): number => took[Math.floor(took.length * share)] ?? Number.NaN;
    const { atMs = 0, cpuMs = 0 } = this.#ended ?? {};
    return {
      requests: took.length,
      wallMs: atMs - this.#startedMs,
      cpuMs: cpuMs - this.#beganCpuMs,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
    };
  }
}

async function http1Client(run: Run): Promise<void> {
  if (!run.task.newConnections) return await onConnection(run);
  await new Promise<void>((resolve) => run.begin(resolve));
  while (!run.over) await onConnection(run);
}

const HEAD_END = Buffer.from('\r\n\r\n');

function open({ port, tls }: LoadTask): Socket {
  if (!tls) return connect({ port, host: '127.0.0.1', noDelay: true });
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] });
  return socket.setNoDelay(true);
}

function onConnection(run: Run): Promise<void> {
  const { task } = run;
  return new Promise((resolve, reject) => {
    const socket = open(task);
    let received: Buffer = Buffer.alloc(0);
    let bodyLeft = 0;
    let [sentMs, whole, first] = [0, false, true];
    const send = (): void => {
      sentMs = task.newConnections ? sentMs : performance.now();
      whole = false;
      socket.write(`${task.method} ${run.path()} HTTP/1.1\r\n${task.fields}${run.line()}\r\n${task.body}`);
    };
    const done = (): void => {
      whole = true;
      run.done(sentMs);
      if (task.newConnections || run.over) socket.end();
      else if (first) run.begin(send);
      else send();
      first = false;
    };
    const take = (bytes: number): void => {
      bodyLeft -= bytes;
      if (bodyLeft === 0) done();
      else if (bodyLeft < 0) socket.destroy(new Error('the body is longer than its Content-Length'));
    };
    socket.on('data', (chunk: Buffer) => {
      if (bodyLeft > 0) {
        take(chunk.length);
        return;
      }
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      const end = received.indexOf(HEAD_END);
      if (end < 0) return;
      const head = received.toString('latin1', 0, end);
      const rest = received.length - end - HEAD_END.length;
      received = Buffer.alloc(0);
      const sizeBytes = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
      const bodiless = task.method === 'HEAD' || task.status === 304;
      if (!head.startsWith(`HTTP/1.1 ${task.status} `) || (!bodiless && (task.sizeBytes ?? sizeBytes) !== sizeBytes)) {
        socket.destroy(new Error(`unexpected answer ${head.slice(0, 300)}`));
        return;
      }
      bodyLeft = bodiless ? 0 : sizeBytes;
      take(rest);
    });
    sentMs = performance.now();
    socket.once(task.tls ? 'secureConnect' : 'connect', send);
    socket.once('error', reject);
    socket.once('close', () => (whole ? resolve() : reject(new Error('the connection ended before its answer'))));
  });
}

async function http2Client(run: Run): Promise<void> {
  const settings = { initialWindowSize: 16_777_216 };
  const session = connectHttp2(`https://127.0.0.1:${run.task.port}`, { rejectUnauthorized: false, settings });
  await once(session, 'connect');
  session.setLocalWindowSize(16_777_216);
  const fields = Object.fromEntries(
    run.task.fields
      .split('\r\n')
      .filter((line) => line !== '' && !/^(host|connection):/i.test(line))
      .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]),
  );
  const one = async (): Promise<void> => {
    await onStream(run, session, fields);
    await new Promise<void>((resolve) => run.begin(resolve));
    while (!run.over) await onStream(run, session, fields);
  };
  try {
    await Promise.all(Array.from({ length: STREAMS }, one));
  } finally {
    session.close();
  }
}

function onStream(run: Run, session: ClientHttp2Session, fields: OutgoingHttpHeaders): Promise<void> {
  const { task } = run;
  const sentMs = performance.now();
  return new Promise((resolve, reject) => {
    let left = task.sizeBytes ?? 0;
    const stream = session.request({ ':method': task.method, ':path': run.path(), ...fields });
    stream.once('response', (head) => {
      if (head[':status'] !== task.status) reject(new Error(`unexpected answer ${String(head[':status'])}`));
    });
    stream.on('data', (chunk: Buffer) => (left -= chunk.length));
    stream.once('error', reject);
    stream.once('end', () => {
      run.done(sentMs);
      if (left === 0) resolve();
      else reject(new Error('the body has another length'));
    });
  });
}
