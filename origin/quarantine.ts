/**
 * Quarantine and restore: authorize > mark > audit > confirm. The request names
 * an id or a hash. The mark is on the blob, so it covers every id of these bytes.
 */
import type { Gate } from '../src/access/grant.js';
import { Fault } from '../src/errors.js';
import type { Reply } from '../src/http/reply.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { requireAdmin } from './authorize.js';
import type { MetaStore, QuarantineOutcome } from './meta/store.js';
import type { OriginRequest } from './server/request.js';
import { recordChange, type TakedownDeps, type TakedownOptions, takenDown } from './takedown.js';

export interface QuarantineDeps extends TakedownDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'quarantine' | 'restore'>;
}

export async function quarantine(
  deps: QuarantineDeps,
  request: OriginRequest,
  target: MediaId | Sha256,
  options: TakedownOptions,
): Promise<Reply> {
  const caller = await requireAdmin(deps.gate, request);
  const { reason } = options;
  const mark = { at: request.receivedAt, by: caller.subject, reason: reason ?? null, cause: 'admin' } as const;
  const outcome = await recordChange<QuarantineOutcome>(
    deps,
    request,
    caller,
    { act: 'quarantine', target, reason },
    (note) => deps.meta.quarantine(target, mark, note),
  );
  return await takenDown(deps, seqOf(outcome), options.wait, request.signal);
}

export async function restore(
  deps: QuarantineDeps,
  request: OriginRequest,
  target: MediaId | Sha256,
  { wait, reason }: TakedownOptions,
): Promise<Reply> {
  const caller = await requireAdmin(deps.gate, request);
  const act = { act: 'restore', target, reason } as const;
  const outcome = await recordChange<QuarantineOutcome>(deps, request, caller, act, (note) =>
    deps.meta.restore(target, request.receivedAt, note),
  );
  return await takenDown(deps, seqOf(outcome), wait, request.signal);
}

/** The journal entry of the mark, whether added now or before. */
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
