/** Work for the next turn of the event loop, which several callers may ask for: it is done once. */

/** `nextTurn` calls back in the next turn. */
export function onceATurn(nextTurn: (run: () => void) => void, work: () => void): () => void {
  let scheduled = false;
  const run = (): void => {
    scheduled = false;
    work();
  };
  return () => {
    if (scheduled) return;
    scheduled = true;
    nextTurn(run);
  };
}
