/** Waiting for what other sockets, files and processes do, without guessing how long it takes. */

/** Resolves once `holds` returns true. Fails after a bound that no healthy run comes near. */
export async function until(what: string, holds: () => boolean, boundMs = 10_000): Promise<void> {
  const from = performance.now();
  while (!holds()) {
    if (performance.now() - from > boundMs) throw new Error(`waited in vain: ${what}`);
    await new Promise(setImmediate);
  }
}

/** The same for a check that takes time itself, such as reading a file. Waits a little between two checks. */
export async function untilAsync(what: string, holds: () => Promise<boolean>, boundMs = 30_000): Promise<void> {
  const from = performance.now();
  while (!(await holds())) {
    if (performance.now() - from > boundMs) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
