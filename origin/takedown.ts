/**
 * What takedowns have in common: `?wait=edges` answers once every connected
 * edge has applied the entry, or the configured wait is over.
 */
import { emptyReply, type Reply } from '../src/http/reply.js';
import type { JournalStream } from './journal-stream.js';

export interface TakedownParts {
  readonly journal: Pick<JournalStream, 'confirmed'>;
}

/** 204; with the count of edges that have confirmed where the caller waits for them (CONTRACT, Edge). */
export async function takenDown(
  parts: TakedownParts,
  seq: number,
  wait: 'edges' | undefined,
  signal: AbortSignal,
): Promise<Reply> {
  if (wait === undefined) return emptyReply(204, [NO_STORE]);
  const { confirmed, connected } = await parts.journal.confirmed(seq, undefined, signal);
  return emptyReply(204, [NO_STORE, ['takedown-confirmed', `${confirmed}/${connected}`]]);
}

const NO_STORE = ['cache-control', 'no-store'] as const;
