/**
 * Decides what a HEAD that missed does about the body: nothing, mark it, or fetch
 * it at once. Remembers the marks, and counts how many bodies that were fetched
 * so are then requested. Bounded in the bodies fetched at once, in their size and
 * in what is remembered.
 */
import { choice, flag, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { Metrics } from '../../src/metrics.js';
import type { CacheKey, Entry } from '../entry.js';
import { type RuleResult, WARM_MODES, type WarmMode } from './rules.js';

export const warmSection = section('What a HEAD that misses does about the body.', {
  mode: choice({
    default: 'now',
    of: WARM_MODES,
    help: 'off: nothing. mark: the next GET is fetched to its end and stored even if its client leaves. now: the body is fetched at once.',
  }),
  maxBytes: size({ default: '10MB', help: 'Larger bodies are not fetched at once, nor are bodies of unknown size.' }),
  concurrentMax: integer({
    default: 8,
    min: 1,
    max: 1_000,
    help: 'Most bodies that are being fetched because of a HEAD. Further ones are marked.',
  }),
  marksMax: integer({
    default: 65_536,
    min: 0,
    max: 10_000_000,
    help: 'Most marks that are remembered, and most fetched bodies that nobody has requested yet.',
  }),
  thumbnail: flag({ default: true, help: 'With mode now, a HEAD for an image fetches its default thumbnail too.' }),
});

export type WarmConfig = ValueOf<typeof warmSection>;

export type WarmDecision = 'off' | 'mark' | 'now';

export interface WarmMarks {
  /** The mode that the rules or the settings choose. Limits are not considered. */
  modeOf(ruleResult: RuleResult): WarmMode;
  /** What to do about the body of a head that was just fetched. Counts the decision. */
  decide(entry: Entry, ruleResult: RuleResult): WarmDecision;
  mark(key: CacheKey): void;
  /** Whether one more body may be fetched now. */
  hasRoom(): boolean;
  /** Whether it was marked. Removes the mark. */
  takeMark(key: CacheKey): boolean;
  started(key: CacheKey): void;
  /** `kept`: the body is stored now. */
  ended(key: CacheKey, kept: boolean): void;
  /** A client gets a stored or arriving body: the first time, a body that was fetched because of a HEAD is counted. */
  used(key: CacheKey): void;
}

export function createWarmMarks(config: () => WarmConfig, metrics: Metrics): WarmMarks {
  const marks = new Set<string>();
  const unused = new Set<string>();
  let running = 0;
  const decided = metrics.counter(
    'edge_warm_decisions_total',
    'Heads fetched because of a HEAD, by what was done about the body.',
    ['decision'],
  );
  const warmed = metrics.counter('edge_warm_bodies_total', 'Bodies fetched because of a HEAD, by outcome.', [
    'outcome',
  ]);
  const used = metrics.counter(
    'edge_warm_used_total',
    'Bodies fetched because of a HEAD that a client then requested.',
  );
  const remember = (set: Set<string>, key: string): void => {
    set.add(key);
    for (const oldest of set) {
      if (set.size <= config().marksMax) break;
      set.delete(oldest);
    }
  };
  return {
    modeOf: (ruleResult) => modeOf(ruleResult, config()),
    decide(entry, ruleResult) {
      const decision = decide(entry, ruleResult, config(), running);
      decided.add(1, { decision });
      return decision;
    },
    mark: (key) => remember(marks, key),
    hasRoom: () => running < config().concurrentMax,
    takeMark: (key) => marks.delete(key),
    started(key) {
      running += 1;
      remember(unused, key);
    },
    ended(key, kept) {
      running -= 1;
      warmed.add(1, { outcome: kept ? 'kept' : 'not_kept' });
      if (!kept) unused.delete(key);
    },
    used(key) {
      if (unused.delete(key)) used.add();
    },
  };
}

function decide(entry: Entry, ruleResult: RuleResult, config: WarmConfig, running: number): WarmDecision {
  const mode = modeOf(ruleResult, config);
  if (mode !== 'now') return mode;
  const fits = entry.sizeBytes !== null && entry.sizeBytes <= config.maxBytes;
  return fits && running < config.concurrentMax ? 'now' : 'mark';
}

function modeOf({ warm }: RuleResult, { mode }: WarmConfig): WarmMode {
  return warm === 'as_set' ? mode : warm;
}
