/**
 * DELETE of one id: authorize > mark > audit > confirm. Mark and journal entry
 * are one transaction. The sweeper removes the blob later, unless another id
 * refers to it.
 */
import type { Gate } from '../src/access/grant.js';
import { Fault } from '../src/errors.js';
import type { Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { requireAdmin } from './authorize.js';
import type { MetaStore } from './meta/store.js';
import type { OriginRequest } from './server/request.js';
import { recordAct, type TakedownDeps, takenDown } from './takedown.js';

export interface RemoveDeps extends TakedownDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'remove'>;
}

export async function remove(
  deps: RemoveDeps,
  request: OriginRequest,
  id: MediaId,
  wait: 'edges' | undefined,
): Promise<Reply> {
  const caller = await requireAdmin(deps.gate, request);
  const outcome = await deps.meta.remove(id, caller.subject, request.receivedAt);
  await recordAct(deps, request, caller, {
    act: 'delete',
    target: id,
    outcome: outcome.kind,
    ...('seq' in outcome && { seq: outcome.seq }),
  });
  switch (outcome.kind) {
    case 'unknown':
      throw new Fault('not_found', 'There is no media with this id.');
    // A repeated delete gets the same response and waits for the same journal entry.
    case 'already':
    case 'removed':
      return await takenDown(deps, outcome.seq, wait, request.signal);
  }
}
