/** `media-service simulate`: what another configuration would have done with the requests of a trace. */
import { writeFile } from 'node:fs/promises';
import { formatFaults, loadConfig } from '../../src/config/load.js';
import { withoutSecretsContext } from '../../src/config/without-secrets.js';
import { errorCode, Fault } from '../../src/errors.js';
import type { ChoreTools } from '../../src/process.js';
import type { TierName } from '../cache/cache.js';
import { edgeSection } from '../config.js';
import { sweepPage, sweepSvg } from './draw.js';
import { readTraces, type TraceColumns } from './read-trace.js';
import { replay } from './replay.js';
import { reportData, reportLines } from './report.js';
import { caveatsOf, type SimulatedConfig, simulatedEdge } from './settings.js';
import { sweep, sweptTier } from './sweep.js';
import type { Tally } from './tally.js';

export interface SimulateWords {
  readonly traces: readonly string[];
  /** Files of configuration. Undefined: every key has its default. */
  readonly config: string | undefined;
  readonly today: string | undefined;
  /** Shares, such as `20%` or `0.2`. */
  readonly skip: string;
  readonly sample: string;
  readonly json: boolean;
  /** The path of the drawings, without their extension. */
  readonly sweep: string | undefined;
  /** Undefined: disk, if there is one. */
  readonly tier: TierName | undefined;
}

type Tools = Pick<ChoreTools, 'print' | 'complain' | 'progress' | 'signal'>;

/** Exit codes: 0 done, 1 a trace cannot be read or the words are wrong, 2 a configuration has faults. */
export async function runSimulate(tools: Tools, words: SimulateWords): Promise<0 | 1 | 2> {
  const { complain, progress, signal } = tools;
  const today = readConfig(words.today, complain);
  const next = readConfig(words.config, complain);
  if (today === undefined || next === undefined) return 2;
  try {
    const [skipShare, sampleShare] = [shareOf('skip', words.skip), shareOf('sample', words.sample)];
    if (skipShare === 1 || sampleShare === 0) throw new Fault('malformed', 'Nothing would be left to count.');
    const reading = {
      sampleShare,
      signal,
      progress: (done: number, of: number) => progress(`reading ${Math.floor((100 * done) / Math.max(1, of))} %`),
    };
    const trace = await readTraces(words.traces, reading);
    if (trace.count === 0) throw new Fault('malformed', 'The trace has no requests.');
    const skip = Math.floor(trace.count * skipShare);
    if (words.sweep === undefined) await compare(tools, trace, { today, next, skip, json: words.json });
    else await draw(tools, trace, { today, next, skip, path: words.sweep, tier: words.tier });
    return 0;
  } catch (thrown) {
    const why = sayWhy(thrown);
    if (why === undefined) throw thrown;
    complain(why);
    return 1;
  }
}

interface Compared {
  readonly today: SimulatedConfig;
  readonly next: SimulatedConfig;
  readonly skip: number;
}

async function compare(
  { print, progress, signal }: Tools,
  trace: TraceColumns,
  { today, next, skip, json }: Compared & { readonly json: boolean },
): Promise<void> {
  const run = (config: SimulatedConfig, name: string): Promise<Tally> =>
    replay(trace, simulatedEdge(config), {
      skip,
      signal,
      progress: (done) => progress(`${name}: ${Math.floor((100 * done) / trace.count)} % of ${trace.count} events`),
    });
  const tallies = { today: await run(today, 'today'), next: await run(next, 'new') };
  const simulated = { trace, skip, ...tallies, caveats: caveatsOf(simulatedEdge(next), trace.sampleShare) };
  if (json) print(JSON.stringify(reportData(simulated)));
  else for (const line of reportLines(simulated)) print(line);
}

async function draw(
  { print, progress, signal }: Tools,
  trace: TraceColumns,
  { today, next, skip, path, tier }: Compared & { readonly path: string; readonly tier: TierName | undefined },
): Promise<void> {
  const swept = await sweep(trace, {
    config: next,
    today,
    tier: tier ?? sweptTier(next),
    skip,
    signal,
    progress: (done, of) => progress(`${done} of ${of} simulations`),
  });
  const caveats = caveatsOf(simulatedEdge(next), trace.sampleShare);
  await writeFile(`${path}.svg`, sweepSvg(swept));
  await writeFile(`${path}.html`, sweepPage(swept, caveats));
  print(`${path}.svg and ${path}.html: hit ratio over the size of the ${swept.tier} tier`);
}

/** Secrets are not needed: a trace can be simulated on any machine. */
function readConfig(path: string | undefined, print: (line: string) => void): SimulatedConfig | undefined {
  const outcome = loadConfig(path, { edge: edgeSection }, withoutSecretsContext);
  if (outcome.kind === 'loaded') return outcome.config.edge;
  print(`${path ?? 'the built-in configuration'} cannot be used:`);
  print(formatFaults(outcome.faults).replace(/^/gm, '  '));
  return undefined;
}

function shareOf(name: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(text.trim());
  const share = Number(match?.[1] ?? Number.NaN) / (match?.[2] === '%' ? 100 : 1);
  if (!(share >= 0 && share <= 1))
    throw new Fault('malformed', `--${name} ${text}: must be a share such as 20% or 0.2.`);
  return share;
}

/** Undefined: it is a bug, or the command was stopped. */
function sayWhy(thrown: unknown): string | undefined {
  if (thrown instanceof Fault) return thrown.detail;
  const code = errorCode(thrown);
  return code === undefined || !(thrown instanceof Error) ? undefined : `${thrown.message}.`;
}
