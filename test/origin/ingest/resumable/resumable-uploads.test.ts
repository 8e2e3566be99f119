/** Who may begin and continue a resumable upload, and how expired ones are removed. */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { uploadSection } from '../../../../origin/ingest/config.js';
import {
  newUpload,
  openResumableUploads,
  ownPartial,
  ownUpload,
  requireRoom,
  resumableSection,
} from '../../../../origin/ingest/resumable/resumable-uploads.js';
import type { UnfinishedUpload } from '../../../../origin/ingest/resumable/upload-record.js';
import type { Caller } from '../../../../src/access/grant.js';
import { ManualClock } from '../../../kit/clock.js';
import { configured, testDeps } from '../../../kit/deps.js';
import { until } from '../../../kit/until.js';

const MINUTE = 60_000;
const config = {
  upload: configured(uploadSection, { retryAfterMs: 2_500, expiresInMaxMs: 60_000 }),
  resumable: configured(resumableSection, {
    expiresAfterMs: 60 * MINUTE,
    unfinishedMax: 3,
    unfinishedMaxPerSubject: 2,
    sweepEveryMs: MINUTE,
  }),
};
const caller = (subject: string): Caller => ({ subject }) as unknown as Caller;
const WHOLE = { sizeBytes: 9, metadata: '', role: { kind: 'whole' } } as const;
const begun = (owner: string, now: number, more: Partial<UnfinishedUpload> = {}): UnfinishedUpload => ({
  ...newUpload({ ...WHOLE, owner }, config, now),
  ...more,
});

async function setUp(t: Test) {
  const stageFolder = t.testdir({});
  const clock = new ManualClock();
  const { log, metrics, sample, lines } = testDeps();
  const resumable = await openResumableUploads({ stageFolder, config, clock, log, metrics });
  t.teardown(() => resumable.close());
  return { ...resumable, clock, sample, lines, folder: join(stageFolder, 'resumable') };
}

void t.test('an upload begins with an id, an end and what its metadata say', async (t) => {
  const upload = newUpload({ ...WHOLE, owner: 'ann' }, config, 1_000);
  t.match(upload.id, /^[0-9a-f]{32}$/);
  t.same(upload, { ...WHOLE, owner: 'ann', id: upload.id, expiresAt: 1_000 + 60 * MINUTE, mediaId: null });
  t.not(newUpload({ ...WHOLE, owner: 'ann' }, config, 1_000).id, upload.id);
  const metadata = (values: Readonly<Record<string, string>>): string =>
    Object.entries(values)
      .map(([key, value]) => `${key} ${Buffer.from(value).toString('base64')}`)
      .join(',');
  const begin = (values: Readonly<Record<string, string>>) =>
    newUpload({ ...WHOLE, owner: 'ann', metadata: metadata(values) }, config, 0);
  t.doesNotThrow(() => begin({ filetype: 'image/png', expires_in: '60', public: 'true' }));
  for (const wrong of [{ filetype: 'no type' }, { expires_in: '61' }, { expires_in: 'x' }, { public: 'x' }]) {
    t.throws(() => begin(wrong), { code: 'malformed' }, JSON.stringify(wrong));
  }
});

void t.test('unfinished uploads are limited, of one subject and of all', async (t) => {
  const { uploads } = await setUp(t);
  const room = (subject: string): unknown => {
    try {
      requireRoom(uploads, caller(subject), config);
      return 'room';
    } catch (thrown) {
      const { code, headers } = thrown as { code: string; headers: Readonly<Record<string, string>> };
      return [code, headers['retry-after']];
    }
  };
  await uploads.create(begun('ann', 0));
  t.equal(room('ann'), 'room');
  await uploads.create(begun('ann', 0));
  t.same(room('ann'), ['rate_limited', '3']);
  t.equal(room('ben'), 'room');
  const last = begun('ben', 0);
  await uploads.create(last);
  t.same(room('ben'), ['overloaded', '3']);
  await uploads.finish({ ...last, mediaId: 'one' });
  t.equal(room('ben'), 'room', 'a finished one does not count');
});

