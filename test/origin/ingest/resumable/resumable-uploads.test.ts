/** Who may begin and continue a resumable upload, and how expired ones are removed. */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { uploadSection } from '../../../../origin/ingest/config.js';
import {
  createWithinLimits,
  newUpload,
  openResumableUploads,
  ownPartial,
  ownUpload,
  resumableSection,
} from '../../../../origin/ingest/resumable/resumable-uploads.js';
import type { UnfinishedUpload } from '../../../../origin/ingest/resumable/upload-record.js';
import type { Caller } from '../../../../src/access/grant.js';
import { ManualClock } from '../../../kit/clock.js';
import { configured, testDeps } from '../../../kit/deps.js';
import { NO_LIMITS } from '../../../kit/origin/chunks.js';
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

const unused = (): never => {
  throw new Error('not in a folder');
};
const IN_FOLDER = (stageFolder: string) => ({
  meta: { shared: null, intend: unused, withdraw: unused },
  blobs: { kind: 'local', stageFolder, adopt: unused, read: unused, remove: unused } as const,
});

async function setUp(t: Test) {
  const stageFolder = t.testdir({});
  const clock = new ManualClock();
  const { log, metrics, sample, lines } = testDeps();
  const resumable = await openResumableUploads({ ...IN_FOLDER(stageFolder), config, clock, log, metrics });
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
  const create = async (upload: UnfinishedUpload): Promise<unknown> => {
    try {
      return await createWithinLimits(uploads, upload, config);
    } catch (thrown) {
      const { code, headers } = thrown as { code: string; headers: Readonly<Record<string, string>> };
      return [code, headers['retry-after']];
    }
  };
  const last = begun('ben', 0);
  t.same(
    await Promise.all([begun('ann', 0), begun('ann', 0), begun('ann', 0), last, begun('ben', 0)].map(create)),
    [undefined, undefined, ['rate_limited', '3'], undefined, ['overloaded', '3']],
    'also of those that come at once',
  );
  await uploads.finish([{ ...last, mediaId: 'one' }]);
  t.equal(await create(begun('ben', 0)), undefined, 'a finished one does not count');
});

void t.test('an upload exists for its owner alone, until it expires', async (t) => {
  const { uploads } = await setUp(t);
  const partial = { kind: 'partial', finalId: null } as const;
  const [whole, part] = [begun('ann', 0), begun('ann', 0, { role: partial })];
  for (const each of [whole, part]) await uploads.create(each, NO_LIMITS);
  const end = whole.expiresAt;
  t.equal(await ownUpload(uploads, caller('ann'), whole.id, end - 1), whole);
  await t.rejects(ownUpload(uploads, caller('ann'), whole.id, end), { code: 'expired' });
  await t.rejects(ownUpload(uploads, caller('ben'), whole.id, 0), { code: 'not_found' });
  await t.rejects(ownUpload(uploads, caller('ben'), whole.id, end), { code: 'not_found' });
  for (const id of ['0'.repeat(32), '../x', '']) {
    await t.rejects(ownUpload(uploads, caller('ann'), id, 0), { code: 'not_found' }, id);
  }
  t.equal(await ownPartial(uploads, caller('ann'), part.id, end - 1), part);
  for (const [name, subject, id, now] of [
    ['expired', 'ann', part.id, end],
    ['of somebody else', 'ben', part.id, 0],
    ['a whole one', 'ann', whole.id, 0],
    ['none', 'ann', '0'.repeat(32), 0],
  ] as const) {
    await t.rejects(ownPartial(uploads, caller(subject), id, now), { code: 'malformed' }, name);
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
  for (const each of [early, used, finished, late]) await uploads.create(each, NO_LIMITS);
  const expired = (): Promise<number> => sample('resumable_uploads_ended_total{ending="expired"}');
  const sweepEnds = (): Promise<void> => until('the next sweep is set', () => clock.pending === 1);
  const lock = await locks.take(used.id, 'refuse', new AbortController().signal);
  t.equal(await sample('resumable_uploads_unfinished'), 3);
  clock.advance(MINUTE - 1);
  t.equal((await uploads.expired(Number.POSITIVE_INFINITY, 10)).length, 4);
  clock.advance(1);
  t.equal(clock.pending, 0, 'no other sweep begins meanwhile');
  await sweepEnds();
  t.same(
    new Set((await uploads.expired(Number.POSITIVE_INFINITY, 10)).map(({ id }) => id)),
    new Set([used.id, late.id]),
  );
  t.equal(await expired(), 1, 'a finished one has ended before');
  lock.release();
  clock.advance(MINUTE);
  await sweepEnds();
  t.same(await uploads.expired(Number.POSITIVE_INFINITY, 10), []);
  t.same(await readdir(folder), []);
  t.equal(await expired(), 3);
  t.equal(await sample('resumable_uploads_unfinished'), 0);
});

void t.test('a sweep that fails is logged, and another one follows', async (t) => {
  const { uploads, clock, lines, folder } = await setUp(t);
  const upload = begun('ann', clock.now(), { expiresAt: clock.now() });
  await uploads.create(upload, NO_LIMITS);
  // A folder in the place of its record cannot be removed as a file.
  await rm(join(folder, `${upload.id}.json`));
  await mkdir(join(folder, `${upload.id}.json`));
  clock.advance(MINUTE);
  await until('the next sweep is set', () => clock.pending === 1);
  t.match(lines, [{ level: /error/ }]);
  const other = begun('ann', clock.now(), { expiresAt: clock.now() });
  await uploads.create(other, NO_LIMITS);
  clock.advance(MINUTE);
  await until('the next sweep is set', () => clock.pending === 1);
  t.same(await uploads.expired(Number.POSITIVE_INFINITY, 10), []);
  t.equal(lines.length, 1);
});

void t.test('closing waits for a sweep in progress, and leaves no timer', async (t) => {
  const resumable = await setUp(t);
  const { uploads, clock, folder } = resumable;
  const now = clock.now();
  for (let each = 0; each < 3; each += 1) await uploads.create(begun('ann', now, { expiresAt: now }), NO_LIMITS);
  clock.advance(MINUTE);
  await resumable.close();
  t.equal(clock.pending, 0);
  t.same(await uploads.expired(Number.POSITIVE_INFINITY, 10), []);
  t.same(await readdir(folder), [], 'the sweep was waited for');
  const idle = await setUp(t);
  await idle.close();
  t.equal(idle.clock.pending, 0);
});
