/** `media-service webhooks …`: asks the running origin for the outbox, or has it send dead letters again. */
import { operatorTarget } from '../../src/server/operators.js';
import { type Step, stepsOf } from '../upkeep/ask-origin.js';
import type { CommandDeps } from '../upkeep/commands.js';

export type WebhooksVerb = 'status' | 'retry';

/** Returns the exit code: 0 if it was done, 2 if no origin answered or it failed. */
export async function runWebhooks(deps: CommandDeps, { verb }: { readonly verb: WebhooksVerb }): Promise<number> {
  const { config, print, progress, signal } = deps;
  const { base, headers } = operatorTarget(config.operators);
  const [method, path] = verb === 'status' ? ['GET', '/webhooks'] : ['POST', '/webhooks/retry'];
  let last: Step | undefined;
  try {
    for await (const step of stepsOf(base + path, { method, headers, signal })) {
      last = step;
      if (verb === 'retry') progress(describe(verb, step));
    }
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    print(`No origin answers at ${base}. This command needs a running origin.`);
    return 2;
  }
  print(last === undefined ? 'There was nothing to do.' : describe(verb, last));
  return 0;
}

function describe(verb: WebhooksVerb, step: Step): string {
  const figure = (name: string): string => String(step[name]);
  if (verb === 'retry') return `${figure('revived')} are sent again, ${figure('left')} left`;
  const oldest = step['oldest_since'] === null ? '' : `, the oldest since ${figure('oldest_since')}`;
  const letters = step['dead_letters'] as readonly Step[];
  return [
    `${figure('waiting')} waiting${oldest}; ${figure('dead')} given up`,
    ...letters.map((letter) => `  ${LETTER.map((name) => String(letter[name])).join(' ')}: ${String(letter['fault'])}`),
  ].join('\n');
}

const LETTER = ['timestamp', 'type', 'id', 'event'] as const;
