/** The client library in Node, against an origin and an edge as processes, over connections that are cut. */
import { createHash } from 'node:crypto';
import t from 'tap';
import type { Uploaded } from '../../../src/client/client.js';
import { createMediaClient, type MediaClientOptions, MediaError } from '../../../src/client/client.js';
import { openRelay } from '../../kit/http/relay.js';
import { largePng } from '../../kit/media.js';
import { makeJpeg } from '../../kit/pictures.js';
import { startService } from '../../kit/service.js';

void t.test('the client library in Node', async (t) => {
  const service = await startService(t.testdir());
  const relay = await openRelay(() => Number(new URL(service.edge).port));
  t.teardown(() => service.stop());
  t.teardown(() => relay.close());
  const token = await service.token();
  const open = (options: Partial<MediaClientOptions> = {}) => {
    const client = createMediaClient({ baseUrl: relay.url, token, retry: { firstWaitMs: 1 }, ...options });
    t.teardown(() => client.close());
    return client;
  };

  await t.test('a small upload tells its progress and its end, and is found again as a duplicate', async (t) => {
    const client = open();
    const bytes = await makeJpeg(1, 640, 480);
    const upload = client.upload(new File([bytes], 'a beach.jpg', { type: 'image/jpeg' }), { expiresIn: 3_600 });
    const seen: string[] = [];
    upload.on('state', (state) => seen.push(state));
    upload.on('progress', ({ sentBytes, totalBytes }) => t.ok(sentBytes > 0 && sentBytes <= totalBytes));
    const media = await upload.done;
    t.same(seen, ['sending', 'finished']);
    t.same(upload.progress, { sentBytes: bytes.length, totalBytes: bytes.length });
    t.match(media, { filename: 'a beach.jpg', mime: 'image/jpeg', public: false, width: 640, duplicate: false });
    t.ok(media.expires_at);
    const again = await client.upload(new Uint8Array(bytes)).done;
    t.match(again, { id: media.id, duplicate: true }, 'from bytes without a type, which the service detects');
  });

  await t.test('an answer has the members that the types name, and no others', async (t) => {
    const media = await open().upload(new Blob([await makeJpeg(2, 32, 32)])).done;
    t.same(Object.keys(media).sort(), [...MEMBERS].sort());
  });

  await t.test('a large upload goes on where it was after each cut, and after a pause', async (t) => {
    const client = open({ resumableAboveBytes: 1_000_000, pieceBytes: 500_000 });
    const bytes = largePng(3, 4_000_000);
    const upload = client.upload(new Blob([new Uint8Array(bytes)], { type: 'image/png' }), { filename: 'large.png' });
    let cuts = 0;
    let cutAt = 0;
    let pauses = 0;
    upload.on('progress', ({ sentBytes }) => {
      if (cuts < 3 && sentBytes > cutAt + 600_000 && sentBytes % 500_000 > 0) {
        [cuts, cutAt] = [cuts + 1, sentBytes];
        relay.cut();
      } else if (pauses === 0 && sentBytes > 3_000_000) {
        pauses += 1;
        upload.pause();
        t.equal(upload.state, 'paused');
        setImmediate(() => upload.resume());
      }
    });
    const retries: string[] = [];
    upload.on('retry', ({ error }) => retries.push(error.code));
    const media = await upload.done;
    t.same(retries, ['network', 'network', 'network']);
    t.equal(pauses, 1);
    t.match(media, { size: bytes.length, mime: 'image/png', filename: 'large.png' });
    const back = await client.fetch(`/v1/media/${media.id}`);
    const hash = createHash('sha256').update(Buffer.from(await back.arrayBuffer()));
    t.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
  });

  await t.test('a small upload that is cut is sent again', async (t) => {
    const upload = open().upload(new Blob([new Uint8Array(largePng(4, 3_000_000))]));
    let cut = false;
    upload.on('progress', () => {
      if (!cut) relay.cut();
      cut = true;
    });
    let retries = 0;
    upload.on('retry', () => (retries += 1));
    t.match(await upload.done, { mime: 'image/png' });
    t.ok(retries >= 1);
  });

  await t.test('a refused token is replaced by the hook, once for all that need it', async (t) => {
    let asked = 0;
    let current = 'expired';
    const client = open({
      async token({ refresh }) {
        if (refresh) [asked, current] = [asked + 1, token];
        return current;
      },
    });
    const bodies = await Promise.all([5, 6, 7].map((seed) => makeJpeg(seed, 64, 64)));
    const media = await Promise.all(bodies.map((body) => client.upload(new Blob([new Uint8Array(body)])).done));
    t.equal(new Set(media.map(({ id }) => id)).size, 3);
    t.ok(asked >= 1 && asked <= 3);
    await t.rejects(open({ token: 'wrong' }).info(idOf(media)), { code: 'unauthorized', status: 401 });
  });

  await t.test('refusals have a code of the closed list, and are not repeated', async (t) => {
    const upload = open().upload(new Blob(['<html></html>'], { type: 'text/html' }));
    let retries = 0;
    upload.on('retry', () => (retries += 1));
    const error = await upload.done.catch((thrown: unknown) => thrown);
    t.ok(error instanceof MediaError);
    t.match(error, { code: 'type_refused', status: 415, requestId: String });
    t.equal(retries, 0);
    t.equal(upload.state, 'failed');
    await t.rejects(open().upload(new Blob([])).done, { code: 'empty' });
  });

  await t.test('a signal and close cancel uploads, those that wait too', async (t) => {
    const client = open({ uploadsMax: 1 });
    const controller = new AbortController();
    const body = new Blob([new Uint8Array(largePng(8, 2_000_000))]);
    const first = client.upload(body, { signal: controller.signal });
    const second = client.upload(body);
    first.on('progress', () => controller.abort());
    await t.rejects(first.done, { code: 'aborted' });
    client.close();
    await t.rejects(second.done, { code: 'aborted' });
    const before = client.upload(body, { signal: AbortSignal.abort() });
    await t.rejects(before.done, { code: 'aborted' });
  });

  await t.test('links open media and thumbnails without a token, and what is removed is gone', async (t) => {
    const client = open();
    const media = await client.upload(new Blob([new Uint8Array(await makeJpeg(9, 800, 600))])).done;
    const links = await client.links.many([media.id]);
    const link = links.get(media.id);
    t.equal((await (await fetch(link?.url ?? '')).arrayBuffer()).byteLength, media.size);
    const thumbnail = await client.thumbnail({ thumb_url: link?.thumb_url ?? null }, 100, 2);
    const answer = await fetch(thumbnail ?? '', { headers: { accept: 'image/webp' } });
    t.match((await answer.blob()).type, /^image\//);
    t.match(await client.info(media.id), { id: media.id, width: 800, height: 600, mime: 'image/jpeg' });

    const admin = open({ token: await service.token({ subject: 'mo', admin: true }) });
    t.same(await admin.remove(media.id, { waitForEdges: true }), { confirmed: 1, edges: 1 });
    await t.rejects(client.info(media.id), { code: 'deleted', status: 410 });
  });

  await relay.close();
  t.equal(await service.stop(), 0, 'and nothing that the library left keeps the service from stopping');
});

/** As `Uploaded` has them: a missing or an additional one does not compile. */
const MEMBERS = Object.keys({
  id: 0,
  url: 0,
  thumb_url: 0,
  etag: 0,
  sha256: 0,
  size: 0,
  mime: 0,
  public: 0,
  width: 0,
  height: 0,
  duration: 0,
  thumbhash: 0,
  filename: 0,
  created_at: 0,
  expires_at: 0,
  duplicate: 0,
} satisfies Record<keyof Uploaded, 0>);

function idOf(media: readonly Uploaded[]): string {
  return media[0]?.id ?? '';
}
