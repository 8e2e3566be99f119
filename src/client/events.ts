/** Listeners with types. What a listener throws is reported as an unhandled rejection, and the others are still called. */

export class Events<Kinds extends object> {
  readonly #listeners = new Map<keyof Kinds, Set<(event: never) => void>>();

  /** The result takes the listener away again. */
  on<Name extends keyof Kinds>(name: Name, listener: (event: Kinds[Name]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  emit<Name extends keyof Kinds>(name: Name, event: Kinds[Name]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        (listener as (event: Kinds[Name]) => void)(event);
      } catch (thrown) {
        void Promise.reject(thrown);
      }
    }
  }
}
