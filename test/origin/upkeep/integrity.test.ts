import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type AuditAct, openAuditLog } from '../../../origin/audit.js';
import { openLocalStore } from '../../../origin/blobs/local.js';
import { originSection } from '../../../origin/config.js';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaReader } from '../../../origin/meta/lmdb.js';
import { type BackupFinding, backup } from '../../../origin/upkeep/backup.js';
import { runBackup, runFsck, runScrub } from '../../../origin/upkeep/commands.js';
import { fsck } from '../../../origin/upkeep/fsck.js';
import { localMarks, type ScrubDeps, type ScrubFinding, scrub } from '../../../origin/upkeep/scrub.js';
import type { Clock } from '../../../src/clock.js';
import { formatFaults, parseConfig } from '../../../src/config/load.js';
import type { Sha256 } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { sendRequest } from '../../kit/http/request.js';
import { pdf, png } from '../../kit/media.js';
import { fileOfKey, filesOf, mediaKey, thumbKey } from '../../kit/origin/keys.js';
import { openLightS3 } from '../../kit/origin/light-s3.js';
import { startOrigin } from '../../kit/origin/origin.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';
import { until } from '../../kit/until.js';

const LATER = Date.UTC(2100, 0, 1);
const never = new AbortController().signal;

async function openFixture(t: Test): Promise<Stores & { readonly folder: string }> {
  const folder = t.testdir();
  const stores = await openStores(folder, new ManualClock(LATER), testDeps());
  t.teardown(() => stores.close());
  // The same object, because `reopen` replaces its metadata store.
  return Object.assign(stores, { folder });
}

/** A clock on which every wait ends at once. */
const noWaits: Clock = {
  now: () => LATER,
  monotonicMs: () => 0,
  after(_delayMs, run) {
    const handle = setImmediate(run);
    return { cancel: () => clearImmediate(handle) };
  },
};

void t.test('fsck compares records and bytes in both directions, and repairs what is safe', async (t) => {
  const fixture = await openFixture(t);
  const { meta, blobs, clock, folder } = fixture;
  const whole = await fixture.put('whole');
  const cut = await fixture.put('is cut short');
  const gone = await fixture.put('is gone');
  const unreferenced = await fixture.put('is gone, and is unreferenced');
  const thumbed = await fixture.put('has a thumbnail', { thumbs: { kind: 'queue' } });
  const thumb = await fixture.thumb(thumbed.record.sha256, 'the thumbnail');
  const orphan = mediaKey(sha256Of('orphan'));
  await fixture.store(orphan, 'orphan');
  await meta.remove(unreferenced.record.id, 'eve', clock.now());
  writeFileSync(fileOfKey(join(folder, 'blobs'), mediaKey(cut.record.sha256)), 'is cut');
  for (const { record } of [gone, unreferenced]) await blobs.remove(mediaKey(record.sha256));
  await blobs.remove(thumb);

  const check = async (repair: boolean): Promise<readonly string[]> => {
    const found: string[] = [];
    const report = await fsck(
      { meta, blobs, makesThumbs: () => true, clock, graceMs: 1_000 },
      {
        repair,
        signal: never,
        onFinding: ({ kind, subject, repaired }) => found.push(`${kind} ${subject}${repaired ? ' repaired' : ''}`),
        onProgress: () => undefined,
      },
    );
    t.equal(report.findings, found.length);
    t.equal(report.repaired, repair ? found.length : 0);
    return found.sort();
  };
  const expected = [
    `bytes_cut ${mediaKey(cut.record.sha256)}`,
    `bytes_missing ${mediaKey(gone.record.sha256)}`,
    `bytes_missing ${mediaKey(unreferenced.record.sha256)}`,
    `orphan ${orphan}`,
    `thumb_missing ${thumb}`,
  ].sort();
  t.same(await check(false), expected);
  t.same(await check(false), expected, 'without repair nothing changes');
  t.same(
    await check(true),
    expected.map((line) => `${line} repaired`),
  );
  t.same(await check(false), []);
  t.equal((await meta.find(whole.record.id, clock.now())).kind, 'live');
  t.match(await meta.find(cut.record.id, clock.now()), {
    kind: 'quarantined',
    media: { blob: { quarantine: { by: 'fsck' } } },
  });
  t.equal(await meta.findBlob(unreferenced.record.sha256), undefined);
  t.match(await meta.findBlob(thumbed.record.sha256), { thumbs: { kind: 'pending' } });
  t.equal((await meta.jobs.counts()).waiting, 1);
  await fixture.put('is gone');
  t.equal((await meta.find(gone.record.id, clock.now())).kind, 'live', 'the next upload of the same bytes heals them');
});

