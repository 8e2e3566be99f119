/** `media-service webhooks …`: asks the running origin for the outbox, or has it send dead letters again. */
import { askOrigin, type Step } from '../upkeep/ask-origin.js';
import type { CommandDeps } from '../upkeep/commands.js';

export type WebhooksVerb = 'status' | 'retry';

/** Returns the exit code. */
export function runWebhooks(deps: CommandDeps, { verb }: { readonly verb: WebhooksVerb }): Promise<number> {
  const request =
    verb === 'status'
      ? ({ method: 'GET', path: '/webhooks' } as const)
      : ({ method: 'POST', path: '/webhooks/retry' } as const);
  return askOrigin(deps, request, (step) => describe(verb, step));
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
