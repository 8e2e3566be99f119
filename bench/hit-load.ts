/**
 * Sends the same request again and again over a number of connections, one at a
 * time on each, and checks the answers. It runs as a process of its own, so that
 * its work is not measured with that of a server. It uses plain sockets, because
 * it must cost little compared with a server.
 */
import { createHash } from 'node:crypto';
import { connect } from 'node:net';

export interface LoadTask {
  readonly port: number;
  /** The whole head of the request, with its empty line. */
  readonly request: string;
  readonly connections: number;
  readonly requests: number;
  readonly status: number;
  /** The hash of the expected body in lower-case hex; null if there is none. */
  readonly sha256: string | null;
}

export type LoadAnswer = { readonly wallMs: number } | { readonly failed: string };

process.on('message', (task: LoadTask) => {
  load(task).then(
    (wallMs) => process.send?.({ wallMs } satisfies LoadAnswer),
    (thrown: unknown) => process.send?.({ failed: String(thrown) } satisfies LoadAnswer),
  );
});
process.once('disconnect', () => process.exit());

async function load(task: LoadTask): Promise<number> {
  let left = task.requests;
  const startedMs = performance.now();
  await Promise.all(Array.from({ length: task.connections }, () => client(task, () => left-- > 0)));
  return performance.now() - startedMs;
}

const HEAD_END = Buffer.from('\r\n\r\n');

function client(task: LoadTask, another: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(task.port, '127.0.0.1');
    socket.setNoDelay(true);
    let received: Buffer = Buffer.alloc(0);
    let bodyLeft = -1;
    let first: Buffer[] | undefined = [];
    const next = (): void => {
      if (another()) socket.write(task.request);
      else socket.end();
    };
    const done = (): void => {
      bodyLeft = -1;
      if (first !== undefined && task.sha256 !== null) {
        const sha256 = createHash('sha256').update(Buffer.concat(first)).digest('hex');
        if (sha256 !== task.sha256) socket.destroy(new Error('the body is not the expected one'));
      }
      first = undefined;
      next();
    };
    const take = (chunk: Buffer): void => {
      first?.push(chunk);
      bodyLeft -= chunk.length;
      if (bodyLeft === 0) done();
      else if (bodyLeft < 0) socket.destroy(new Error('the body is longer than its Content-Length'));
    };
    socket.on('data', (chunk: Buffer) => {
      if (bodyLeft > 0) {
        take(chunk);
        return;
      }
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      const end = received.indexOf(HEAD_END);
      if (end < 0) return;
      const head = received.toString('latin1', 0, end);
      const rest = received.subarray(end + HEAD_END.length);
      received = Buffer.alloc(0);
      if (!head.startsWith(`HTTP/1.1 ${task.status} `)) {
        socket.destroy(new Error(`unexpected answer ${head.slice(0, 300)}`));
        return;
      }
      bodyLeft = task.sha256 === null ? 0 : Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1]);
      if (bodyLeft === 0) done();
      else if (rest.length > 0) take(rest);
    });
    socket.once('connect', next);
    socket.once('error', reject);
    socket.once('close', () => resolve());
  });
}
