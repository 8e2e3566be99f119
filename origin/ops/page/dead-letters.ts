/** The dead letters of thumbnails and of webhooks, for those who have the token, and what queues them again. */
import { byId } from '../../../src/live/element.js';
import { instant } from '../../../src/live/format.js';
import type { Operator } from '../../../src/live/operator.js';
import { fillTable } from '../../../src/live/table.js';

export interface DeadLetters {
  refresh(): void;
  /** How many there are now. The lists are read again when that has changed. */
  changed(thumbnails: number, webhooks: number): void;
}

interface DeadJob {
  readonly sha256: string;
  readonly attempts: number;
  readonly diedAt: number;
  readonly reason: string;
}

interface DeadEvent {
  readonly type: string;
  readonly id: string;
  readonly timestamp: string;
  readonly attempts: number;
  readonly fault: string | null;
}

export function openDeadLetters(operator: Operator): DeadLetters {
  let known = { thumbs: 0, webhooks: 0 };

  async function showThumbs(): Promise<void> {
    const shown = operator.known() && known.thumbs > 0;
    byId('thumbs-letters', HTMLElement).hidden = !shown;
    if (!shown) return;
    const { told } = await operator.ask('GET', '/thumbs/status');
    const jobs = (told['deadJobs'] ?? []) as readonly DeadJob[];
    fillTable(
      'thumbs-list',
      jobs.map(({ sha256, attempts, diedAt, reason }) => [
        sha256,
        reason,
        String(attempts),
        instant(new Date(diedAt).toISOString()),
      ]),
      'None.',
    );
  }

  async function showWebhooks(): Promise<void> {
    const shown = operator.known() && known.webhooks > 0;
    byId('webhooks-letters', HTMLElement).hidden = !shown;
    if (!shown) return;
    const { told } = await operator.ask('GET', '/webhooks');
    const events = (told['dead_letters'] ?? []) as readonly DeadEvent[];
    fillTable(
      'webhooks-list',
      events.map(({ type, id, timestamp, attempts, fault }) => [
        id,
        type,
        fault ?? '',
        String(attempts),
        instant(timestamp),
      ]),
      'None.',
    );
  }

  function retryWith(name: 'thumbs' | 'webhooks'): void {
    const button = byId(`${name}-retry`, HTMLButtonElement);
    button.addEventListener('click', () => {
      button.disabled = true;
      void operator.ask('POST', `/${name}/retry`).then(({ ok, told, trouble }) => {
        button.disabled = false;
        byId(`${name}-answer`, HTMLElement).textContent = ok
          ? `${Number(told['revived'] ?? 0)} are in the queue again.`
          : trouble;
      });
    });
  }
  retryWith('thumbs');
  retryWith('webhooks');

  return {
    refresh() {
      void showThumbs();
      void showWebhooks();
    },
    changed(thumbs, webhooks) {
      const before = known;
      known = { thumbs, webhooks };
      byId('thumbs-retry', HTMLButtonElement).hidden = thumbs === 0;
      byId('webhooks-retry', HTMLButtonElement).hidden = webhooks === 0;
      if (before.thumbs !== thumbs) void showThumbs();
      if (before.webhooks !== webhooks) void showWebhooks();
    },
  };
}
