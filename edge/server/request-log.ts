/**
 * What an ended request of the edge is in the log: how it was answered, from which tier, and by which rule. Shared by the
 * log itself and by what operators watch.
 */
import type { LoggedEnding, RequestLog } from '../../src/logs/request-line.js';
import type { Entry } from '../entry.js';
import { type Rule, ruleNumberOf, subjectOf } from '../fetch/rules.js';
import type { EdgeRequest, Exchanged } from '../request.js';

export interface EdgeRequestLog {
  write(request: EdgeRequest, ended: Exchanged): void;
}

/** `rules`: as they are now. */
export function createEdgeRequestLog(log: RequestLog, rules: () => readonly Rule[]): EdgeRequestLog {
  const ruleOf = createRuleOf();
  return {
    write: (request, ended) =>
      log.write(
        request,
        endingOf(ended, (entry) => ruleOf(rules(), entry)),
      ),
  };
}

export function endingOf(
  { outcome, answer, status, sentBytes, complete, tookMs, decidedMs }: Exchanged,
  ruleOf: (entry: Entry) => number,
): LoggedEnding {
  const reply = answer?.kind === 'reply' ? answer : undefined;
  return {
    status,
    sentBytes,
    firstByteMs: decidedMs,
    totalMs: tookMs,
    outcome,
    tier: reply?.tier,
    reason: reply?.reason,
    rule: reply?.entry === undefined ? 0 : ruleOf(reply.entry),
    complete,
  };
}

/** The number of the rule that matches a stored response; 0: none. Remembered for as long as the rules are the same. */
export function createRuleOf(): (rules: readonly Rule[], entry: Entry) => number {
  const known = new WeakMap<Entry, { readonly rules: readonly Rule[]; readonly number: number }>();
  return (rules, entry) => {
    if (rules.length === 0) return 0;
    const found = known.get(entry);
    if (found !== undefined && found.rules === rules) return found.number;
    const number = ruleNumberOf(rules, subjectOf(entry));
    known.set(entry, { rules, number });
    return number;
  };
}
