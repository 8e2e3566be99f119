/** Waiting for what other sockets, files and processes do, without guessing how long it takes. */

/** What takes so long hangs: a machine with ten times as much work as processors does not come near. */
export const HANGS_AFTER_MS = 90_000;

/** The same for a whole test file. */
export const FILE_HANGS_AFTER_MS = 300_000;

/** For so long every turn of the event loop checks. Afterwards other processes need the processor more. */
const SPIN_MS = 500;

/** Resolves once `holds` returns true. Fails where it never does. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const from = performance.now();
  while (!holds()) {
    const waitedMs = performance.now() - from;
    if (waitedMs > HANGS_AFTER_MS) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => (waitedMs < SPIN_MS ? setImmediate(resolve) : setTimeout(resolve, 2)));
  }
}

/** The same for a check that takes time itself, such as reading a file. Waits a little between two checks. */
export async function untilAsync(what: string, holds: () => Promise<boolean>): Promise<void> {
  const from = performance.now();
  while (!(await holds())) {
    if (performance.now() - from > HANGS_AFTER_MS) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
