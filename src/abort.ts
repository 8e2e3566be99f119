/** Abort signals that many wait on at once, such as the one that ends a process. */
import { setMaxListeners } from 'node:events';

/** A controller whose signal any number of waits may listen to; each takes its listener away when it ends. */
export function sharedController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}