void t.test('fsck records a blob again from its bytes if its record is lost', async (t) => {
  const fixture = await openFixture(t);
  const { folder, clock } = fixture;
  const picture = png(7);
  const kept = await fixture.put(picture, { mime: 'image/png' });
  const lost = await fixture.put('lost with its bytes');
  await fixture.meta.close();
  const { open } = await import('lmdb');
  const root = open(join(folder, 'meta'), { encoding: 'binary', maxDbs: 32, overlappingSync: false, noSubdir: false });
  const table = root.openDB({ name: 'blob', encoding: 'binary' });
  table.putSync(kept.record.sha256, Buffer.from('rubbish'));
  table.removeSync(lost.record.sha256);
  await root.close();
  await fixture.blobs.remove(mediaKey(lost.record.sha256));
  await fixture.reopen();

  const kinds: string[] = [];
  await fsck(
    { meta: fixture.meta, blobs: fixture.blobs, makesThumbs: (mime) => mime === 'image/png', clock, graceMs: 1_000 },
    {
      repair: true,
      signal: never,
      onFinding: ({ kind, repaired }) => kinds.push(`${kind} ${repaired}`),
      onProgress: () => undefined,
    },
  );
  t.same(kinds, ['damaged true', 'blob_unknown true', 'blob_unknown true']);
  t.match(await fixture.meta.find(kept.record.id, clock.now()), {
    kind: 'live',
    media: {
      blob: {
        mime: 'image/png',
        sizeBytes: picture.length,
        picture: { width: 8, height: 6 },
        thumbs: { kind: 'pending' },
      },
    },
  });
  t.match(await fixture.meta.find(lost.record.id, clock.now()), { kind: 'deleted', record: { state: { by: 'fsck' } } });
  t.same(readdirSync(fixture.blobs.stageFolder), []);
});

void t.test('scrub finds wrong bytes, checks them twice, marks them, and goes on from where it stopped', async (t) => {
  const fixture = await openFixture(t);
  const { meta, blobs, folder, clock } = fixture;
  const texts = Array.from({ length: 8 }, (_, n) => `text ${n}`.repeat(100));
  const media = await Promise.all(texts.map((bytes) => fixture.put(bytes, { thumbs: { kind: 'queue' } })));
  const [rotten, missing, cut, thumbed, healed, swept] = media.map(({ record }) => record);
  if (!rotten || !missing || !cut || !thumbed || !healed || !swept) throw new Error('eight uploads');
  const badThumb = await fixture.thumb(thumbed.sha256, 'a thumbnail');
  const spoil = (sha256: Sha256, bytes: string): void =>
    writeFileSync(fileOfKey(join(folder, 'blobs'), mediaKey(sha256)), bytes);
  spoil(rotten.sha256, 'text 9'.repeat(100));
  spoil(cut.sha256, 'text');
  spoil(healed.sha256, 'text x'.repeat(100));
  writeFileSync(fileOfKey(join(folder, 'blobs'), badThumb), 'no thumbnail');
  for (const { sha256 } of [missing, swept]) await blobs.remove(mediaKey(sha256));
  await meta.remove(swept.id, 'eve', clock.now());

  const read = blobs.read.bind(blobs);
  let seen = 0;
  const deps: ScrubDeps = {
    config: { rateBytes: 1e9, againMs: 5 },
    meta,
    blobs: {
      read(key, span, signal) {
        // An upload heals it between the two checks.
        if (key === mediaKey(healed.sha256)) {
          seen += 1;
          if (seen === 2) spoil(healed.sha256, texts[4] ?? '');
        }
        return read(key, span, signal);
      },
    },
    marks: localMarks(meta, clock),
    clock: noWaits,
  };
  const run = async (after: Sha256 | null, stopAfter = Number.POSITIVE_INFINITY) => {
    const found: ScrubFinding[] = [];
    const reported: Sha256[] = [];
    const stop = new AbortController();
    const ended = scrub(deps, {
      after,
      signal: stop.signal,
      onFinding: (finding) => found.push(finding),
      onProgress(progress) {
        reported.push(progress.after);
        if (reported.length >= stopAfter) stop.abort(new Error('enough'));
      },
    });
    return { ended, found, reported };
  };
  const broken = await run(null, 3);
  await t.rejects(broken.ended, { message: 'enough' });
  const rest = await run(broken.reported.at(-1) ?? null);
  const report = await rest.ended;
  t.same(
    [...broken.reported, ...rest.reported],
    media.map(({ record }) => record.sha256).sort(),
    'each blob was checked once',
  );
  t.equal(report.blobs, 5);
  const found = [...broken.found, ...rest.found].map(({ kind, key }) => `${kind} ${key}`).sort();
  t.same(
    found,
    [
      `rotten ${mediaKey(rotten.sha256)}`,
      `missing ${mediaKey(missing.sha256)}`,
      `cut ${mediaKey(cut.sha256)}`,
      `cut ${badThumb}`,
    ].sort(),
  );
  t.match(await meta.findBlob(rotten.sha256), { quarantine: { cause: 'rot', by: 'scrub' } });
  t.match(await meta.findBlob(thumbed.sha256), { quarantine: null, thumbs: { kind: 'pending' } });
  t.match(await meta.findBlob(healed.sha256), { quarantine: null });
  t.same((await (await run(null)).ended).findings, 0, 'what is marked is not reported again');
});

