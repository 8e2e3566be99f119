/**
 * A child of the thumbnail engine that does as the bytes of its picture tell
 * it: hang, grow, exit, lie, or point elsewhere. Real pictures are rendered.
 */
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseToChild, type RenderRequest } from '../../../origin/thumbs/render/protocol.js';
import { prepareRenderer, render } from '../../../origin/thumbs/render/render.js';

const facts = { width: 1, height: 1, frames: 1, orientation: 1, thumbhash: null };
const thumb = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 1, animated: false };
const rendered = { kind: 'rendered', facts, thumbs: [thumb] };
const hoard: Buffer[] = [];

/** Each answers what is sent as the result, or nothing. */
const MISDEEDS: Readonly<Record<string, (request: RenderRequest) => unknown>> = {
  hang: () => undefined,
  spin: () => {
    for (;;) hoard.length = 0;
  },
  grow,
  map: () => {
    try {
      hoard.push(Buffer.alloc(2 ** 30));
      return rendered;
    } catch (thrown) {
      return { kind: 'failed', code: null, detail: String(thrown) };
    }
  },
  exit: () => process.exit(3),
  abort: () => process.abort(),
  lie: () => ({ ...rendered, thumbs: [{ ...thumb, file: '../../x.webp' }] }),
  link: ({ folder }) => {
    writeFileSync(join(folder, 'secret'), 'secret');
    symlinkSync(join(folder, 'secret'), join(folder, '160.webp'));
    return rendered;
  },
  fail: () => ({ kind: 'failed', code: 'EPERM', detail: 'no room' }),
  once: ({ folder }) => {
    // Every attempt has a folder of its own, so the mark of the first lies beside it.
    try {
      writeFileSync(join(folder, '../once'), '', { flag: 'wx' });
    } catch {
      writeFileSync(join(folder, '160.webp'), 'fine');
      return rendered;
    }
    return process.exit(1);
  },
};

process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
prepareRenderer();
process.on('message', (value) => void answer(value));
process.send?.({ t: 'ready' });

async function answer(value: unknown): Promise<void> {
  const message = parseToChild(value);
  if (message === undefined) process.exit(64);
  const { job, request } = message;
  const misdeed = MISDEEDS[readFileSync(request.input, 'latin1').slice(0, 12).split(' ', 1)[0] ?? ''];
  const result = misdeed === undefined ? await render(request) : misdeed(request);
  if (result !== undefined) process.send?.({ t: 'done', job, result });
}

/** Touched, so that it counts as resident; slow enough for the watch to see it before the system's own limit does. */
function grow(): void {
  hoard.push(Buffer.alloc(4 * 2 ** 20, 1));
  setTimeout(grow, 10);
}
