/**
 * What operators want done with answers beyond what the origin says of them:
 * rules that match on the kind of path, the media type and the size. The first
 * that matches decides; what it leaves null stays as the origin said.
 */

import { choice, list, optionalDuration, section, size, text, type ValueOf } from '../../src/config/field.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';
import type { Tiers } from '../cache/cache.js';
import { ADMISSION_NAMES } from '../cache/policy/registry.js';
import type { Entry } from '../entry.js';
import { type PathKind, pathKindOf } from '../key.js';

export const WARM_MODES = ['off', 'mark', 'now'] as const;
export type WarmMode = (typeof WARM_MODES)[number];

const ruleSection = section('One rule.', {
  path: choice({
    default: 'any',
    of: ['any', 'original', 'thumb', 'other'],
    help: 'The kind of path that it is about.',
  }),
  type: text({
    default: '*/*',
    pattern: /^(?:\*\/\*|[a-z0-9!#$&^_.+-]+\/(?:\*|[a-z0-9!#$&^_.+-]+))$/,
    accepts: 'a media type, `image/*` or `*/*`',
    help: 'The media type that it is about.',
  }),
  fromBytes: size({ default: '0B', help: 'Bodies of this size and larger.' }),
  toBytes: size({ default: '8TB', help: 'Bodies of this size and smaller.' }),
  ttlMs: optionalDuration({
    default: null,
    help: 'How long answers are fresh, whatever the origin says; never beyond the end of the media, nor before the origin knows all that it will say of them.',
  }),
  staleWhileRevalidateMs: optionalDuration({ default: null, help: 'In place of stale-while-revalidate.' }),
  staleIfErrorMs: optionalDuration({ default: null, help: 'In place of stale-if-error.' }),
  tiers: choice({
    default: 'both',
    of: ['both', 'memory', 'disk', 'none'],
    help: 'Where bodies may be kept.',
  }),
  admission: choice({
    default: 'as_set',
    of: ['as_set', ...ADMISSION_NAMES],
    help: 'Whether the disk takes bodies at once or at the second request; as_set: as `cache.disk.admission` says.',
  }),
  warm: choice({
    default: 'as_set',
    of: ['as_set', ...WARM_MODES],
    help: 'What a HEAD that missed does about the body; as_set: as `warm.mode` says.',
  }),
});

export const rulesField = list({
  default: [],
  of: ruleSection,
  max: 256,
  help: 'Rules, each with any of `path`, `type`, `from`, `to` to match, and `ttl`, `stale_while_revalidate`, `stale_if_error`, `tiers` (both | memory | disk | none), `admission` (as_set | always | second_hit), `warm` (as_set | off | mark | now) to apply. The first that matches decides.',
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
  const rule = rules.find((each) => matches(each, subject));
  if (rule === undefined) return NO_RULE;
  const { ttlMs, staleWhileRevalidateMs, staleIfErrorMs, admission, warm } = rule;
  const tiers: Tiers = {
    memory: rule.tiers === 'both' || rule.tiers === 'memory',
    disk: rule.tiers === 'both' || rule.tiers === 'disk',
    ...(admission !== 'as_set' && { admission }),
  };
  return { ttlMs, staleWhileRevalidateMs, staleIfErrorMs, tiers, warm };
}

/** The rules as they are now, applied to a stored response. */
export function applyRulesTo(entry: Entry, rules: readonly Rule[]): RuleResult {
  return applyRules(rules, { pathKind: pathKindOf(entry), headers: entry.headers, sizeBytes: entry.sizeBytes });
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
