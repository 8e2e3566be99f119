/** The run as lines for people, and as JSON for programs. */
import { type Check, SECTIONS } from './check.js';
import type { Result } from './run.js';

export interface Left {
  readonly uploaded: number;
  readonly left: number;
}

const NAME_WIDTH = 28;

export function listLines(checks: readonly Check[]): readonly string[] {
  return SECTIONS.flatMap((section) => {
    const own = checks.filter((check) => check.section === section);
    if (own.length === 0) return [];
    return [
      section,
      ...own.map((check) => {
        const name = `  ${check.name.padEnd(NAME_WIDTH)} ${check.says}`;
        return check.kind === 'unseen' ? `${name} (not to be seen from outside: ${check.why})` : name;
      }),
    ];
  });
}

export function resultLines(result: Result): readonly string[] {
  const { check, outcome } = result;
  const line = `${outcome.padEnd(9)} ${check.name.padEnd(NAME_WIDTH)} ${check.says}`;
  if (result.outcome === 'kept') return [line];
  if (result.outcome === 'not tried') return [`${line} (${result.why})`];
  return [
    line,
    ...result.failures.flatMap(({ at, expected, sent, got }) => [
      `    at the ${at}, expected: ${expected}`,
      ...block('sent', sent),
      ...block('got', got),
    ]),
  ];
}

function block(name: string, lines: readonly string[]): readonly string[] {
  return lines.map((line, at) => `    ${(at === 0 ? name : '').padEnd(5)} ${line}`);
}

const count = (results: readonly Result[], outcome: Result['outcome']): number =>
  results.filter((result) => result.outcome === outcome).length;

export function coverageLines(results: readonly Result[]): readonly string[] {
  const header = `${'what was covered'.padEnd(NAME_WIDTH)} promises  kept  broken  not tried`;
  const row = (name: string, own: readonly Result[]): string =>
    [
      name.padEnd(NAME_WIDTH),
      String(own.length).padStart(9),
      String(count(own, 'kept')).padStart(6),
      String(count(own, 'broken')).padStart(8),
      String(count(own, 'not tried')).padStart(11),
    ].join('');
  const rows = SECTIONS.flatMap((section) => {
    const own = results.filter(({ check }) => check.section === section);
    return own.length === 0 ? [] : [row(section, own)];
  });
  return ['', header, ...rows, row('all', results), ...untriedLines(results)];
}

function untriedLines(results: readonly Result[]): readonly string[] {
  const names = new Map<string, string[]>();
  for (const result of results) {
    if (result.outcome !== 'not tried') continue;
    names.set(result.why, [...(names.get(result.why) ?? []), result.check.name]);
  }
  if (names.size === 0) return [];
  return ['', 'What was not tried, and why:', ...[...names].map(([why, own]) => `  ${own.join(', ')}: ${why}`)];
}

export function leftLine({ uploaded, left }: Left, lifetimeS: number): string {
  if (uploaded === 0) return 'Nothing was uploaded.';
  if (left === 0) return `${uploaded} media were uploaded, and all of them are deleted.`;
  return `${uploaded} media were uploaded; ${left} of them could not be deleted and expire within ${lifetimeS / 60} minutes.`;
}

export function asJson(results: readonly Result[], places: { edge: string; origin: string }, left: Left): string {
  const checks = results.map(({ check: { name, section, says }, ...result }) => ({ name, section, says, ...result }));
  const sums = {
    kept: count(results, 'kept'),
    broken: count(results, 'broken'),
    not_tried: count(results, 'not tried'),
  };
  return JSON.stringify({ ...places, ...sums, ...left, checks }, undefined, 2);
}
