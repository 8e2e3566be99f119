/** How long the graphs of a live page look back: two minutes, as the figures bring them, or six hours. */
import { machineClock } from '../client/clock.js';
import { byId } from './element.js';

/** As `history` in `/stats`, and `/history`, say it. */
export interface History {
  readonly every_ms: number;
  readonly kept: number;
  readonly rows: readonly Readonly<Record<string, number | null>>[];
}

const MINUTES_EVERY_MS = 15_000;

/** Ties the choice `#span` to the graphs. Returns what to call with each new history of the last two minutes. */
export function followSpan(draw: (history: History) => void): (history: History) => void {
  const choice = byId('span', HTMLFieldSetElement);
  let latest: History | undefined;
  let cancel: (() => void) | undefined;
  const isLong = (): boolean => choice.querySelector<HTMLInputElement>('input:checked')?.value === 'hours';
  async function drawLong(): Promise<void> {
    cancel?.();
    cancel = machineClock.after(MINUTES_EVERY_MS, () => void (isLong() && !document.hidden && drawLong()));
    const answer = await fetch('/history', { cache: 'no-store' }).catch(() => undefined);
    if (answer?.ok === true && isLong()) draw((await answer.json()) as History);
  }
  const changed = (): void => {
    if (isLong()) void drawLong();
    else if (latest !== undefined) draw(latest);
  };
  choice.addEventListener('change', changed);
  document.addEventListener('visibilitychange', changed);
  return (history) => {
    latest = history;
    if (!isLong()) draw(history);
  };
}
