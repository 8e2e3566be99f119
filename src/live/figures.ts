/** The figures of a live page as they arrive, while the page is seen. */
import { machineClock } from '../client/clock.js';
import { byId } from './element.js';

const TRY_AGAIN_MS = 3_000;

/** Shows each event of `/events`, and whether they come. A page that is hidden has no connection open. */
export function followFigures(show: (figures: unknown) => void): void {
  let source: EventSource | undefined;
  let cancel: (() => void) | undefined;
  function close(): void {
    source?.close();
    source = undefined;
    cancel?.();
    cancel = undefined;
  }
  function open(): void {
    close();
    if (document.hidden) return;
    source = new EventSource('/events');
    source.addEventListener('message', ({ data }) => {
      show(JSON.parse(String(data)));
      say('live', 'Live', 'good');
    });
    source.addEventListener('error', () => {
      say('live', 'No answer', 'bad');
      // A browser connects again by itself after a connection that broke, but not after a refusal.
      if (source?.readyState === EventSource.CLOSED) cancel = machineClock.after(TRY_AGAIN_MS, open);
    });
  }
  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()));
  open();
}

export type Mood = 'good' | 'warn' | 'bad';

/** A word with a dot of its mood before it. The element keeps what it had if nothing is new, so that it is read once. */
export function say(id: string, text: string, mood: Mood): void {
  const place = byId(id, HTMLElement);
  if (place.textContent !== text) place.textContent = text;
  place.className = `pill ${mood}`;
}

/** Sets the text of elements by their ids. */
export function write(texts: Readonly<Record<string, string>>): void {
  for (const [id, text] of Object.entries(texts)) byId(id, HTMLElement).textContent = text;
}