void t.test('scrub keeps to its rate', async (t) => {
  const fixture = await openFixture(t);
  await fixture.put('x'.repeat(1_000));
  await fixture.put('y'.repeat(1_000));
  const clock = new ManualClock();
  const refuse = (): Promise<never> => Promise.reject(new Error('nothing is wrong'));
  let ended = false;
  const scrubbed = scrub(
    {
      config: { rateBytes: 1_000, againMs: 0 },
      meta: fixture.meta,
      blobs: fixture.blobs,
      marks: { rotten: refuse, redoThumbs: refuse },
      clock,
    },
    { after: null, signal: never, onFinding: () => undefined, onProgress: () => undefined },
  ).then((report) => {
    ended = true;
    return report;
  });
  for (const second of [1, 2]) {
    await until(`the wait of second ${second}`, () => clock.pending === 1);
    t.notOk(ended);
    clock.advance(1_000);
  }
  t.match(await scrubbed, { blobs: 2, bytes: 2_000, findings: 0 });
  t.equal(clock.monotonicMs(), 2_000);
});

void t.test(
  'an origin can open a backup that was made while it served, and the next backup adds what is new',
  async (t) => {
    const fixture = await openFixture(t);
    const { folder, clock } = fixture;
    const { log } = testDeps();
    const target = join(folder, 'backup');
    const one = await fixture.put('one', { thumbs: { kind: 'queue' } });
    await fixture.thumb(one.record.sha256, 'thumb of one');
    const two = await fixture.put('two');
    const bad = await fixture.put('bad');
    writeFileSync(fileOfKey(join(folder, 'blobs'), mediaKey(bad.record.sha256)), 'b?d');
    const late: string[] = [];

    const openMeta = (path: string) =>
      openMetaReader(configured(metaSection, { folder: path }), { clock, log, randomName: () => 'copy' });
    const run = async (onCopied: () => Promise<void> = async () => undefined) => {
      const findings: BackupFinding[] = [];
      const reader = await openMeta(join(folder, 'meta'));
      const report = await backup(
        {
          // As the command does beside a running origin.
          meta: {
            blobsAfter: (after, limit) => reader.blobsAfter(after, limit),
            async backup(path) {
              await onCopied();
              await new Promise(setImmediate);
              await reader.backup(path);
            },
          },
          blobs: fixture.blobs,
          clock,
          openBlobs: (blobs, stage) => openLocalStore({ folder: blobs, stageFolder: stage }),
          openMeta,
        },
        { folder: target, signal: never, onFinding: (finding) => findings.push(finding), onProgress: () => undefined },
      );
      await reader.close();
      return { report, findings };
    };
    const first = await run(async () => {
      // Between the first pass and the copy of the metadata there are uploads and sweeps.
      await fixture.put('three');
      await fixture.meta.remove(two.record.id, 'eve', clock.now());
      await fixture.blobs.remove(mediaKey(two.record.sha256));
    });
    t.match(first.report, { blobs: 5, copied: 4, findings: 1, pruned: 0 });
    t.match(first.findings, [{ kind: 'rotten', key: mediaKey(bad.record.sha256) }]);
    t.same(readdirSync(target).sort(), ['backup.json', 'blobs', 'meta']);
    t.match(JSON.parse(readFileSync(join(target, 'backup.json'), 'utf8')), {
      copied: 4,
      made_at: new Date(LATER).toISOString(),
    });

    writeFileSync(fileOfKey(join(folder, 'blobs'), mediaKey(bad.record.sha256)), 'bad');
    await fixture.meta.forgetBlob(two.record.sha256);
    await fixture.put('four');
    const second = await run();
    t.match(
      second.report,
      { copied: 2, findings: 0, pruned: 1 },
      'wrong bytes are replaced, and swept blobs are removed',
    );

    mkdirSync(join(folder, 'restored'));
    for (const part of ['meta', 'blobs']) renameSync(join(target, part), join(folder, 'restored', part));
    const restored = await openStores(join(folder, 'restored'), clock, { log });
    const report = await fsck(
      { meta: restored.meta, blobs: restored.blobs, makesThumbs: () => false, clock, graceMs: 0 },
      {
        repair: false,
        signal: never,
        onFinding: ({ kind, subject }) => late.push(`${kind} ${subject}`),
        onProgress: () => undefined,
      },
    );
    t.same(late, []);
    t.equal(report.findings, 0);
    t.equal((await restored.meta.find(one.record.id, clock.now())).kind, 'live');
    t.equal(restored.meta.journal.name, 'copy');
    t.ok(await restored.blobs.stat(thumbKey(one.record.sha256, sha256Of('thumb of one'))));
    await restored.close();
  },
);

