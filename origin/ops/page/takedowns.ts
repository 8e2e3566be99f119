/** The newest takedowns and which edges have confirmed them, for those who have the token. */
import { byId } from '../../../src/live/element.js';
import type { Operator } from '../../../src/live/operator.js';
import { showTakedowns, type Takedown } from '../../../src/live/takedowns.js';

export interface Takedowns {
  refresh(): void;
}

export function openTakedowns(operator: Operator): Takedowns {
  const button = byId('takedowns-read', HTMLButtonElement);
  async function read(): Promise<void> {
    if (!operator.known()) {
      showTakedowns([], 'Give the token to see them.');
      return;
    }
    const { ok, told, trouble } = await operator.ask('GET', '/takedowns');
    showTakedowns(ok ? (told['takedowns'] as readonly Takedown[]) : [], ok ? 'None.' : trouble);
  }
  button.addEventListener('click', () => void read());
  return { refresh: () => void read() };
}
