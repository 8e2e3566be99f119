/** A process that runs test files, one after the other, each time with one module read anew. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { WarmAnswer, WarmOrder } from './messages.js';
import { createModules } from './modules.js';
import { FileRun, WarmTest } from './tap.js';

/** Where tap has them too. */
const FIXTURES = resolve('.tap', 'fixtures');

await mkdir(FIXTURES, { recursive: true });
const modules = createModules();
let running: FileRun | null = null;

for (const event of ['uncaughtException', 'unhandledRejection']) process.on(event, () => running?.fail());
process.on('disconnect', () => process.exit());
process.on('message', (order: WarmOrder) => {
  void run(order).then((passed) => answer({ kind: 'done', passed }));
});
answer({ kind: 'ready' });

async function run({ file, changed }: WarmOrder): Promise<boolean> {
  const fileRun = new FileRun(await mkdtemp(`${FIXTURES}/`));
  running = fileRun;
  const test = new WarmTest(file, fileRun);
  await test.perform(async () => {
    await modules.run(file, changed, { default: test, t: test, Test: WarmTest });
  });
  // What the last step left to the next turn of the event loop belongs to this file.
  await new Promise((resolve) => setImmediate(resolve));
  running = null;
  process.exitCode = 0;
  await rm(fileRun.folder, { recursive: true, force: true, maxRetries: 3 }).catch(() => {});
  return !fileRun.failed;
}

function answer(message: WarmAnswer): void {
  process.send?.(message);
}
