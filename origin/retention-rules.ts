/**
 * How long media are kept: the configuration, and the rule that decides when an
 * upload expires. Pure; the sweeper (upkeep/sweeper.ts) removes what is due.
 */
import type { EpochMs } from '../src/clock.js';
import {
  choice,
  duration,
  integer,
  list,
  optionalDuration,
  section,
  size,
  text,
  type ValueOf,
} from '../src/config/field.js';

const ruleSection = section('One rule: what it covers and how long that is kept.', {
  types: list({
    default: ['*/*'],
    of: text({
      default: '',
      pattern: /^(\*|[a-z0-9.+-]+)\/(\*|[a-z0-9.+-]+)$/,
      accepts: 'a type such as image/gif, video/* or */*',
      help: 'A type.',
    }),
    min: 1,
    help: 'Media types that the rule covers.',
  }),
  visibility: choice({
    default: 'any',
    of: ['any', 'public', 'private'],
    help: 'Whether it covers public media, private media or both.',
  }),
  minSizeBytes: size({ default: '0', help: 'It covers media of at least this size.' }),
  keepMs: duration({ default: '30d', min: 1_000, help: 'How long such media are kept, at most.' }),
});

export const retentionSection = section('How long things are kept.', {
  rules: list({
    default: [],
    of: ruleSection,
    help: 'Rules with `types`, `visibility`, `min_size` and `keep`; the first that covers an upload bounds its life. None: media live until deleted, or for as long as the upload asks.',
  }),
  unusedForMs: optionalDuration({
    default: null,
    min: 60_000,
    help: 'Media that nobody fetched for so long, from the origin or an edge, expire; they go on for up to `used_late_max` more.',
  }),
  usesEveryMs: duration({
    default: '10m',
    min: 1_000,
    max: 86_400_000,
    help: 'How often edges report what they served from their copies. Only with `unused_for`; otherwise they report nothing.',
  }),
  usedLateMaxMs: duration({
    default: '24h',
    min: 1_000,
    help: 'How late word of a fetch may come: longer than `meta.used_step` and two reports of the edges. An edge cut off for so long that its report comes later has its media taken for unused.',
  }),
  tombstonesMs: duration({
    default: '30d',
    min: 0,
    help: 'How long a deleted or expired id is answered with 410; with 404 from then on.',
  }),
  graceMs: duration({
    default: '1h',
    min: 1_000,
    help: 'How long the bytes of deleted media stay before they are freed, and bytes without a record before they are taken for the remains of a crash.',
  }),
  stageMs: duration({
    default: '24h',
    min: 60_000,
    help: 'Files left on the stage that nobody wrote to for so long are removed.',
  }),
  sweepEveryMs: duration({ default: '1m', min: 100, help: 'How often the sweeper looks for what is due.' }),
  orphansEveryMs: duration({
    default: '24h',
    min: 60_000,
    help: 'How often it walks the whole blob store for bytes without a record.',
  }),
  stepMax: integer({
    default: 500,
    min: 1,
    max: 10_000,
    help: 'Ids or blobs that one step takes together; the sweep goes on until nothing is due.',
  }),
});

export type RetentionConfig = ValueOf<typeof retentionSection>;
export type RetentionRule = RetentionConfig['rules'][number];

/** What a rule is matched against. */
export interface KeptMedia {
  readonly mime: string;
  readonly sizeBytes: number;
  readonly public: boolean;
}

/** When an upload expires: as it asks (`expires_in`), but no later than the first rule that covers it; null: never. */
export function decideExpiry(
  rules: readonly RetentionRule[],
  media: KeptMedia,
  requestedMs: number | null,
  now: EpochMs,
): EpochMs | null {
  const ruledMs = rules.find((rule) => covers(rule, media))?.keepMs ?? null;
  if (ruledMs === null) return requestedMs === null ? null : now + requestedMs;
  return now + Math.min(ruledMs, requestedMs ?? ruledMs);
}

function covers(rule: RetentionRule, media: KeptMedia): boolean {
  if (rule.visibility !== 'any' && (rule.visibility === 'public') !== media.public) return false;
  return media.sizeBytes >= rule.minSizeBytes && rule.types.some((pattern) => matches(pattern, media.mime));
}

function matches(pattern: string, mime: string): boolean {
  const [type = '', subtype = ''] = pattern.split('/');
  const [ofType = '', ofSubtype = ''] = mime.split('/');
  return (type === '*' || type === ofType) && (subtype === '*' || subtype === ofSubtype);
}
