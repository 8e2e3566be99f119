/**
 * DELETE of one id, by an admin or, where that is allowed, by whoever uploaded it: authorize > mark > audit > confirm. Mark and journal entry
 * are one transaction. The sweeper removes the blob later, unless another id
 * refers to it.
 */
import type { Caller, Gate } from '../src/access/grant.js';
import { Fault } from '../src/errors.js';
import type { Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { requireKeeper } from './authorize.js';
import type { Found } from './meta/media.js';
import type { MetaStore, RemoveOutcome } from './meta/store.js';
import type { OriginRequest } from './server/request.js';
import { recordChange, type TakedownDeps, type TakedownOptions, takenDown } from './takedown.js';

export interface RemoveDeps extends TakedownDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find' | 'remove'>;
  readonly ownersMayDelete: boolean;
}

export async function remove(
  deps: RemoveDeps,
  request: OriginRequest,
  id: MediaId,
  { wait, reason }: TakedownOptions,
): Promise<Reply> {
  const { caller, over } = await requireKeeper(deps.gate, request, deps.ownersMayDelete);
  if (over === 'own') requireOwn(await deps.meta.find(id, request.receivedAt), caller);
  const act = { act: 'delete', target: id, reason } as const;
  const outcome = await recordChange<RemoveOutcome>(deps, request, caller, act, (note) =>
    deps.meta.remove(id, caller.subject, request.receivedAt, note),
  );
  switch (outcome.kind) {
    case 'unknown':
      throw new Fault('not_found', 'There is no media with this id.');
    // A repeated delete gets the same response and waits for the same journal entry.
    case 'already':
    case 'removed':
      return await takenDown(deps, outcome.seq, wait, request.signal);
  }
}

/** An owner never changes, so the media are the caller's when they are marked too. */
function requireOwn(found: Found, { subject }: Caller): void {
  if (found.kind === 'unknown') throw new Fault('not_found', 'There is no media with this id.');
  const { owner } = 'media' in found ? found.media.record : found.record;
  if (owner !== subject) throw new Fault('forbidden', 'Somebody else uploaded this media.');
}
