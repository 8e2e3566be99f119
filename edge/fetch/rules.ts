/**
 * The operator's cache rules: they match on the kind of path, the media type and
 * the size of a response. The first rule that matches decides; what it leaves
 * null stays as the origin says.
 */
import { choice, list, optionalDuration, section, size, text, type ValueOf } from '../../src/config/field.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';
import type { Tiers } from '../cache/cache.js';
import { ADMISSION_NAMES } from '../cache/policy/registry.js';
import type { Entry } from '../entry.js';
import { PATH_KINDS, type PathKind, pathKindOf } from '../key.js';

export const WARM_MODES = ['off', 'mark', 'now'] as const;
export type WarmMode = (typeof WARM_MODES)[number];

const ruleSection = section('One rule.', {
  path: choice({
    default: 'any',
    of: ['any', ...PATH_KINDS],
    help: 'The kind of path that it matches.',
  }),
  type: text({
    default: '*/*',
    pattern: /^(?:\*\/\*|[a-z0-9!#$&^_.+-]+\/(?:\*|[a-z0-9!#$&^_.+-]+))$/,
    accepts: 'a media type, `image/*` or `*/*`',
    help: 'The media type that it matches.',
  }),
  fromBytes: size({ default: '0B', help: 'It matches bodies of this size and larger.' }),
  toBytes: size({ default: '8TB', help: 'It matches bodies of this size and smaller.' }),
  ttlMs: optionalDuration({
    default: null,
    help: 'How long responses are fresh, whatever the origin says. It never goes beyond the expiry of the media, and does not prolong a response that the origin marks as provisional.',
  }),
  staleWhileRevalidateMs: optionalDuration({ default: null, help: 'Replaces stale-while-revalidate of the response.' }),
  staleIfErrorMs: optionalDuration({
    default: null,
    help: 'Replaces stale-if-error of the response. Media are served stale no longer than `journal.lease` allows.',
  }),
  tiers: choice({
    default: 'both',
    of: ['both', 'memory', 'disk', 'none'],
    help: 'Where bodies may be stored.',
  }),
  admission: choice({
    default: 'as_set',
    of: ['as_set', ...ADMISSION_NAMES],
    help: 'Whether the disk stores a body at the first or at the second request. as_set: as `cache.disk.admission` says.',
  }),
  warm: choice({
    default: 'as_set',
    of: ['as_set', ...WARM_MODES],
    help: 'What a HEAD that misses does about the body. as_set: as `warm.mode` says.',
  }),
});

export const rulesField = list({
  default: [],
  of: ruleSection,
  max: 256,
  help: 'Cache rules. Each matches by any of `path`, `type`, `from`, `to`, and sets any of `ttl`, `stale_while_revalidate`, `stale_if_error`, `tiers` (both | memory | disk | none), `admission` (as_set | always | second_hit), `warm` (as_set | off | mark | now). The first rule that matches decides.',
  examples: [
    {
      why: 'Thumbnails are small and asked for often: they stay fresh for a week and live in memory.',
      item: { path: 'thumb', ttl: '7d', tiers: 'memory' },
    },
    {
      why: 'Films go to the disk alone, at their second request.',
      item: { type: 'video/*', from: '16MB', tiers: 'disk', admission: 'second_hit' },
    },
    {
      why: 'A HEAD for a picture of a message fetches the picture at once.',
      item: { path: 'original', type: 'image/*', to: '8MB', warm: 'now' },
    },
  ],
});

export type Rule = ValueOf<typeof ruleSection>;

/** The response that rules match on. */
export interface Subject {
  readonly pathKind: PathKind;
  readonly headers: HeaderList;
  /** Size of the whole representation. Null while it is unknown: the response then has no upper bound that a rule could exclude. */
  readonly sizeBytes: number | null;
}

/** What the first rule that matches says. Null leaves it to the origin. */
export interface RuleResult {
  readonly ttlMs: number | null;
  readonly staleWhileRevalidateMs: number | null;
  readonly staleIfErrorMs: number | null;
  readonly tiers: Tiers;
  readonly warm: WarmMode | 'as_set';
}

const NO_RULE: RuleResult = {
  ttlMs: null,
  staleWhileRevalidateMs: null,
  staleIfErrorMs: null,
  tiers: { memory: true, disk: true },
  warm: 'as_set',
};

export function applyRules(rules: readonly Rule[], subject: Subject): RuleResult {
  const rule = rules[ruleNumberOf(rules, subject) - 1];
  if (rule === undefined) return NO_RULE;
  const { ttlMs, staleWhileRevalidateMs, staleIfErrorMs, admission, warm } = rule;
  const tiers: Tiers = {
    memory: rule.tiers === 'both' || rule.tiers === 'memory',
    disk: rule.tiers === 'both' || rule.tiers === 'disk',
    ...(admission !== 'as_set' && { admission }),
  };
  return { ttlMs, staleWhileRevalidateMs, staleIfErrorMs, tiers, warm };
}

/** The number of the first rule that matches, counted from 1; 0 if none does. */
export function ruleNumberOf(rules: readonly Rule[], subject: Subject): number {
  return rules.findIndex((each) => matches(each, subject)) + 1;
}

/** A stored response as rules match on it. */
export function subjectOf(entry: Entry): Subject {
  return { pathKind: pathKindOf(entry), headers: entry.headers, sizeBytes: entry.sizeBytes };
}

/** The rules as they are now, applied to a stored response. */
export function applyRulesTo(entry: Entry, rules: readonly Rule[]): RuleResult {
  return applyRules(rules, subjectOf(entry));
}

function matches(rule: Rule, { pathKind, headers, sizeBytes }: Subject): boolean {
  if (rule.path !== 'any' && rule.path !== pathKind) return false;
  if (!typeMatches(rule.type, headerOf(headers, 'content-type'))) return false;
  const measured = sizeBytes ?? Number.MAX_SAFE_INTEGER;
  return measured >= rule.fromBytes && (sizeBytes === null || measured <= rule.toBytes);
}

function typeMatches(pattern: string, contentType: string | undefined): boolean {
  if (pattern === '*/*') return true;
  const type = (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
  return pattern.endsWith('/*') ? type.startsWith(pattern.slice(0, -1)) : type === pattern;
}
