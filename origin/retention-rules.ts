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

const ruleSection = section('One rule: which media it covers and how long they are kept.', {
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

export const retentionSection = section('How long media, their bytes and their tombstones are kept.', {
  rules: list({
    default: [],
    of: ruleSection,
    help: 'Rules with `types`, `visibility`, `min_size` and `keep`. The first rule that covers an upload limits its lifetime. Without one, media are kept until they are deleted or their own expiry.',
    examples: [
      {
        why: 'Large private films are kept for a month.',
        item: { types: ['video/*'], visibility: 'private', min_size: '50MB', keep: '30d' },
      },
      {
        why: 'Public media are kept for ten years, all others for one.',
        item: { visibility: 'public', keep: '3650d' },
      },
      { why: 'What no rule above covers.', item: { keep: '365d' } },
    ],
  }),
  unusedForMs: optionalDuration({
    default: null,
    min: 60_000,
    help: 'Media that nobody has fetched for so long, from the origin or an edge, expire, up to `used_late_max` later. null: never.',
  }),
  usesEveryMs: duration({
    default: '10m',
    min: 1_000,
    max: 86_400_000,
    help: 'How often edges report which media they served. Only with `unused_for`; otherwise they report nothing.',
  }),
  usedLateMaxMs: duration({
    default: '24h',
    min: 1_000,
    help: 'How late the report of a fetch may arrive: at least `meta.used_step` plus two reports of the edges. If an edge is disconnected for longer, the media that it served count as unused.',
  }),
  tombstonesMs: duration({
    default: '30d',
    min: 0,
    help: 'How long a deleted or expired id is answered with 410. From then on it is answered with 404. Shorter for the oldest ones while the metadata are at `meta.data_max`.',
  }),
  graceMs: duration({
    default: '1h',
    min: 1_000,
    help: 'How long the bytes of deleted media stay before they are removed, and bytes without a record before they count as left by a crash. While there is no room for uploads, the bytes of deleted media are removed at once.',
  }),
  trashMs: duration({
    default: '10m',
    min: 0,
    help: 'How long bytes stay that were replaced, such as thumbnails that were made again and parts of uploads that were finished: somebody may be reading them.',
  }),
  stageMs: duration({
    default: '24h',
    min: 60_000,
    help: 'Files in the stage folder that were not written to for so long are removed.',
  }),
  expireEveryMs: duration({
    default: '1s',
    min: 100,
    help: 'How often media whose lifetime has ended are looked for. Edges hear of them at once.',
  }),
  sweepEveryMs: duration({ default: '1m', min: 100, help: 'How often the sweeper runs.' }),
  orphansEveryMs: duration({
    default: '24h',
    min: 60_000,
    help: 'How often it searches the whole blob store for bytes without a record.',
  }),
  stepMax: integer({
    default: 500,
    min: 1,
    max: 10_000,
    help: 'Ids or blobs per transaction. The sweep continues until nothing is due.',
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

/** When an upload expires: as it asks (`expires_in`), but not later than the first rule that covers it allows; null: never. */
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

/** A rule behind this one never decides. */
export function coversAll({ types, visibility, minSizeBytes }: RetentionRule): boolean {
  return visibility === 'any' && minSizeBytes === 0 && types.includes('*/*');
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
