import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { systemClock } from '../../../src/clock.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { MISBEHAVING, openThumbFixture, type ThumbFixture } from '../../kit/origin/thumb-fixture.js';
import { untilAsync } from '../../kit/until.js';

const root = t.testdir({});
const CONFIG = { children: { count: 1, time_limit: '365d', cpu_limit: '365d' }, video: { enabled: false } };

async function idsOf({ meta }: ThumbFixture, sha256: Sha256): Promise<readonly MediaId[]> {
  return await meta.idsOfBlob(sha256);
}

void t.test('the jobs of deleted media end, running or not, and give their process to others', async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'delete-')));
  t.teardown(() => fixture.close());
  const { meta } = fixture;
  const thumbs = await fixture.open(CONFIG, MISBEHAVING);
  const running = await fixture.put(Buffer.from('hang  1'), 'image/png');
  await untilAsync('the start of the job', async () => (await fixture.children()).busy === 1);
  const waiting = await fixture.put(Buffer.from('hang  2'), 'image/png');
  const behind = await fixture.put(Buffer.from('not a picture'), 'image/png');

  const asked = thumbs.wait(running, 86_400_000, new AbortController().signal);
  const [hidden = '' as MediaId] = await idsOf(fixture, waiting);
  const [shown = '' as MediaId] = await idsOf(fixture, running);
  await meta.remove(hidden, 'mo', systemClock.now());
  await meta.remove(shown, 'mo', systemClock.now());
  t.same(await asked, { kind: 'pending' }, 'who waits for it is told');
  t.match(await fixture.finished(thumbs, behind), { thumbs: { reason: 'unsupported_type' } });
  await untilAsync('the end of the job', async () => (await meta.jobs.counts()).leased === 0);
  t.same(await meta.jobs.counts(), { waiting: 0, leased: 0, dead: 0 });

  t.equal(await fixture.put(Buffer.from('hang  1'), 'image/png'), running);
  t.match(await meta.jobs.counts(), { dead: 0 });
  await untilAsync('a new job', async () => (await fixture.children()).busy === 1);
});

void t.test('a job goes on while any id needs its thumbnails', async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'shared-')));
  t.teardown(() => fixture.close());
  const { meta } = fixture;
  const sha256 = await fixture.put(Buffer.from('not a picture'), 'image/png');
  const [first = '' as MediaId] = await idsOf(fixture, sha256);
  const found = await meta.find(first, systemClock.now());
  if (!('media' in found)) throw new Error('it is there');
  const { record, blob } = found.media;
  await meta.commitUpload({
    sha256,
    bytes: { kind: 'found' },
    sizeBytes: blob.sizeBytes,
    mime: blob.mime,
    public: false,
    owner: 'other',
    filename: null,
    id: `${record.id.slice(0, -1)}${record.id.endsWith('0') ? '1' : '0'}` as MediaId,
    expiresAt: null,
    picture: blob.picture,
    thumbs: { kind: 'queue' },
    now: systemClock.now(),
  });
  await meta.remove(first, 'mo', systemClock.now());
  t.equal((await meta.jobs.counts()).waiting, 1);
  const thumbs = await fixture.open(CONFIG);
  t.match(await fixture.finished(thumbs, sha256), { thumbs: { reason: 'unsupported_type' } });
});

void t.test('a result that is a link ends the job, and is not taken for a failure of the storage', async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'link-')));
  t.teardown(() => fixture.close());
  const thumbs = await fixture.open({ ...CONFIG, queue: { attempts_max: 1 } }, MISBEHAVING);
  const record = await fixture.finished(thumbs, await fixture.put(Buffer.from('link  1'), 'image/png'));
  t.same(record.thumbs, { kind: 'none', reason: 'failed' });
});
