/**
 * `media-service thumbs …`: sends a command to the running origin, through its
 * operators' listener (operators.ts), and prints the progress.
 */
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { createInterface } from 'node:readline';
import { operatorTarget } from '../../src/server/operators.js';
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
    for await (const step of steps(target, { method: verb === 'status' ? 'GET' : 'POST', headers, signal })) {
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

type Step = Readonly<Record<string, unknown>>;

/** The response is one JSON object per line, until the origin has finished. */
async function* steps(target: string, options: RequestOptions): AsyncGenerator<Step> {
  const sent = request(target, options);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('error', reject);
    sent.once('response', (head) => {
      if (head.statusCode === 200) resolve(head);
      else reject(new Error(`answered ${String(head.statusCode)}`));
    });
    sent.end();
  });
  for await (const line of createInterface({ input: response })) yield JSON.parse(line) as Step;
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
