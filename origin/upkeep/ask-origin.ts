/** How a command asks the running origin, through its operators' listener (operators.ts). */
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { createInterface } from 'node:readline';
import { operatorTarget } from '../../src/server/operators.js';
import type { CommandDeps } from './commands.js';

export type Step = Readonly<Record<string, unknown>>;

/** The response is one JSON object per line, until the origin has finished. */
async function* stepsOf(target: string, options: RequestOptions): AsyncGenerator<Step> {
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

/**
 * Asks, with progress for an act, and prints what came of it. Returns the exit code: 0. Rejects if no origin
 * answered or it failed.
 */
export async function askOrigin(
  { config, print, progress, signal }: CommandDeps,
  { method, path }: { readonly method: 'GET' | 'POST'; readonly path: string },
  describe: (step: Step) => string,
): Promise<number> {
  const { base, headers } = operatorTarget(config.operators);
  let last: Step | undefined;
  try {
    for await (const step of stepsOf(base + path, { method, headers, signal })) {
      last = step;
      if (method === 'POST') progress(describe(step));
    }
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    throw new Error(`No origin answers at ${base}. This command needs a running origin.`, { cause: thrown });
  }
  print(last === undefined ? 'There was nothing to do.' : describe(last));
  return 0;
}
