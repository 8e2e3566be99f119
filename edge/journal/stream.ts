/**
 * The bytes of the journal stream: opened within a bound, cut into lines of the
 * protocol, given up when nothing comes. Knows nothing of what the lines mean.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { JOURNAL_PATH, type JournalLine, parseLine } from '../../src/journal/entry.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { FollowerDeps } from './config.js';
import type { Position } from './position.js';

export type SessionEnd =
  | 'closing'
  | 'unreachable'
  | 'refused'
  | 'closed_by_origin'
  /** Neither entry nor beat came for too long: a connection of which only this end is left. */
  | 'silent'
  /** Beats come, but so late that they say nothing about now. */
  | 'delayed'
  /** Not the protocol, or out of order. */
  | 'garbled'
  /** The origin does not count this edge among those that follow. */
  | 'not_counted'
  /** The cache could not apply an entry. */
  | 'not_applied';

/** Ends a session from anywhere inside it. */
export class SessionOver extends Error {
  readonly reason: SessionEnd;
  constructor(reason: SessionEnd, cause?: unknown) {
    super(reason, { cause });
    this.reason = reason;
  }
}

/** Asks for all that follows `position`; without one, for what comes from now on. */
export async function openStream(
  options: FollowerDeps,
  position: Position | undefined,
  over: AbortController,
): Promise<Readable> {
  const query = new URLSearchParams({ edge: options.edgeName, instance: options.instance });
  if (position !== undefined) {
    query.set('from', String(position.seq));
    query.set('journal', position.journal);
  }
  const timer = options.clock.after(options.config.connectTimeoutMs, () =>
    over.abort(new SessionOver('unreachable', new Error('no answer in time'))),
  );
  try {
    const { status, body } = await options.open(
      {
        method: 'GET',
        target: `${JOURNAL_PATH}?${query.toString()}`,
        headers: [[EDGE_PROOF, options.proof()]],
      },
      over.signal,
    );
    if (status === 200) return body;
    body.on('error', () => {}).destroy();
    throw new SessionOver('refused', new Error(`the origin answered ${status}`));
  } catch (thrown) {
    throw thrown instanceof SessionOver ? thrown : new SessionOver('unreachable', thrown);
  } finally {
    timer.cancel();
  }
}

/** The chunks of a body until its end; one that does not come in time ends the session. */
export async function* chunksOf(
  body: Readable,
  over: AbortController,
  clock: Clock,
  waitMaxMs: () => number,
): AsyncGenerator<Buffer> {
  const destroy = (): void => void body.destroy(over.signal.reason as Error);
  over.signal.addEventListener('abort', destroy, { once: true });
  body.on('error', () => {});
  const iterator = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  try {
    for (;;) {
      // Measured only while waiting: applying a long batch is not the origin's silence.
      const timer = clock.after(waitMaxMs(), () => over.abort(new SessionOver('silent')));
      const next = await iterator.next().finally(() => timer.cancel());
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    over.signal.removeEventListener('abort', destroy);
    body.destroy();
  }
}

/** Cuts bytes into lines of the protocol, whatever pieces they come in. */
export function createLineSplitter(lineMaxBytes: number): (chunk: Buffer) => JournalLine[] {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  return (chunk) => {
    const lines: JournalLine[] = [];
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, from)) {
      const line = parseLine(Buffer.concat([...pending, chunk.subarray(from, end)]).toString('utf8'));
      if (line === undefined) throw new SessionOver('garbled', new Error('not a line of the journal'));
      lines.push(line);
      pending = [];
      pendingBytes = 0;
      from = end + 1;
    }
    const rest = chunk.subarray(from);
    if (rest.length > 0) pending.push(rest);
    pendingBytes += rest.length;
    if (pendingBytes > lineMaxBytes) throw new SessionOver('garbled', new Error('a line is too long'));
    return lines;
  };
}
