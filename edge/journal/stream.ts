/**
 * The bytes of the journal stream: opens it within a deadline, splits it into
 * lines of the protocol, and gives up when nothing arrives. Leaves the meaning of
 * the lines to the session.
 */
import type { Readable } from 'node:stream';
import { onAbort } from '../../src/abort.js';
import type { Clock } from '../../src/clock.js';
import { JOURNAL_PATH, type JournalLine, type JournalPosition, parseLine } from '../../src/journal/entry.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { FollowerDeps } from './config.js';

export type SessionEnd =
  | 'closing'
  | 'unreachable'
  | 'refused'
  | 'closed_by_origin'
  /** No entry and no beat for too long: the connection is dead. */
  | 'silent'
  /** Beats arrive too late to say anything about the present. */
  | 'delayed'
  /** A line that is not of the protocol, or out of order. */
  | 'garbled'
  /** The newest entry of the origin has another mark than the one applied here: its metadata were set back. */
  | 'other_history'
  /** The origin does not know that this edge follows it. */
  | 'not_counted'
  /** The cache could not apply an entry. */
  | 'not_applied';

/** The error that ends a session, from anywhere inside it. */
export class SessionEnded extends Error {
  readonly reason: SessionEnd;
  constructor(reason: SessionEnd, cause?: unknown) {
    super(reason, { cause });
    this.reason = reason;
  }
}

/** Asks for all entries after `position`, or without one for new entries only. */
export async function openStream(
  deps: FollowerDeps,
  position: JournalPosition | undefined,
  ending: AbortController,
): Promise<Readable> {
  const query = new URLSearchParams({ edge: deps.edgeName, instance: deps.instance });
  if (position !== undefined) {
    query.set('from', String(position.seq));
    query.set('journal', position.journal);
    if (position.mark !== null) query.set('mark', position.mark);
  }
  const timer = deps.clock.after(deps.config.connectTimeoutMs, () =>
    ending.abort(new SessionEnded('unreachable', new Error('no response in time'))),
  );
  try {
    const { status, body } = await deps.open(
      {
        method: 'GET',
        target: `${JOURNAL_PATH}?${query.toString()}`,
        headers: [[EDGE_PROOF, deps.proof()]],
      },
      ending.signal,
    );
    if (status === 200) return body;
    body.on('error', () => {}).destroy();
    throw new SessionEnded('refused', new Error(`the origin answered ${status}`));
  } catch (thrown) {
    throw thrown instanceof SessionEnded ? thrown : new SessionEnded('unreachable', thrown);
  } finally {
    timer.cancel();
  }
}

/** The chunks of a body, until its end. If one does not arrive in time, the session ends. */
export async function* chunksOf(
  body: Readable,
  ending: AbortController,
  clock: Clock,
  waitMaxMs: () => number,
): AsyncGenerator<Buffer> {
  const stopListening = onAbort(ending.signal, () => void body.destroy(ending.signal.reason as Error));
  body.on('error', () => {});
  const iterator = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  try {
    for (;;) {
      // Only this wait is limited: while a long batch is applied, the origin is not silent.
      const timer = clock.after(waitMaxMs(), () => ending.abort(new SessionEnded('silent')));
      const next = await iterator.next().finally(() => timer.cancel());
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    stopListening();
    body.destroy();
  }
}

/** Splits bytes, in pieces of any size, into lines of the protocol. */
export function createLineSplitter(lineMaxBytes: number): (chunk: Buffer) => JournalLine[] {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  return (chunk) => {
    const lines: JournalLine[] = [];
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, from)) {
      const line = parseLine(Buffer.concat([...pending, chunk.subarray(from, end)]).toString('utf8'));
      if (line === undefined) throw new SessionEnded('garbled', new Error('not a line of the protocol'));
      lines.push(line);
      pending = [];
      pendingBytes = 0;
      from = end + 1;
    }
    const rest = chunk.subarray(from);
    if (rest.length > 0) pending.push(rest);
    pendingBytes += rest.length;
    if (pendingBytes > lineMaxBytes) throw new SessionEnded('garbled', new Error('a line is too long'));
    return lines;
  };
}
