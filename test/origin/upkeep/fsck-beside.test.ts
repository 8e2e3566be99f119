/** fsck while the service runs: what has changed since a page of records was read is no finding. */
import t from 'tap';
import { newPlace } from '../../../origin/blobs/blob-store.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { fsck } from '../../../origin/upkeep/fsck.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { openStores, sha256Of } from '../../kit/origin/stores.js';

void t.test('a blob that was healed or swept behind the page, and a thumbnail that was made again', async (t) => {
  const clock = new ManualClock();
  const stores = await openStores(t.testdir(), clock, testDeps());
  const { meta, blobs } = stores;
  t.teardown(() => stores.close());
  await stores.put('healed');
  const { record } = await stores.put('with a thumbnail', { thumbs: { kind: 'queue' } });
  await stores.thumb(record.sha256, 'the thumbnail');
  const swept = await stores.put('swept');
  let reads = 0;
  const stale: MetaStore = {
    ...meta,
    async blobsAfter(after, limit) {
      reads += 1;
      const page = await meta.blobsAfter(after, limit);
      const before = page.blobs.map((blob) => ({
        ...blob,
        place: newPlace(),
        thumbs:
          blob.thumbs.kind === 'ready'
            ? { ...blob.thumbs, made: blob.thumbs.made.map((made) => ({ ...made, place: newPlace() })) }
            : blob.thumbs,
      }));
      return { ...page, blobs: before };
    },
    findBlob: (sha256) => (sha256 === sha256Of('swept') ? Promise.resolve(undefined) : meta.findBlob(sha256)),
  };
  const findings: unknown[] = [];
  const report = await fsck(
    { meta: stale, blobs, clock, graceMs: 3_600_000, makesThumbs: () => true },
    {
      repair: true,
      signal: new AbortController().signal,
      onFinding: (finding) => findings.push(finding),
      onProgress: () => undefined,
    },
  );
  t.same([findings, report], [[], { findings: 0, repaired: 0 }]);
  t.ok(reads > 0);
  t.equal((await meta.findBlob(swept.record.sha256))?.quarantine, null);
});
