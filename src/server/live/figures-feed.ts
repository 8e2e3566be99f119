/**
 * Figures for the live pages that are open, as server-sent events: read once a second for all of them, and not at all
 * while no page is open.
 *
 * Promises: a page that reads slowly misses figures and holds no more than a few; a read that fails ends no stream;
 * the number of streams is limited; `close` ends them all.
 */
import { Readable } from 'node:stream';
import type { Clock, Timer } from '../../clock.js';
import { Fault } from '../../errors.js';
import type { Reply } from '../../http/reply.js';
import { bugFields, type Log } from '../../log.js';

export interface FiguresFeed {
  /** A stream that begins at once. Throws if too many are open. */
  open(): Reply;
  close(): void;
}

export interface FeedDeps {
  readonly read: () => Promise<object>;
  readonly pagesMax: number;
  readonly clock: Clock;
  readonly log: Log;
}

const EVERY_MS = 1_000;
/** So many bytes may wait for a page to read them. */
const WAITING_MAX_BYTES = 262_144;

export function createFiguresFeed({ read, pagesMax, clock, log }: FeedDeps): FiguresFeed {
  const pages = new Set<Readable>();
  let timer: Timer | undefined;
  let reading = false;
  let failed = false;

  async function tell(): Promise<void> {
    timer = undefined;
    if (reading) return;
    reading = true;
    try {
      const event = `data: ${JSON.stringify(await read())}\n\n`;
      for (const page of pages) if (page.readableLength < WAITING_MAX_BYTES) page.push(event);
      failed = false;
    } catch (thrown) {
      if (!failed) log.warn(bugFields(thrown), 'the figures of the live page could not be read');
      failed = true;
    }
    reading = false;
    if (pages.size > 0) timer = clock.after(EVERY_MS, () => void tell());
  }

  function begin(): Readable {
    const page = new Readable({ read: () => undefined });
    pages.add(page);
    page.once('close', () => void pages.delete(page));
    timer?.cancel();
    void tell();
    return page;
  }

  return {
    open() {
      if (pages.size >= pagesMax) throw new Fault('overloaded', 'Too many live pages are open.');
      return {
        status: 200,
        headers: [
          ['content-type', 'text/event-stream'],
          ['cache-control', 'no-store'],
          // For proxies that would gather events.
          ['x-accel-buffering', 'no'],
        ],
        body: { kind: 'stream', sizeBytes: null, open: begin },
      };
    },
    close() {
      timer?.cancel();
      for (const page of pages) page.push(null);
      pages.clear();
    },
  };
}