void t.test('the audit log keeps one whole line for each act, in order, and never removes one', async (t) => {
  const folder = t.testdir();
  const file = join(folder, 'audit', 'audit.jsonl');
  const actOf = (n: number): AuditAct => ({
    at: LATER + n,
    by: 'mo\n"quoted"',
    act: 'delete',
    target: sha256Of(String(n)),
    outcome: 'removed',
    seq: n,
    reason: null,
    requestId: null,
    address: '::1',
  });
  const linesOf = (path: string): readonly string[] => readFileSync(path, 'utf8').split('\n').slice(0, -1);
  const audit = await openAuditLog({ file, rotateBytes: 1_000 });
  await Promise.all(Array.from({ length: 10 }, (_, n) => audit.append(actOf(n))));
  t.same(
    linesOf(file).map((line) => (JSON.parse(line) as { seq: number }).seq),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  t.match(JSON.parse(linesOf(file)[3] ?? ''), {
    at: new Date(LATER + 3).toISOString(),
    by: 'mo\n"quoted"',
    target: sha256Of('3'),
  });
  await audit.append(actOf(10));
  await Promise.all([audit.close(), audit.close()]);
  await t.rejects(audit.append(actOf(11)), { code: 'overloaded' });

  // A crash in the middle of a line.
  appendFileSync(file, '{"at":"2100');
  const again = await openAuditLog({ file, rotateBytes: 20 });
  await again.append(actOf(12));
  await again.append({ ...actOf(13), at: LATER + 12 });
  await again.close();
  const files = readdirSync(join(folder, 'audit'))
    .filter((name) => name.startsWith('audit'))
    .sort();
  t.equal(files.length, 4, 'two files ended in the same instant, and neither replaced the other');
  const all = files.flatMap((name) => linesOf(join(folder, 'audit', name)));
  const whole = all.filter((line) => line.endsWith('}'));
  t.same(
    whole.map((line) => (JSON.parse(line) as { seq: number }).seq).sort((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13],
  );
});

/** The deps of a command for this section of config.yaml. Every secret is `key`. */
function commandsOver(section: object) {
  const context = { env: () => 'key', file: () => undefined };
  const loaded = parseConfig(JSON.stringify({ origin: section }), { origin: originSection }, context);
  if (loaded.kind === 'faulty') throw new Error(formatFaults(loaded.faults));
  const printed: string[] = [];
  const deps = {
    config: loaded.config.origin,
    clock: noWaits,
    log: testDeps().log,
    signal: never,
    print: (line: string) => void printed.push(line),
    complain: (line: string) => void printed.push(line),
    progress: () => undefined,
  };
  return { deps, printed };
}

void t.test('the commands work beside a running origin, except fsck, which refuses to', async (t) => {
  const folder = t.testdir();
  const origin = await startOrigin(folder);
  const port = Number(new URL(origin.operators).port);
  const file = {
    operators: { port },
    meta: { folder: join(folder, 'meta') },
    blobs: { folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') },
    scrub: { again: '0ms' },
  };
  const { deps, printed } = commandsOver(file);
  const id = await origin.uploaded(png(1));
  const other = await origin.uploaded(png(2));
  t.equal(await runScrub(deps, { after: undefined }), 0);
  for (const file of filesOf(join(folder, 'blobs'), sha256Of(png(1))))
    writeFileSync(file, Buffer.alloc(png(1).length, 1));
  t.equal(await runScrub(deps, { after: undefined }), 1);
  t.match(printed.at(-2), /^found rotten media\//);
  t.equal((await origin.as('bob', `/v1/media/${id}`)).status, 403);
  t.equal(await runBackup(deps, { folder: join(folder, 'backup') }), 1, 'wrong bytes are left out');
  t.equal((await origin.upload(png(1))).status, 200, 'an upload of the same bytes heals it');
  t.equal((await origin.as('bob', `/v1/media/${id}`)).status, 200);
  t.equal(await runBackup(deps, { folder: join(folder, 'backup') }), 0);
  t.equal(await runFsck(deps, { repair: true }), 2);
  t.match(printed.at(-1), /stop the origin first/);
  t.equal(await runScrub(deps, { after: 'x' }), 2);

  const mark = `${origin.operators}/scrub/${sha256Of(png(2))}`;
  t.equal((await sendRequest(`${mark}/thumbs`, { method: 'POST' })).status, 204);
  t.equal(
    (await sendRequest(`${mark}/rotten`, { method: 'POST', headers: { origin: 'http://evil.example' } })).status,
    403,
  );
  t.equal(
    (await sendRequest(`${origin.url}/scrub/${sha256Of(png(2))}/rotten`, { method: 'POST' })).status,
    404,
    'only for operators',
  );
  t.equal((await origin.as('bob', `/v1/media/${other}`)).status, 200);

  // Closed without removing its folder, which is needed below.
  const { folder: kept } = origin;
  await origin.stop();
  t.equal(await runFsck(deps, { repair: true }), 0);
  t.match(printed.at(-1), /^0 found/);
  t.equal(await runScrub(deps, { after: undefined }), 0, 'now it works without an origin');
  t.ok(existsSync(join(kept, 'meta')));
  await origin.close();
});

void t.test('the commands work with a bucket as with a folder', async (t) => {
  const s3 = await openLightS3();
  t.teardown(() => s3.close());
  const folder = t.testdir();
  const keys = { access_key_id: 'env:KEY', secret_access_key: 'env:SECRET' };
  const section = {
    meta: { folder: join(folder, 'meta') },
    blobs: { adaptor: 's3', stage_folder: join(folder, 'stage'), s3: { endpoint: s3.url, bucket: s3.bucket, ...keys } },
  };
  const origin = await startOrigin(folder, section);
  // It has no thumbnails, which would be ready or not.
  await origin.uploaded(pdf(1));
  const { deps, printed } = commandsOver(section);
  t.equal(await runBackup(deps, { folder: join(folder, 'backup') }), 0);
  t.match(printed.at(-1), /backup has (\d+) blobs and thumbnails: \1 new/);
  await origin.stop();
  t.equal(await runScrub(deps, { after: undefined }), 0);
  t.equal(await runFsck(deps, { repair: false }), 0);
  await origin.close();
});
