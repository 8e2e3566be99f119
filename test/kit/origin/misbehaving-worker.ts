/**
 * A child of the thumbnail engine that does what the bytes of its picture say:
 * hang, take memory, exit, or send a false result. Real pictures are rendered.
 */
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseToChild, type RenderRequest } from '../../../origin/thumbs/render/protocol.js';
import { prepareRenderer, render } from '../../../origin/thumbs/render/render.js';

const facts = { width: 1, height: 1, frames: 1, orientation: 1, thumbhash: null };
const thumb = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 1, animated: false };
const rendered = { kind: 'rendered', facts, thumbs: [thumb] };
const kept: Buffer[] = [];

/** Each returns the result to send, or nothing. */
const FAILURES: Readonly<Record<string, (request: RenderRequest) => unknown>> = {
  hang: () => undefined,
  spin: () => {
    for (;;) kept.length = 0;
  },
  grow,
  map: () => {
    try {
      kept.push(Buffer.alloc(2 ** 30));
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
  early: ({ folder }) => {
    // Its first thumbnail is there, and the others never come.
    writeFileSync(join(folder, '320.webp'), 'the early one');
    const early = { ...thumb, variant: '320', file: '320.webp', width: 320, height: 240 };
    process.send?.({ t: 'early', job: 1, thumbs: [early], thumbhash: null });
    return undefined;
  },
  fail: () => ({ kind: 'failed', code: 'EPERM', detail: 'no room' }),
  once: ({ folder }) => {
    // Every attempt has its own folder, so the mark of the first attempt is beside it.
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
process.on('message', (value) => void receive(value));
process.send?.({ t: 'ready' });

async function receive(value: unknown): Promise<void> {
  const message = parseToChild(value);
  if (message === undefined) process.exit(64);
  const { job, request } = message;
  const fail = FAILURES[readFileSync(request.input, 'latin1').slice(0, 12).split(' ', 1)[0] ?? ''];
  const result = fail === undefined ? await render(request) : fail(request);
  if (result !== undefined) process.send?.({ t: 'done', job, result });
}

/** Fills the memory, so that it is resident, slowly enough for the watch to act before the limit of the kernel. */
function grow(): void {
  kept.push(Buffer.alloc(4 * 2 ** 20, 1));
  setTimeout(grow, 10);
}