void t.test('an upload exists for its owner alone, until it expires', async (t) => {
  const { uploads } = await setUp(t);
  const partial = { kind: 'partial', finalId: null } as const;
  const [whole, part] = [begun('ann', 0), begun('ann', 0, { role: partial })];
  for (const each of [whole, part]) await uploads.create(each);
  const end = whole.expiresAt;
  t.equal(ownUpload(uploads, caller('ann'), whole.id, end - 1), whole);
  t.throws(() => ownUpload(uploads, caller('ann'), whole.id, end), { code: 'expired' });
  t.throws(() => ownUpload(uploads, caller('ben'), whole.id, 0), { code: 'not_found' });
  t.throws(() => ownUpload(uploads, caller('ben'), whole.id, end), { code: 'not_found' });
  for (const id of ['0'.repeat(32), '../x', '']) {
    t.throws(() => ownUpload(uploads, caller('ann'), id, 0), { code: 'not_found' }, id);
  }
  t.equal(ownPartial(uploads, caller('ann'), part.id, end - 1), part);
  for (const [name, subject, id, now] of [
    ['expired', 'ann', part.id, end],
    ['of somebody else', 'ben', part.id, 0],
    ['a whole one', 'ann', whole.id, 0],
    ['none', 'ann', '0'.repeat(32), 0],
  ] as const) {
    t.throws(() => ownPartial(uploads, caller(subject), id, now), { code: 'malformed' }, name);
  }
});

void t.test('expired uploads are removed every minute, unless a request uses them', async (t) => {
  const { uploads, locks, clock, sample, folder } = await setUp(t);
  const now = clock.now();
  const [early, used, finished, late] = [
    begun('ann', now, { expiresAt: now + MINUTE }),
    begun('ann', now, { expiresAt: now + MINUTE }),
    begun('ann', now, { expiresAt: now + MINUTE, mediaId: 'one' }),
    begun('ann', now, { expiresAt: now + MINUTE + 1 }),
  ];
  for (const each of [early, used, finished, late]) await uploads.create(each);
  const expired = (): Promise<number> => sample('resumable_uploads_ended_total{ending="expired"}');
  const sweepEnds = (): Promise<void> => until('the next sweep is set', () => clock.pending === 1);
  const lock = await locks.take(used.id, 'refuse', new AbortController().signal);
  t.equal(await sample('resumable_uploads_unfinished'), 3);
  clock.advance(MINUTE - 1);
  t.equal(uploads.all().length, 4);
  clock.advance(1);
  t.equal(clock.pending, 0, 'no other sweep begins meanwhile');
  await sweepEnds();
  t.same(new Set(uploads.all().map(({ id }) => id)), new Set([used.id, late.id]));
  t.equal(await expired(), 1, 'a finished one has ended before');
  lock.release();
  clock.advance(MINUTE);
  await sweepEnds();
  t.same(uploads.all(), []);
  t.same(await readdir(folder), []);
  t.equal(await expired(), 3);
  t.equal(await sample('resumable_uploads_unfinished'), 0);
});

void t.test('a sweep that fails is logged, and another one follows', async (t) => {
  const { uploads, clock, lines, folder } = await setUp(t);
  const upload = begun('ann', clock.now(), { expiresAt: clock.now() });
  await uploads.create(upload);
  // A folder in the place of its record cannot be removed as a file.
  await rm(join(folder, `${upload.id}.json`));
  await mkdir(join(folder, `${upload.id}.json`));
  clock.advance(MINUTE);
  await until('the next sweep is set', () => clock.pending === 1);
  t.match(lines, [{ level: /error/ }]);
  const other = begun('ann', clock.now(), { expiresAt: clock.now() });
  await uploads.create(other);
  clock.advance(MINUTE);
  await until('the next sweep is set', () => clock.pending === 1);
  t.same(uploads.all(), []);
  t.equal(lines.length, 1);
});

void t.test('closing waits for a sweep in progress, and leaves no timer', async (t) => {
  const resumable = await setUp(t);
  const { uploads, clock, folder } = resumable;
  const now = clock.now();
  for (let each = 0; each < 3; each += 1) await uploads.create(begun('ann', now, { expiresAt: now }));
  clock.advance(MINUTE);
  await resumable.close();
  t.equal(clock.pending, 0);
  t.same(uploads.all(), []);
  t.same(await readdir(folder), [], 'the sweep was waited for');
  const idle = await setUp(t);
  await idle.close();
  t.equal(idle.clock.pending, 0);
});
