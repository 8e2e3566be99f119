/**
 * Tells the origin with each request of this edge how far the edge has applied the journal, so that no origin answers
 * with what this edge has dropped already. An answer that was made of an older state is no answer: another cache may be
 * in between.
 */
import { headerOf } from '../../src/http/reply.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import { readPosition, writePosition } from '../../src/journal/position-field.js';
import { EDGE_PROOF, MEDIA_POSITION } from '../../src/wire.js';
import type { UpstreamOutcome } from './request.js';
import type { Upstream } from './upstream.js';

/** `positionNow`: undefined while it is not known. */
export function fenceUpstream(upstream: Upstream, positionNow: () => JournalPosition | undefined): Upstream {
  return {
    ...upstream,
    async fetch(request, signal) {
      const position = request.headers.some(([name]) => name === EDGE_PROOF) ? positionNow() : undefined;
      if (position === undefined) return await upstream.fetch(request, signal);
      const headers = [...request.headers, [MEDIA_POSITION, writePosition(position)] as const];
      return judged(await upstream.fetch({ ...request, headers }, signal), position);
    },
    get tlsTrouble() {
      return upstream.tlsTrouble;
    },
  };
}

function judged(outcome: UpstreamOutcome, asked: JournalPosition): UpstreamOutcome {
  if (outcome.kind === 'failed') return outcome;
  const field = headerOf(outcome.headers, MEDIA_POSITION);
  if (field === undefined) return outcome;
  const told = readPosition(field);
  if (told?.journal === asked.journal && told.seq < asked.seq) {
    outcome.body.destroy();
    return { kind: 'failed', failure: 'outdated' };
  }
  return { ...outcome, headers: outcome.headers.filter(([name]) => name !== MEDIA_POSITION) };
}
