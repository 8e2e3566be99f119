/**
 * `media-service thumbs …`: sends a command to the running origin, through its
 * operators' listener (operators.ts), and prints the progress.
 */
import { operatorTarget } from '../../src/server/operators.js';
import { type Step, stepsOf } from '../upkeep/ask-origin.js';
import type { CommandDeps } from '../upkeep/commands.js';

export type ThumbsVerb = 'status' | 'retry' | 'backfill';

/** Returns the exit code: 0 if it was done, 2 if no origin answered or it failed. */
export async function runThumbs(
  deps: CommandDeps,
  { verb, all }: { readonly verb: ThumbsVerb; readonly all: boolean },
): Promise<number> {
  const { config, print, progress, signal } = deps;
  const { base, headers } = operatorTarget(config.operators);
  const target = `${base}/thumbs/${verb}${verb === 'backfill' && all ? '?all=true' : ''}`;
  let last: Step | undefined;
  try {
    for await (const step of stepsOf(target, { method: verb === 'status' ? 'GET' : 'POST', headers, signal })) {
      last = step;
      if (verb !== 'status') progress(describe(verb, step));
    }
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    print(`No origin answers at ${base}. This command needs a running origin.`);
    return 2;
  }
  print(last === undefined ? 'There was nothing to do.' : describe(verb, last));
  return 0;
}

function describe(verb: ThumbsVerb, step: Step): string {
  const figure = (name: string): string => String(step[name]);
  switch (verb) {
    case 'retry':
      return `${figure('revived')} queued again, ${figure('left')} left`;
    case 'backfill':
      return `${figure('seen')} media seen, ${figure('queued')} queued, ${figure('trimmed')} with surplus thumbnails`;
    case 'status':
      return [
        `${figure('waiting')} waiting, ${figure('leased')} running, ${figure('dead')} given up`,
        ...deadLetters(step['deadJobs']),
      ].join('\n');
  }
}

function deadLetters(jobs: unknown): string[] {
  if (!Array.isArray(jobs)) return [];
  return (jobs as readonly Step[]).map(
    ({ sha256, attempts, reason }) => `  ${String(sha256)} after ${String(attempts)} attempts: ${String(reason)}`,
  );
}
