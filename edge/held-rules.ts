/**
 * Applies changed rules to responses that are stored already, when they are looked
 * up: which tier may have them, and how long they are fresh, counted from what the
 * origin said of them. Until the rules change, nothing is computed.
 */
import type { HeldRules, TierName } from './cache/cache.js';
import type { Entry } from './entry.js';
import { applyRulesTo, type Rule } from './fetch/rules.js';
import { type StorableRules, timesUnder } from './rfc9111/storable.js';

/** `rules`: those of now; the same list while they stay. */
export function createHeldRules(
  rules: () => readonly Rule[],
  storing: Pick<StorableRules, 'mode' | 'freshness'>,
): HeldRules {
  const atStart = rules();
  let judgedBy = atStart;
  let judged = new WeakSet<Entry>();

  return {
    allows: (entry: Entry, tier: TierName) => applyRulesTo(entry, rules()).tiers[tier],
    judge(entry, tier) {
      const now = rules();
      if (now !== judgedBy) {
        judgedBy = now;
        judged = new WeakSet();
      } else if (now === atStart || judged.has(entry)) return entry;
      const ruleResult = applyRulesTo(entry, now);
      if (!ruleResult.tiers[tier]) return undefined;
      judged.add(entry);
      const times = timesUnder(entry, storing, ruleResult);
      const same =
        times.staleAt === entry.staleAt &&
        times.revalidateUntil === entry.revalidateUntil &&
        times.errorUntil === entry.errorUntil;
      return same ? entry : { ...entry, ...times };
    },
    version: rules,
  };
}
