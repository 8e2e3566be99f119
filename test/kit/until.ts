/** Waiting for what other sockets and files do, without guessing how long it takes. */

/** Resolves as soon as `holds` does; fails loudly after a bound that no healthy run comes near. */
export async function until(what: string, holds: () => boolean, boundMs = 10_000): Promise<void> {
  const from = performance.now();
  while (!holds()) {
    if (performance.now() - from > boundMs) throw new Error(`waited in vain: ${what}`);
    await new Promise(setImmediate);
  }
}
