/**
 * Giving back what was taken, in reverse order: a Closer closes what a process
 * has opened, Releases releases what one request has taken.
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

export interface Releasable {
  release(): void | Promise<void>;
}

/** What one request has taken so far and must give back however it ends. */
export class Releases {
  readonly #taken: Releasable[] = [];

  /** Returns what it was given. */
  add<T extends Releasable>(taken: T): T {
    this.#taken.push(taken);
    return taken;
  }

  /** Releases everything, the last taken first, even where one fails. */
  async release(): Promise<void> {
    const last = this.#taken.pop();
    if (last === undefined) return;
    try {
      await last.release();
    } finally {
      await this.release();
    }
  }
}

/** Calls `remove` at its release, unless `keep` was called before. */
export function unlessKept(remove: () => Promise<void>): Releasable & { keep(): void } {
  let kept = false;
  return {
    keep() {
      kept = true;
    },
    async release() {
      if (!kept) await remove();
    },
  };
}
