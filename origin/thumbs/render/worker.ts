/**
 * A child process of the engine: renders one picture after the other as it is
 * told, holds nothing, and dies with its parent.
 */
import { parseToChild } from './protocol.js';
import { prepareRenderer, render } from './render.js';

/** The end of a channel must end the process at once, also while a decoder is at work in another thread. */
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// A terminal's signal reaches the whole group: ending children is the parent's affair.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

prepareRenderer();
process.on('message', (value: unknown) => void answer(value));
process.send?.({ t: 'ready' });

async function answer(value: unknown): Promise<void> {
  const message = parseToChild(value);
  if (message === undefined) process.exit(64);
  process.send?.({ t: 'done', job: message.job, result: await render(message.request) });
}
