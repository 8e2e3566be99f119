/** Waiting under an AbortSignal: every listener that is added here is also taken away. */
import { setMaxListeners } from 'node:events';

/** A controller whose signal any number of waits may listen to, such as the one that ends a process. */
export function sharedController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** Calls `run` when the signal aborts, or at once if it has aborted. The function returned stops listening. */
export function onAbort(signal: AbortSignal | undefined, run: () => void): () => void {
  if (signal === undefined) return () => undefined;
  if (signal.aborted) {
    run();
    return () => undefined;
  }
  signal.addEventListener('abort', run, { once: true });
  return () => signal.removeEventListener('abort', run);
}

/** The result of `work`, or a rejection with the signal's reason as soon as it aborts. The work itself goes on. */
export function withSignal<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const stopListening = onAbort(signal, () => reject(signal.reason));
    work.then(resolve, reject).finally(stopListening);
  });
}

/**
 * Waits for one event. `until` starts to wait: it is given what to call when
 * the event comes, later and not within `until`, and returns how to stop
 * waiting. That is called however the wait ends. Rejects with the signal's
 * reason as soon as it aborts.
 */
export function waitFor<T = void>(
  until: (come: (value: T) => void) => () => void,
  signal: AbortSignal | undefined,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason);
      return;
    }
    const end = (settle: () => void): void => {
      stopListening();
      stopWaiting();
      settle();
    };
    const stopWaiting = until((value) => end(() => resolve(value)));
    const stopListening = onAbort(signal, () => end(() => reject(signal?.reason)));
  });
}
