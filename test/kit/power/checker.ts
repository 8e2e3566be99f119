/**
 * A process that checks disks, one at a time, so that one that ends the process is a finding as any other. It takes the
 * folder and the notes in a message, and answers with what is wrong.
 */
import { keepAlive } from '../../../src/clock.js';
import { checkEdge, checkWholeEdge } from './check-edge.js';
import { checkOrigin, checkWholeOrigin } from './check-origin.js';
import type { CheckAnswer, CheckRequest } from './checkers.js';
import type { EdgeNote } from './edge-note.js';
import type { OriginNote } from './origin-note.js';

keepAlive();
// The test has ended, perhaps by a kill.
process.on('disconnect', () => process.exit());
process.on('message', (request: CheckRequest) => {
  check(request).then(
    () => answer({ fault: null }),
    (thrown: unknown) => answer({ fault: String(thrown instanceof Error ? thrown.message : thrown) }),
  );
});

async function check({ of, folder, notes, whole }: CheckRequest): Promise<void> {
  switch (of) {
    case 'origin':
      if (whole) await checkWholeOrigin(folder, notes as readonly OriginNote[]);
      return await checkOrigin(folder, notes as readonly OriginNote[]);
    case 'edge':
      if (whole) await checkWholeEdge(folder);
      return await checkEdge(folder, notes as readonly EdgeNote[]);
  }
}

function answer(message: CheckAnswer): void {
  process.send?.(message);
}
