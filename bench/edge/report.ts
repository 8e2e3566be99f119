/** Prints what was measured, and writes it down as a table and a drawing. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Goal, Row } from './rows.js';

export interface Measured {
  readonly cpuUs: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface RowResult {
  readonly row: Row;
  /** By server, a value for each round. */
  readonly measured: ReadonlyMap<string, readonly Measured[]>;
}

interface Ratio {
  readonly of: string;
  readonly over: string;
  readonly middle: number;
  readonly lowest: number;
  readonly highest: number;
  readonly atMost: number | undefined;
}

export function printRow({ row, measured }: RowResult): void {
  process.stdout.write(`${row.name}\n`);
  for (const [server, each] of measured) {
    const figures = [
      `${middleOf(each, 'cpuUs').toFixed(1).padStart(8)} µs`,
      `${middleOf(each, 'perSecond').toFixed(0).padStart(8)}/s`,
      `p50 ${middleOf(each, 'p50Ms').toFixed(2)} ms`,
      `p99 ${middleOf(each, 'p99Ms').toFixed(2)} ms`,
    ];
    process.stdout.write(`  ${server.padEnd(24)}${figures.join('  ')}\n`);
  }
  for (const { of, over, middle, lowest, highest, atMost } of ratiosOf({ row, measured })) {
    const goal = atMost === undefined ? '' : `  goal ${atMost}${middle <= atMost ? '' : ', missed'}`;
    process.stdout.write(
      `  ${`${of} / ${over}`.padEnd(40)}${middle.toFixed(2)} (${lowest.toFixed(2)}–${highest.toFixed(2)})${goal}\n`,
    );
  }
}

/** The goals of the row, and each edge beside the same edge of another build. */
function ratiosOf({ row, measured }: RowResult): Ratio[] {
  const pairs: (Omit<Goal, 'atMost' | 'of' | 'over'> & { of: string; over: string; atMost?: number })[] = [
    ...row.goals,
  ];
  for (const name of measured.keys()) {
    if (measured.has(`${name} (beside)`)) pairs.push({ of: name, over: `${name} (beside)` });
  }
  return pairs.flatMap(({ of, over, atMost }) => {
    const [own, other] = [measured.get(of), measured.get(over)];
    if (own === undefined || other === undefined) return [];
    const ratios = own.map(({ cpuUs }, round) => cpuUs / (other[round]?.cpuUs ?? Number.NaN)).sort((a, b) => a - b);
    const at = (share: number): number => ratios[Math.floor((ratios.length - 1) * share)] ?? Number.NaN;
    return [{ of, over, middle: at(0.5), lowest: at(0), highest: at(1), atMost }];
  });
}

function middleOf(rounds: readonly Measured[], key: keyof Measured): number {
  return rounds.map((each) => each[key]).toSorted((a, b) => a - b)[Math.floor(rounds.length / 2)] ?? Number.NaN;
}

const README = 'bench/README.md';
const DRAWING = 'bench/edge.svg';
const [BEGIN, END] = ['<!-- edge: begin -->', '<!-- edge: end -->'];

/** Replaces what stands between the two marks in the README. */
export function writeReport(results: readonly RowResult[], versions: string): void {
  const readme = readFileSync(README, 'utf8');
  const [begin, end] = [readme.indexOf(BEGIN) + BEGIN.length, readme.indexOf(END)];
  if (begin < BEGIN.length || end < begin) throw new Error(`${README} has no place for the table`);
  const lines = results.flatMap((result) => {
    const ratios = ratiosOf(result);
    if (ratios.length === 0) {
      return [...result.measured].map(
        ([server, each]) =>
          `| ${result.row.name} | ${server} | ${middleOf(each, 'cpuUs').toFixed(1)} | | p99 ${middleOf(each, 'p99Ms').toFixed(1)} ms | |`,
      );
    }
    return ratios.map(({ of, over, middle, lowest, highest, atMost }) => {
      const us = middleOf(result.measured.get(of) ?? [], 'cpuUs');
      return `| ${result.row.name} | ${of} | ${us.toFixed(1)} | ${over} | ${middle.toFixed(2)} (${lowest.toFixed(2)}–${highest.toFixed(2)}) | ${atMost ?? ''} |`;
    });
  });
  const table = [
    '| request | server | µs a request | over | ratio (spread) | goal |',
    '|---|---|---|---|---|---|',
    ...lines,
  ];
  const text = `\n${versions}.\n\n${table.join('\n')}\n\n![The same as bars](edge.svg)\n`;
  writeFileSync(README, readme.slice(0, begin) + text + readme.slice(end));
  writeFileSync(DRAWING, drawing(results, versions));
}

const [LABELS, WIDTH, LINE] = [330, 900, 16];

/** One bar for each ratio, on a scale up to 6; a mark where the goal is. */
function drawing(results: readonly RowResult[], versions: string): string {
  const bars = results.flatMap((result) => ratiosOf(result).map((ratio) => ({ row: result.row, ratio })));
  const scale = (value: number): number => (Math.min(value, 6) / 6) * (WIDTH - LABELS - 60);
  const parts = bars.map(({ row, ratio }, index) => {
    const y = 30 + index * LINE;
    const met = ratio.atMost === undefined || ratio.middle <= ratio.atMost;
    const goal =
      ratio.atMost === undefined
        ? ''
        : `<rect x="${LABELS + scale(ratio.atMost)}" y="${y - 11}" width="2" height="13" fill="#222"/>`;
    return [
      `<text x="${LABELS - 6}" y="${y}" text-anchor="end">${row.name}: ${ratio.of} / ${ratio.over}</text>`,
      `<rect x="${LABELS}" y="${y - 10}" width="${scale(ratio.middle).toFixed(1)}" height="11" fill="${met ? '#4a9' : '#d85'}"/>${goal}`,
      `<text x="${LABELS + scale(Math.max(ratio.middle, ratio.atMost ?? 0)) + 6}" y="${y}">${ratio.middle.toFixed(2)}</text>`,
    ].join('\n');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${40 + bars.length * LINE}" font-family="sans-serif" font-size="10">`,
    '<title>Processor time of the edge over that of other servers</title>',
    `<rect width="100%" height="100%" fill="white"/><text x="6" y="12">Processor time, ratio; mark: goal. ${versions}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
