/**
 * What a HEAD that missed does about the body: nothing, remember it, or fetch
 * it at once. The answer to the HEAD never waits for any of it. Bounded in
 * bodies at once, in their size and in what is remembered; counts how many
 * warmed bodies somebody then came for.
 */
import { choice, flag, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { Metrics } from '../../src/metrics.js';
import type { CacheKey, Entry } from '../entry.js';
import { type RuleResult, WARM_MODES, type WarmMode } from './rules.js';

export const warmSection = section('What a HEAD that misses does about the body.', {
  mode: choice({
    default: 'mark',
    of: WARM_MODES,
    help: 'off: nothing. mark: the first GET after it is finished and kept even if its reader leaves. now: the body is fetched at once.',
  }),
  maxBytes: size({ default: '10MB', help: 'Larger bodies are not fetched at once, nor those of unknown size.' }),
  concurrentMax: integer({
    default: 8,
    min: 1,
    max: 1_000,
    help: 'Bodies fetched so at once; further ones are marked.',
  }),
  marksMax: integer({
    default: 65_536,
    min: 0,
    max: 10_000_000,
    help: 'Marks, and warmed bodies not yet used, remembered.',
  }),
  thumbnail: flag({ default: false, help: 'With mode now: a HEAD for an image fetches its default thumbnail too.' }),
});

export type WarmConfig = ValueOf<typeof warmSection>;

export type WarmDecision = 'off' | 'mark' | 'now';

export interface WarmMarks {
  /** What is wanted, before the limits are asked. */
  modeOf(ruleResult: RuleResult): WarmMode;
  /** What to do about the body of a head that was just fetched. */
  decide(entry: Entry, ruleResult: RuleResult): WarmDecision;
  mark(key: CacheKey): void;
  /** Whether one more body may be fetched now. */
  hasRoom(): boolean;
  /** Whether it was marked; the mark is gone then. */
  takeMark(key: CacheKey): boolean;
  started(key: CacheKey): void;
  /** `kept`: the body lies in the cache now. */
  ended(key: CacheKey, kept: boolean): void;
  /** Somebody reads a body, held or on its way: counts the first one of a warmed body. */
  used(key: CacheKey): void;
}

export function createWarmMarks(config: () => WarmConfig, metrics: Metrics): WarmMarks {
  const marks = new Set<string>();
  const unused = new Set<string>();
  let running = 0;
  const decided = metrics.counter(
    'edge_warm_decisions_total',
    'Heads fetched for a HEAD, by what was done about the body.',
    ['decision'],
  );
  const warmed = metrics.counter('edge_warm_bodies_total', 'Bodies fetched because of a HEAD.', ['outcome']);
  const used = metrics.counter('edge_warm_used_total', 'Warmed bodies that somebody then came for.');
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
    takeMark: (key) => marks.size > 0 && marks.delete(key),
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
      if (unused.size > 0 && unused.delete(key)) used.add();
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
