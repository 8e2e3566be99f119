/**
 * A process that checks disks, one at a time, so that one that ends the process is a finding as any other. It takes the
 * folder and the notes in a message, and answers with what is wrong.
 */
import { keepAlive } from '../../../src/clock.js';
import { checkOrigin, checkWholeOrigin } from './check-origin.js';
import type { CheckAnswer, CheckRequest } from './checkers.js';

keepAlive();
process.on('message', ({ folder, notes, whole }: CheckRequest) => {
  const checked = whole
    ? checkWholeOrigin(folder, notes).then(() => checkOrigin(folder, notes))
    : checkOrigin(folder, notes);
  checked.then(
    () => answer({ fault: null }),
    (thrown: unknown) => answer({ fault: String(thrown instanceof Error ? thrown.message : thrown) }),
  );
});

function answer(message: CheckAnswer): void {
  process.send?.(message);
}
