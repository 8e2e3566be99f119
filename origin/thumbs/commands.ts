/**
 * `media-service thumbs …`: asks the origin that runs, through its operators'
 * listener (operators.ts), and tells how far it is.
 */
import { type IncomingMessage, request } from 'node:http';
import { createInterface } from 'node:readline';
import type { CommandParts } from '../upkeep/commands.js';

export type ThumbsVerb = 'status' | 'retry' | 'backfill';

/** 0: done; 2: no origin, or it could not. */
export async function runThumbs(
  parts: CommandParts,
  { verb, all }: { readonly verb: ThumbsVerb; readonly all: boolean },
): Promise<number> {
  const { config, print, progress, signal } = parts;
  const { host, port } = config.operators;
  const base = `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const target = `${base}/thumbs/${verb}${verb === 'backfill' && all ? '?all=true' : ''}`;
  let last: Step | undefined;
  try {
    for await (const step of steps(target, verb === 'status' ? 'GET' : 'POST', signal)) {
      last = step;
      if (verb !== 'status') progress(tell(verb, step));
    }
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    print(`The origin does not answer at ${base}; thumbnails are made by a running origin.`);
    return 2;
  }
  print(last === undefined ? 'Nothing was to be done.' : tell(verb, last));
  return 0;
}

type Step = Readonly<Record<string, unknown>>;

/** One JSON object a line, until the origin is done. */
async function* steps(target: string, method: string, signal: AbortSignal): AsyncGenerator<Step> {
  const sent = request(target, { method, signal });
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('error', reject);
    sent.once('response', (response) => {
      if (response.statusCode === 200) resolve(response);
      else reject(new Error(`answered ${String(response.statusCode)}`));
    });
    sent.end();
  });
  for await (const line of createInterface({ input: answer })) yield JSON.parse(line) as Step;
}

function tell(verb: ThumbsVerb, step: Step): string {
  const figure = (name: string): string => String(step[name]);
  switch (verb) {
    case 'retry':
      return `${figure('revived')} wait again, ${figure('left')} left`;
    case 'backfill':
      return `${figure('seen')} media seen, ${figure('queued')} queued, ${figure('trimmed')} with more than is wanted`;
    case 'status':
      return [
        `${figure('waiting')} waiting, ${figure('leased')} being made, ${figure('dead')} given up`,
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
