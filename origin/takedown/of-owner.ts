/**
 * An act on all media of one owner: delete, quarantine or restore. Authorize >
 * walk > audit > confirm. The walk goes through the owner's records in small
 * transactions, each with its journal entries, and ends when nothing is left, when
 * its time is over, or when the caller leaves.
 *
 * Promises: what the answer counts is done and journalled, and nothing else is. The
 * same request again goes on with what is left, and changes nothing twice. One line
 * in the audit log says how many media were changed, however the walk ended.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Caller, Gate } from '../../src/access/grant.js';
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, type ValueOf } from '../../src/config/field.js';
import { jsonReply, type Reply } from '../../src/http/reply.js';
import type { MediaId } from '../../src/ids.js';
import { requireAdmin } from '../authorize.js';
import type { MetaStore, OwnerAct } from '../meta/store.js';
import type { OriginRequest } from '../server/request.js';
import { confirmations, recordAct, type TakedownDeps } from '../takedown.js';

export const ownerActsSection = section('Acts of admins on all media of one owner.', {
  stepMax: integer({
    default: 100,
    min: 1,
    max: 10_000,
    help: 'Media per transaction. Other writes come in between.',
  }),
  timeMaxMs: duration({
    default: '20s',
    min: 0,
    max: 600_000,
    help: 'How long one request works. What is left then is done by the next request.',
  }),
});

export type OwnerActsConfig = ValueOf<typeof ownerActsSection>;

export interface OwnerActDeps extends TakedownDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'owned' | 'takeDownOwned'> & {
    readonly journal: Pick<MetaStore['journal'], 'refresh' | 'newest'>;
  };
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly config: TakedownDeps['config'] & { readonly ownerActs: OwnerActsConfig };
}

export interface OwnerActOptions {
  readonly wait: 'edges' | undefined;
  readonly reason?: string | undefined;
  /** The `next` of an answer. */
  readonly cursor: MediaId | undefined;
}

/** How far a walk has come. */
interface Walk {
  media: number;
  others: number;
  /** The last id looked at; null at the start, and when nothing is left. */
  next: MediaId | null;
  /** `partly`: its time was over. `failed`: the caller left, or a step failed; what was counted is done. */
  outcome: 'failed' | 'partly' | 'done';
}

export async function takeDownOwner(
  deps: OwnerActDeps,
  request: OriginRequest,
  kind: OwnerAct['kind'],
  owner: string,
  { wait, reason, cursor }: OwnerActOptions,
): Promise<Reply> {
  const caller = await requireAdmin(deps.gate, request);
  const walk: Walk = { media: 0, others: 0, next: cursor ?? null, outcome: 'failed' };
  try {
    await takeAll(deps, request, owner, actOf(kind, caller, request, reason), walk);
  } finally {
    const { outcome, media, others } = walk;
    await recordAct(deps, request, caller, {
      act: `${kind}_owner`,
      target: null,
      outcome,
      reason,
      owner,
      media,
      others,
    });
  }
  const { media, others, next } = walk;
  return jsonReply(202, { media, others, next }, [
    ...(next === null ? [] : [GO_ON]),
    ...(await confirmations(deps, await newestSeq(deps, wait), wait, request.signal)),
  ]);
}

const GO_ON = ['retry-after', '1'] as const;

function actOf(
  kind: OwnerAct['kind'],
  { subject }: Caller,
  { receivedAt }: OriginRequest,
  reason: string | undefined,
): OwnerAct {
  switch (kind) {
    case 'delete':
      return { kind, by: subject };
    case 'quarantine':
      return { kind, mark: { at: receivedAt, by: subject, reason: reason ?? null, cause: 'admin' } };
    case 'restore':
      return { kind };
  }
}

/** At least one step, so that requests that follow `next` come to an end. */
async function takeAll(
  { meta, clock, config: { ownerActs } }: OwnerActDeps,
  { receivedAt: now, signal }: OriginRequest,
  owner: string,
  act: OwnerAct,
  walk: Walk,
): Promise<void> {
  const endsAtMs = clock.monotonicMs() + ownerActs.timeMaxMs;
  do {
    signal.throwIfAborted();
    const page = await meta.owned({ owner, act: act.kind, after: walk.next, limit: ownerActs.stepMax, now });
    if (page.ids.length > 0) {
      const step = await meta.takeDownOwned(owner, page.ids, act, now);
      walk.media += step.media;
      walk.others += step.others;
    }
    walk.next = page.next;
    // A step that changes nothing may come without a pause.
    await turn();
  } while (walk.next !== null && clock.monotonicMs() < endsAtMs);
  walk.outcome = walk.next === null ? 'done' : 'partly';
}

/** All entries of this act are below it, those of earlier requests and of other origins too. */
async function newestSeq({ meta: { journal } }: OwnerActDeps, wait: 'edges' | undefined): Promise<number> {
  if (wait !== undefined) await journal.refresh();
  return journal.newest();
}
