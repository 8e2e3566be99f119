/** What a trace has of a stored response. Pure. */
import { governingDirectives } from '../../src/http/cache-control.js';
import { headerOf } from '../../src/http/reply.js';
import { essenceOf } from '../../src/media/types.js';
import { diskHeadBytes } from '../cache/disk/record.js';
import { headBytes } from '../cache/memory.js';
import type { Entry } from '../entry.js';
import { pathKindOf } from '../key.js';
import { type FreshnessRules, statedOf } from '../rfc9111/freshness.js';
import type { TracedResponse } from './format.js';

/** `tagOf` makes a number of a text, another one for another text. */
export function factsOf(entry: Entry, rules: FreshnessRules, tagOf: (text: string) => number): TracedResponse {
  const { headers, receivedAt, bornAt } = entry;
  const version = entry.sha256 ?? headerOf(headers, 'etag') ?? headerOf(headers, 'last-modified');
  return {
    cacheable: true,
    path: pathKindOf(entry),
    type: essenceOf(headerOf(headers, 'content-type') ?? '') ?? '',
    sizeBytes: entry.sizeBytes ?? 0,
    memoryHeadBytes: headBytes(entry),
    diskHeadBytes: diskHeadBytes(entry),
    // What says nothing of its version is another response each time.
    content: tagOf(version ?? `received at ${receivedAt}`),
    ageMs: Math.max(0, receivedAt - bornAt),
    stated: statedOf(entry, governingDirectives(headers, rules.targetedFields), rules),
  };
}
