import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { downloadSection } from '../../../origin/respond/config.js';
import type { OriginRequest } from '../../../origin/server/request.js';
import { type ThumbDeps, thumb } from '../../../origin/thumb.js';
import type { Thumbs } from '../../../origin/thumbs/engine.js';
import { thumbOptionsOf } from '../../../origin/thumbs/plan.js';
import { parseFromChild } from '../../../origin/thumbs/render/protocol.js';
import { prepareRenderer, render } from '../../../origin/thumbs/render/render.js';
import { systemClock } from '../../../src/clock.js';
import type { Reply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { readAll } from '../../kit/origin/blob-contract.js';
import { MISBEHAVING, openThumbFixture, type ThumbFixture, thumbsConfig } from '../../kit/origin/thumb-fixture.js';

const root = t.testdir({});
const SLOW = { count: 1, time_limit: '365d', cpu_limit: '365d' };
const never = new AbortController().signal;
prepareRenderer();

void t.test('the default variant of a still is made before the others', async (t) => {
  const rendered = async (bytes: Buffer): Promise<readonly [readonly string[], readonly string[]]> => {
    const folder = await mkdtemp(join(root, 'r-'));
    const input = join(folder, 'original');
    await writeFile(input, bytes);
    let early: readonly string[] = [];
    let there: readonly string[] = [];
    await render({ input, folder, upright: false, animate: true, settings: thumbsConfig() }, (thumbs) => {
      early = thumbs.map(({ file }) => file);
      // At once: the others are made meanwhile.
      there = readdirSync(folder).sort();
    });
    return [early, there.filter((name) => name !== 'original')];
  };
  const picture = sharp({ create: { width: 1_400, height: 900, channels: 3, background: 'teal' } });
  const files = ['320.webp', '320.jpeg'];
  t.same(await rendered(await picture.jpeg().toBuffer()), [files, files.toSorted()]);
  const small = sharp({ create: { width: 40, height: 30, channels: 4, background: '#00808080' } });
  const [early] = await rendered(await small.png().toBuffer());
  t.same(early, ['160.webp', '160.png'], 'a small picture has one thumbnail');
  const frames = ['red', 'lime'].map((background) =>
    sharp({ create: { width: 8, height: 8, channels: 3, background } })
      .png()
      .toBuffer(),
  );
  const animation = sharp(await Promise.all(frames), { join: { animated: true } });
  t.same((await rendered(await animation.gif().toBuffer()))[0], [], 'a still would stay where an animation belongs');
});

void t.test('a message about early thumbnails that is not exactly as specified is invalid', async (t) => {
  const one = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 1, animated: false };
  t.ok(parseFromChild({ t: 'early', job: 1, thumbs: [one], thumbhash: null }));
  for (const wrong of [
    { t: 'early', thumbs: [one], thumbhash: null },
    { t: 'early', job: 1, thumbhash: null },
    { t: 'early', job: 1, thumbs: [one] },
    { t: 'early', job: 1, thumbs: [{ ...one, file: '../160.webp' }], thumbhash: null },
    { t: 'early', job: 1, thumbs: Array.from({ length: 101 }, () => one), thumbhash: null },
  ]) {
    t.equal(parseFromChild(wrong), undefined);
  }
});

void t.test('a picture element gets the early thumbnail while the others are made', async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'early-')));
  t.teardown(() => fixture.close());
  const given = { children: SLOW, wait: '1ms', picture_wait: '60s', video: { enabled: false } };
  const thumbs = await fixture.open(given, MISBEHAVING);
  const sha256 = await fixture.put(Buffer.from('early 1'), 'image/png');
  const [id = '' as MediaId] = await fixture.meta.idsOfBlob(sha256);
  const ask = (fields: Readonly<Record<string, string>>, query = '', config = given): Promise<Reply> =>
    thumb(depsOf(fixture, thumbs, config), requestFor(fields, query), id);

  const img = { 'sec-fetch-dest': 'image', accept: 'image/webp,*/*' };
  const shown = Buffer.from('the early one');
  const wanted = await ask(img);
  const etag = `"sha256:${createHash('sha256').update(shown).digest('hex')}"`;
  t.match(Object.fromEntries(wanted.headers), { etag, 'content-type': 'image/webp', 'media-width': '320' });
  t.equal(wanted.body.kind, 'stream', 'answered as it will be when it is stored');
  if (wanted.body.kind === 'stream') t.same(await readAll(await wanted.body.open(never)), shown);
  const part = await ask({ ...img, range: 'bytes=4-8' });
  t.equal(part.status, 206);
  if (part.body.kind === 'stream') t.same(await readAll(await part.body.open(never)), shown.subarray(4, 9));
  t.equal((await ask({ ...img, 'if-none-match': etag })).status, 304);

  const smaller = await ask(img, 'w=100');
  t.match(smaller, { status: 200, body: { kind: 'bytes', bytes: shown } });
  t.same(Object.fromEntries(smaller.headers), {
    'content-type': 'image/webp',
    'content-disposition': 'inline',
    'media-width': '320',
    'media-height': '240',
    vary: 'Accept',
    'cache-control': 'no-store',
  });
  t.equal((await ask({ accept: '*/*' })).status, 202, 'others wait for the job');
  const larger = await ask(img, 'w=640', { ...given, picture_wait: '1ms' });
  t.match(larger, { body: { kind: 'bytes', bytes: shown } }, 'better than a placeholder');
  t.match(await thumbs.waitForEarly(sha256, 60_000, never), { kind: 'pending' });

  await thumbs.close();
  t.same(thumbs.early(sha256), [], 'none is left after the job');
});

function depsOf(fixture: ThumbFixture, thumbs: Thumbs, given: Readonly<Record<string, unknown>>): ThumbDeps {
  const config = thumbsConfig(given);
  return {
    gate: undefined as unknown as ThumbDeps['gate'],
    meta: fixture.meta,
    blobs: fixture.blobs,
    useReports: { note: () => undefined },
    thumbs,
    clock: systemClock,
    thumbOptions: thumbOptionsOf(config),
    config: {
      download: downloadSection.schema({ env: () => undefined, file: () => undefined }).parse({}),
      thumbs: config,
    },
  };
}

/** From an edge, which has asked its own gate. */
function requestFor(fields: Readonly<Record<string, string>>, query: string): OriginRequest {
  return {
    id: 'a-request',
    method: 'GET',
    path: '/thumb',
    query,
    header: (name: string) => fields[name],
    sender: 'edge',
    address: '127.0.0.1',
    receivedAt: systemClock.now(),
    signal: never,
    meter: { admitDownload: () => undefined },
    note: () => undefined,
  } as unknown as OriginRequest;
}
