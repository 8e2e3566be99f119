/**
 * `media-service thumbs …`: sends a command to the running origin, through its
 * operators' listener (operators.ts), and prints the progress.
 */
import { askOrigin, type Step } from '../upkeep/ask-origin.js';
import type { CommandDeps } from '../upkeep/commands.js';

export type ThumbsVerb = 'status' | 'retry' | 'backfill';

/** Returns the exit code. */
export function runThumbs(
  deps: CommandDeps,
  { verb, all }: { readonly verb: ThumbsVerb; readonly all: boolean },
): Promise<number> {
  const path = `/thumbs/${verb}${verb === 'backfill' && all ? '?all=true' : ''}`;
  return askOrigin(deps, { method: verb === 'status' ? 'GET' : 'POST', path }, (step) => describe(verb, step));
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
