/**
 * The uploaders that many sites have, Uppy and tus-js-client, as they are published, on a page of another site than the
 * service: they see progress and the answer, pause, and go on after a connection was cut in the middle of a piece.
 */
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { browserInstalled, openBrowser, openSite, watchErrors } from '../kit/browser.js';
import { openRelay } from '../kit/http/relay.js';
import { sendRequest } from '../kit/http/request.js';
import { largePng } from '../kit/media.js';
import { startService } from '../kit/service.js';
import { FILE_HANGS_AFTER_MS, until } from '../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const PIECE = 400_000;
const SIZE = 5 * PIECE + 123;

void t.test('uploaders on a page of another site', browserInstalled, async (t) => {
  let edgePort = 0;
  const relay = await openRelay(() => edgePort);
  t.teardown(() => relay.close());
  // The service gives addresses that lead through the relay.
  const service = await startService(t.testdir(), (config) => {
    edgePort = Number(/edge:\n {2}listen: \{ port: (\d+)/.exec(config)?.[1]);
    return config.replace('origin:\n', `origin:\n  base_uri: "${relay.url}"\n`);
  });
  t.teardown(() => service.stop());
  const token = await service.token();
  const browser = await openBrowser(t);
  const page = await browser.newPage();
  const errors = watchErrors(page);
  const hooks = await exposeHooks(page);
  const site = await openSite(t, '<!doctype html><title>a chat of somebody else</title>');
  const script = bundle();

  async function load(seed: number): Promise<readonly Call[]> {
    const calls = hooks.restart();
    await page.goto(site);
    await page.addScriptTag({ content: script });
    await page.evaluate(setUp(`${relay.url}/v1/uploads`, token, largePng(seed, SIZE)));
    return calls;
  }

  async function isStored(t: Test, seed: number, calls: readonly Call[]): Promise<void> {
    const location = calls.at(-1)?.mediaLocation;
    t.match(location, /\/v1\/media\/[0-9A-Z]{26}$/, 'the page can read where the media is');
    const url = new URL(location ?? '', relay.url).href;
    const answer = await sendRequest(url, { headers: { authorization: `Bearer ${token}` } });
    t.ok(answer.bytes.equals(largePng(seed, SIZE)), 'whole');
    t.match(answer.headers['content-disposition'], /a beach\.png/);
  }

  await t.test('Uppy goes on after a cut and after a pause, and learns where the media is', async (t) => {
    const calls = await load(1);
    /** What is to happen once bytes of the held piece are on their way. */
    let held: 'cut' | 'pause' | undefined;
    const happened: string[] = [];
    const progress: number[] = [];
    hooks.before = ({ method, offset }) => {
      // Bytes of these pieces go no further than to the relay.
      if (method === 'PATCH' && offset === PIECE && !happened.includes('cut')) held = 'cut';
      if (method === 'PATCH' && offset === 3 * PIECE && !happened.includes('pause')) held = 'pause';
      if (held !== undefined) relay.set('partition');
    };
    hooks.progress = (sent, total) => {
      t.ok(sent <= total && total === SIZE);
      progress.push(sent);
      if (held === undefined || sent <= (held === 'cut' ? PIECE : 3 * PIECE)) return;
      happened.push(held);
      if (held === 'cut') relay.cut();
      if (held === 'cut') relay.set('pass');
      held = undefined;
    };
    await page.evaluate(UPPY);
    await until('the pause', () => happened.includes('pause'));
    t.equal(await page.evaluate('pauseOrResume()'), true, 'it is paused');
    relay.set('pass');
    const sentBefore = calls.length;
    t.equal(await page.evaluate('pauseOrResume()'), false);
    t.same(await page.evaluate('ended'), { successful: 1, errors: [] });
    t.same(happened, ['cut', 'pause']);
    t.equal(calls[sentBefore]?.method, 'HEAD', 'it asks how far the upload is');
    t.equal(progress.at(-1), SIZE);
    await isStored(t, 1, calls);
    t.same(
      errors.filter((error) => !/net::ERR_/.test(error)),
      [],
      'nothing is blocked',
    );
  });

  await t.test('tus-js-client goes on after the page was loaded again', async (t) => {
    const before = await load(2);
    await page.evaluate(TUS);
    hooks.before = ({ method, offset }) => {
      if (method === 'PATCH' && offset === 2 * PIECE) relay.set('partition');
    };
    await page.evaluate('upload.start()');
    await until('the third piece', () => before.some(({ offset }) => offset === 2 * PIECE));

    const calls = await load(2);
    relay.cut();
    relay.set('pass');
    await page.evaluate(TUS);
    await page.evaluate(
      'upload.findPreviousUploads().then(([one]) => { upload.resumeFromPreviousUpload(one); upload.start(); })',
    );
    t.equal(await page.evaluate('ended'), 'success');
    t.equal(calls[0]?.method, 'HEAD');
    t.ok(
      calls.every(({ method, offset }) => method !== 'PATCH' || offset >= 2 * PIECE),
      'nothing is sent twice',
    );
    await isStored(t, 2, calls);
    t.same(
      errors.filter((error) => !/net::ERR_/.test(error)),
      [],
      'nothing is blocked',
    );
  });
});

/** A request of an uploader, and what it could read of the answer. */
interface Call {
  readonly method: string;
  readonly offset: number;
  status?: number;
  mediaLocation?: string | null;
}

interface Hooks {
  /** A request waits for it. */
  before(call: Call): void;
  progress(sent: number, total: number): void;
  /** Forgets the hooks, and counts the calls anew. */
  restart(): readonly Call[];
}

async function exposeHooks(page: Page): Promise<Hooks> {
  let calls: Call[] = [];
  const hooks: Hooks = {
    before: () => undefined,
    progress: () => undefined,
    restart() {
      calls = [];
      hooks.before = () => undefined;
      hooks.progress = () => undefined;
      return calls;
    },
  };
  await page.exposeFunction('hookBefore', (method: string, offset: number) => {
    calls.push({ method, offset });
    hooks.before({ method, offset });
  });
  await page.exposeFunction('hookAfter', (status: number, mediaLocation: string | null) => {
    Object.assign(calls.at(-1) ?? {}, { status, mediaLocation });
  });
  await page.exposeFunction('hookProgress', (sent: number, total: number) => hooks.progress(sent, total));
  return hooks;
}

/** The same file for each load of the page: uploaders find an earlier upload by its name, size and time. */
function setUp(endpoint: string, token: string, bytes: Buffer): string {
  return `{
    const bytes = Uint8Array.from(atob('${bytes.toString('base64')}'), (char) => char.charCodeAt(0));
    globalThis.file = new File([bytes], 'a beach.png', { type: 'image/png', lastModified: 1 });
    globalThis.options = {
      endpoint: '${endpoint}',
      headers: { authorization: 'Bearer ${token}' },
      chunkSize: ${PIECE},
      retryDelays: [0, 50, 50, 50],
      onBeforeRequest: (request) => hookBefore(request.getMethod(), Number(request.getHeader('Upload-Offset') ?? -1)),
      onAfterResponse: (_, response) => hookAfter(response.getStatus(), response.getHeader('Media-Location') ?? null),
    };
  }`;
}

const UPPY = `{
  const uppy = new uploaders.Uppy();
  uppy.use(uploaders.Tus, options);
  uppy.on('upload-progress', (_, { bytesUploaded, bytesTotal }) => hookProgress(bytesUploaded, bytesTotal));
  globalThis.ended = new Promise((resolve) =>
    uppy.on('complete', ({ successful, failed }) =>
      resolve({ successful: successful.length, errors: failed.map(({ error }) => error) })));
  const id = uppy.addFile({ name: 'a beach.png', type: 'image/png', data: file, meta: { filename: 'a beach.png' } });
  globalThis.pauseOrResume = () => uppy.pauseResume(id);
  void uppy.upload();
}`;

const TUS = `
  globalThis.ended = new Promise((resolve) => {
    globalThis.upload = new uploaders.tus.Upload(file, {
      ...options,
      metadata: { filename: 'a beach.png', filetype: 'image/png' },
      onSuccess: () => resolve('success'),
      onError: (error) => resolve(String(error)),
    });
  });
  undefined`;

/** One script for a page, with the packages as they are. */
function bundle(): string {
  const esbuild = createRequire(import.meta.url).resolve('esbuild/bin/esbuild');
  const entry = `export { default as Uppy } from '@uppy/core';
    export { default as Tus } from '@uppy/tus';
    export * as tus from 'tus-js-client';`;
  const options = ['--bundle', '--format=iife', '--global-name=uploaders', '--platform=browser', '--log-level=error'];
  return execFileSync(esbuild, options, { input: entry, encoding: 'utf8' });
}
