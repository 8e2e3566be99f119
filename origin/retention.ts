/**
 * How long media are kept: the rules of the configuration, decided here as a
 * pure function that the upload story asks.
 */
import type { EpochMs } from '../src/clock.js';
import { choice, duration, list, optionalDuration, section, size, text, type ValueOf } from '../src/config/field.js';

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
    help: 'Media that nobody fetched for so long expire.',
  }),
});

export type RetentionConfig = ValueOf<typeof retentionSection>;
export type RetentionRule = RetentionConfig['rules'][number];

export interface Kept {
  readonly mime: string;
  readonly sizeBytes: number;
  readonly public: boolean;
}

/** When an upload expires: as it asks (`expires_in`), but no later than the first rule that covers it; null: never. */
export function decideExpiry(
  rules: readonly RetentionRule[],
  media: Kept,
  requestedMs: number | null,
  now: EpochMs,
): EpochMs | null {
  const ruledMs = rules.find((rule) => covers(rule, media))?.keepMs ?? null;
  if (ruledMs === null) return requestedMs === null ? null : now + requestedMs;
  return now + Math.min(ruledMs, requestedMs ?? ruledMs);
}

function covers(rule: RetentionRule, media: Kept): boolean {
  if (rule.visibility !== 'any' && (rule.visibility === 'public') !== media.public) return false;
  return media.sizeBytes >= rule.minSizeBytes && rule.types.some((pattern) => matches(pattern, media.mime));
}

function matches(pattern: string, mime: string): boolean {
  const [type = '', subtype = ''] = pattern.split('/');
  const [ofType = '', ofSubtype = ''] = mime.split('/');
  return (type === '*' || type === ofType) && (subtype === '*' || subtype === ofSubtype);
}
