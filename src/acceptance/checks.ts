/** All checks, in the order in which they are tried and reported. */
import type { Check } from './check.js';
import { documentChecks } from './checks/documents.js';
import { downloadChecks } from './checks/downloads.js';
import { edgeChecks } from './checks/edge.js';
import { idChecks } from './checks/ids.js';
import { linkChecks } from './checks/links.js';
import { rangeChecks } from './checks/ranges.js';
import { resumableChecks } from './checks/resumable.js';
import { elsewhereChecks, takedownChecks } from './checks/takedown.js';
import { thumbChecks } from './checks/thumbs.js';
import { tokenChecks } from './checks/tokens.js';
import { uploadChecks } from './checks/uploads.js';

export const CHECKS: readonly Check[] = [
  ...documentChecks,
  ...idChecks,
  ...tokenChecks,
  ...uploadChecks,
  ...resumableChecks,
  ...downloadChecks,
  ...rangeChecks,
  ...linkChecks,
  ...thumbChecks,
  ...edgeChecks,
  ...takedownChecks,
  ...elsewhereChecks,
];

/** Those whose name contains one of the patterns; `*` stands for anything. Without patterns: all. */
export function chosen(patterns: readonly string[]): readonly Check[] {
  if (patterns.length === 0) return CHECKS;
  const tests = patterns.map(
    (pattern) =>
      new RegExp(
        pattern
          .split('*')
          .map((text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
          .join('.*'),
      ),
  );
  return CHECKS.filter(({ name }) => tests.some((test) => test.test(name)));
}
