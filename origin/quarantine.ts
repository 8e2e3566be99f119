/**
 * Quarantine and restore: authorize > mark > record > confirm. What is marked
 * are the bytes, so every id over them; what is named is an id or a hash.
 */
import type { Caller, Gate } from '../src/access/grant.js';
import { Fault } from '../src/errors.js';
import type { Reply } from '../src/http/reply.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { requireAdmin } from './authorize.js';
import type { MetaStore, QuarantineOutcome } from './meta/store.js';
import type { OriginRequest } from './server/request.js';
import { recordAct, type TakedownParts, takenDown } from './takedown.js';

export interface QuarantineParts extends TakedownParts {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'quarantine' | 'restore'>;
}

export interface QuarantineWish {
  readonly wait: 'edges' | undefined;
  readonly reason: string | undefined;
}

export async function quarantine(
  parts: QuarantineParts,
  request: OriginRequest,
  target: MediaId | Sha256,
  wish: QuarantineWish,
): Promise<Reply> {
  const caller = await requireAdmin(parts.gate, request);
  const outcome = await parts.meta.quarantine(target, {
    at: request.receivedAt,
    by: caller.subject,
    reason: wish.reason ?? null,
    cause: 'admin',
  });
  await recordMark(parts, request, caller, { act: 'quarantine', target, outcome, reason: wish.reason });
  return await takenDown(parts, seqOf(outcome), wish.wait, request.signal);
}

export async function restore(
  parts: QuarantineParts,
  request: OriginRequest,
  target: MediaId | Sha256,
  wait: 'edges' | undefined,
): Promise<Reply> {
  const caller = await requireAdmin(parts.gate, request);
  const outcome = await parts.meta.restore(target, request.receivedAt);
  await recordMark(parts, request, caller, { act: 'restore', target, outcome, reason: undefined });
  return await takenDown(parts, seqOf(outcome), wait, request.signal);
}

async function recordMark(
  parts: QuarantineParts,
  request: OriginRequest,
  caller: Caller,
  mark: {
    readonly act: 'quarantine' | 'restore';
    readonly target: MediaId | Sha256;
    readonly outcome: QuarantineOutcome;
    readonly reason: string | undefined;
  },
): Promise<void> {
  const { outcome } = mark;
  await recordAct(parts, request, caller, {
    ...mark,
    outcome: outcome.kind,
    ...('seq' in outcome && { seq: outcome.seq }),
  });
}

/** The entry that made it so, whether now or before. */
function seqOf(outcome: QuarantineOutcome): number {
  switch (outcome.kind) {
    case 'done':
    case 'already':
      return outcome.seq;
    case 'gone':
      throw outcome.state === 'deleted'
        ? new Fault('deleted', 'The media was deleted.')
        : new Fault('expired', 'The media has expired.');
    case 'unknown':
      throw new Fault('not_found', 'There is no media with this id.');
  }
}
