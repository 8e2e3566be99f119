/**
 * A child process of the engine: renders the pictures that its parent sends, one
 * after the other, keeps no state, and ends when its parent ends.
 */
import { parseToChild } from './protocol.js';
import { prepareRenderer, render } from './render.js';

/** The end of the channel must end the process at once, even while a decoder runs in another thread. */
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// A signal from a terminal reaches the whole process group, but only the parent ends children. SIGUSR1 would make node start
// its inspector.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const) process.on(signal, () => undefined);

prepareRenderer();
process.on('message', (value: unknown) => void receive(value));
process.send?.({ t: 'ready' });

async function receive(value: unknown): Promise<void> {
  const message = parseToChild(value);
  if (message === undefined) process.exit(64);
  const { job, request } = message;
  const result = await render(request, (thumbs, thumbhash) => process.send?.({ t: 'early', job, thumbs, thumbhash }));
  process.send?.({ t: 'done', job, result });
}
