/**
 * Closing what was opened: whoever opens something adds it to a Closer, which
 * closes everything in reverse order.
 */
import type { Clock } from './clock.js';
import { bugFields, type Log } from './log.js';

export interface Closeable {
  close(): void | Promise<void>;
}

export class Closer {
  readonly #log: Log;
  readonly #opened: { readonly name: string; readonly closeable: Closeable }[] = [];
  #closing: Promise<void> | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Returns what it was given. */
  add<T extends Closeable>(name: string, closeable: T): T {
    this.#opened.push({ name, closeable });
    return closeable;
  }

  /** Closes everything, the last opened first. A failure is logged and does not stop the rest. May be called twice. */
  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    for (const { name, closeable } of this.#opened.toReversed()) {
      try {
        await closeable.close();
      } catch (thrown) {
        this.#log.error({ part: name, ...bugFields(thrown) }, 'a component did not close');
      }
    }
  }
}

/** Calls `open`. If it fails, closes what it had opened until then and throws the same error. */
export async function openOrClose<T>(log: Log, open: (opened: Closer) => Promise<T>): Promise<T> {
  const opened = new Closer(log);
  try {
    return await open(opened);
  } catch (thrown) {
    await opened.close();
    throw thrown;
  }
}

/** Whether closing succeeded before the deadline. The closing itself is not stopped by the deadline. */
export function closeWithin(closeable: Closeable, deadlineMs: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const deadline = clock.after(deadlineMs, () => resolve(false));
    Promise.resolve()
      .then(() => closeable.close())
      .then(
        () => resolve(true),
        () => resolve(false),
      )
      .finally(() => deadline.cancel());
  });
}
