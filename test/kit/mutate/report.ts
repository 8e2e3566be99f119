/** The score of a mutation run by file and folder, and the wrong lines that no test noticed, as they are found. */
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

export function createReport(expected: number): MutationReport {
  const byFile = new Map<string, Sum>();
  let done = 0;
  return {
    add(tried, verdict) {
      done += 1;
      const sum = byFile.get(tried.source) ?? { noticed: 0, tried: 0 };
      byFile.set(tried.source, sum);
      sum.tried += 1;
      if (verdict.kind === 'noticed') sum.noticed += 1;
      else print(`${done}/${expected} ${verdict.kind}: ${described(tried)}`);
    },
    end(floorPercent) {
      for (const [name, sum] of [...byFile].sort(([a], [b]) => a.localeCompare(b))) print(`${scoreOf(sum)} ${name}`);
      for (const name of [...new Set([...byFile.keys()].map(dirname))].sort()) {
        const sums = [...byFile].filter(([file]) => dirname(file) === name).map(([, sum]) => sum);
        print(`${scoreOf(total(sums))} ${name}/`);
      }
      const whole = total([...byFile.values()]);
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
