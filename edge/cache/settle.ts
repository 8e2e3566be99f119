/**
 * Work on a tier in steps, one in each turn of the event loop, so that clients are
 * served in between. One call after the other shares the work that is under way.
 */
export class Settling {
  #running: Promise<void> | undefined;
  #stopped = false;

  /** Calls `step` until it is true. Work that is under way already goes on. */
  run(step: () => boolean): Promise<void> {
    this.#running ??= this.#run(step).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Resolves when no step is under way, and none follows. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(step: () => boolean): Promise<void> {
    while (!this.#stopped && !step()) await new Promise(setImmediate);
  }
}
