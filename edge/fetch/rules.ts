/**
 * What operators want done with answers beyond what the origin says of them:
 * rules that match on the kind of path, the media type and the size. The first
 * that matches decides; what it leaves null stays as the origin said.
 */

import { choice, list, optionalDuration, section, size, text, type ValueOf } from '../../src/config/field.js';
import { headerOf } from '../../src/http/reply.js';
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

/** What an answer is judged by. */
export interface Subject {
  readonly pathKind: PathKind;
  readonly contentType: string | undefined;
  /** Null where only the end tells: it then has no size that a rule could match but the widest. */
  readonly sizeBytes: number | null;
}

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

/** Whether the rules as they are now let a body that is held lie in memory. */
export function mayLieInMemory(rules: readonly Rule[], entry: Entry): boolean {
  const contentType = headerOf(entry.headers, 'content-type');
  return applyRules(rules, { pathKind: pathKindOf(entry), contentType, sizeBytes: entry.sizeBytes }).tiers.memory;
}

function matches(rule: Rule, { pathKind, contentType, sizeBytes }: Subject): boolean {
  if (rule.path !== 'any' && rule.path !== pathKind) return false;
  if (!typeMatches(rule.type, contentType)) return false;
  const measured = sizeBytes ?? Number.MAX_SAFE_INTEGER;
  return measured >= rule.fromBytes && (sizeBytes === null || measured <= rule.toBytes);
}

function typeMatches(wanted: string, contentType: string | undefined): boolean {
  if (wanted === '*/*') return true;
  const type = (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
  return wanted.endsWith('/*') ? type.startsWith(wanted.slice(0, -1)) : type === wanted;
}
