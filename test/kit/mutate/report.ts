/**
 * The score of a mutation run by file and folder, and the wrong lines that no test noticed, as they are found.
 *
 * The score is that of the lines that were judged: noticed, survived, or run by no quick test. Two kinds are told apart and
 * are not in it: those for which there was no time, since most of them are noticed if there is, and those of files that
 * only slow tests can run.
 */
import { readFileSync } from 'node:fs';
import { SourceMap, type SourceMapPayload } from 'node:module';
import { dirname } from 'node:path';
import type { Mutant } from './operators.js';
import type { Verdict } from './sandbox.js';

export type Tried = { readonly source: string; readonly module: string; readonly mutant: Mutant };

export type MutationReport = {
  add(tried: Tried, verdict: Verdict): void;
  /** Prints the sums. Returns 1 where `isBelow` says that too few wrong lines were noticed, otherwise 0. */
  end(floorPercent: number): 0 | 1;
};

export type Sum = { noticed: number; tried: number };

/** What a verdict says of the tests. */
export type Told = 'noticed' | 'missed' | 'out of time' | 'left to slow tests';

/** Where a line that no quick test runs needs what quick tests do not have. */
const SLOW_ONLY: readonly RegExp[] = [
  // A PostgreSQL server. Its rules over rows have quick tests, which count.
  /^origin\/meta\/postgres\//,
  /^origin\/meta\/outbox\/postgres\.ts$/,
  /^origin\/meta\/move\.ts$/,
  // A cluster of processes, with a database and a bucket.
  /^src\/deploy\//,
  // Whole processes, which tests of a second or more start.
  /^(?:origin|edge)\/main\.ts$/,
  /^src\/acceptance\//,
  // A browser.
  /^(?:edge|origin)\/ops\/page\//,
  /^src\/(?:live|dev\/chat)\//,
];

export function toldBy(verdict: Verdict['kind'], source: string): Told {
  switch (verdict) {
    case 'noticed':
    case 'out of time':
      return verdict;
    case 'survived':
      return 'missed';
    case 'not covered':
      return SLOW_ONLY.some((pattern) => pattern.test(source)) ? 'left to slow tests' : 'missed';
  }
}

export function createReport(expected: number): MutationReport {
  const byFile = new Map<string, Sum>();
  const apart = { 'out of time': 0, 'left to slow tests': 0 };
  let done = 0;
  return {
    add(tried, verdict) {
      done += 1;
      const told = toldBy(verdict.kind, tried.source);
      if (told !== 'noticed')
        print(`${done}/${expected} ${told === 'missed' ? verdict.kind : told}: ${described(tried)}`);
      if (told === 'out of time' || told === 'left to slow tests') {
        apart[told] += 1;
        return;
      }
      const sum = byFile.get(tried.source) ?? { noticed: 0, tried: 0 };
      byFile.set(tried.source, sum);
      sum.tried += 1;
      if (told === 'noticed') sum.noticed += 1;
    },
    end(floorPercent) {
      for (const [name, sum] of [...byFile].sort(([a], [b]) => a.localeCompare(b))) print(`${scoreOf(sum)} ${name}`);
      for (const name of [...new Set([...byFile.keys()].map(dirname))].sort()) {
        const sums = [...byFile].filter(([file]) => dirname(file) === name).map(([, sum]) => sum);
        print(`${scoreOf(total(sums))} ${name}/`);
      }
      const whole = total([...byFile.values()]);
      for (const [name, count] of Object.entries(apart)) print(`${count} ${name}`);
      print(`${scoreOf(whole)} in all`);
      return isBelow(whole, floorPercent) ? 1 : 0;
    },
  };
}

/** Fewer wrong lines than these say more about chance than about the tests: a slow machine tries only some. */
const JUDGED_MIN = 60;

/** Whether fewer than `floorPercent` of the wrong lines were noticed, of enough to judge. */
export function isBelow(sum: Sum, floorPercent: number): boolean {
  return sum.tried >= JUDGED_MIN && percentOf(sum) < floorPercent;
}

function described({ source, module, mutant }: Tried): string {
  const text = readFileSync(module, 'utf8');
  const before = text.slice(0, mutant.start);
  const line = before.split('\n').length - 1;
  const map = new SourceMap(JSON.parse(readFileSync(`${module}.map`, 'utf8')) as SourceMapPayload);
  const entry = map.findEntry(line, mutant.start - (before.lastIndexOf('\n') + 1));
  const place = 'originalLine' in entry ? `${source}:${entry.originalLine + 1}` : source;
  const was = text.slice(mutant.start, mutant.end).replaceAll(/\s+/g, ' ');
  return `${place} ${mutant.rule}\n      was ${was}\n      now ${mutant.replacement}`;
}

function total(sums: readonly Sum[]): Sum {
  return sums.reduce((all, one) => ({ noticed: all.noticed + one.noticed, tried: all.tried + one.tried }), {
    noticed: 0,
    tried: 0,
  });
}

function percentOf({ noticed, tried }: Sum): number {
  return tried === 0 ? 100 : (100 * noticed) / tried;
}

function scoreOf(sum: Sum): string {
  return `${percentOf(sum).toFixed(1).padStart(6)} % (${sum.noticed} of ${sum.tried})`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
