/**
 * What all takedowns do: write a line in the audit log before the response, and
 * with `?wait=edges` respond only when every connected edge has applied the
 * journal entry or the configured wait is over.
 */
import type { Caller } from '../src/access/grant.js';
import { emptyReply, type Reply } from '../src/http/reply.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import type { JournalStream } from '../src/journal/journal-stream.js';
import type { AuditAct, AuditLog } from './audit.js';
import type { JournalConfig } from './edges/origin-journal.js';
import type { Note } from './meta/origins/shared.js';
import type { OriginRequest } from './server/request.js';

export interface TakedownDeps {
  readonly journal: Pick<JournalStream, 'confirmed'>;
  readonly config: { readonly journal: Pick<JournalConfig, 'waitMaxMs'> };
  readonly audit: Pick<AuditLog, 'append' | 'record'>;
}

export interface TakedownOptions {
  readonly wait: 'edges' | undefined;
  /** For the audit log. */
  readonly reason: string | undefined;
}

/** Records an act of an admin, however it ended. */
export async function recordAct(
  deps: { readonly audit: Pick<AuditLog, 'append'> },
  request: OriginRequest,
  caller: Caller,
  act: Act,
): Promise<void> {
  await deps.audit.append(auditAct(request, caller, act));
}

/** The same in one transaction with the change, where the audit log allows it. */
export function recordChange<T extends { readonly kind: string }>(
  deps: Pick<TakedownDeps, 'audit'>,
  request: OriginRequest,
  caller: Caller,
  act: Omit<Act, 'outcome' | 'seq'>,
  change: (note: Note<T> | undefined) => Promise<T>,
): Promise<T> {
  const actOf = (outcome: T): AuditAct =>
    auditAct(request, caller, {
      ...act,
      outcome: outcome.kind,
      ...('seq' in outcome && typeof outcome.seq === 'number' && { seq: outcome.seq }),
    });
  return deps.audit.record(actOf, change);
}

type Act = Pick<AuditAct, 'act' | 'outcome' | 'owner' | 'media' | 'others'> & {
  readonly target: MediaId | Sha256 | null;
  readonly seq?: number;
  readonly reason?: string | undefined;
};

function auditAct(request: OriginRequest, caller: Caller, act: Act): AuditAct {
  return {
    at: request.receivedAt,
    by: caller.subject,
    act: act.act,
    target: act.target,
    outcome: act.outcome,
    seq: act.seq ?? null,
    reason: act.reason ?? null,
    ...(act.owner !== undefined && { owner: act.owner, media: act.media ?? 0, others: act.others ?? 0 }),
    requestId: request.id,
    address: request.address,
  };
}

/** 204; if the caller waits for edges, with the number of them that have confirmed (CONTRACT, Edge). */
export async function takenDown(
  deps: TakedownDeps,
  seq: number,
  wait: 'edges' | undefined,
  signal: AbortSignal,
): Promise<Reply> {
  return emptyReply(204, await confirmations(deps, seq, wait, signal));
}

/** The fields of an answer to a takedown. */
export async function confirmations(
  deps: TakedownDeps,
  seq: number,
  wait: 'edges' | undefined,
  signal: AbortSignal,
): Promise<Reply['headers']> {
  if (wait === undefined) return [NO_STORE];
  const { confirmed, known } = await deps.journal.confirmed(seq, deps.config.journal.waitMaxMs, signal);
  return [NO_STORE, ['takedown-confirmed', `${confirmed}/${known}`]];
}

const NO_STORE = ['cache-control', 'no-store'] as const;
