import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import t from 'tap';
import type { Job, JobPriority } from '../../../origin/meta/jobs.js';
import { type BlobRecord, NO_FACTS, type ThumbMade } from '../../../origin/meta/media.js';
import { createQueue, endJob, endLeases, finishThumbs, type MetaJobs, redoThumbs } from '../../../origin/meta/queue.js';
import { BLOBS, JOBS, write } from '../../../origin/meta/tables.js';
import type { Sha256 } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { PLACE } from '../../kit/origin/keys.js';
import { MemoryTables } from '../../kit/origin/meta/memory-tables.js';

const hashOf = (digit: string): Sha256 => digit.repeat(64) as Sha256;
const [A, B, C, D] = ['a', 'b', 'c', 'd'].map(hashOf) as [Sha256, Sha256, Sha256, Sha256];
const names = (jobs: readonly { readonly sha256: Sha256 }[]): string => jobs.map(({ sha256 }) => sha256[0]).join('');
const silent = createLog('test', { level: 'silent' });

function setUp(): { tables: MemoryTables; jobs: MetaJobs } {
  const tables = new MemoryTables();
  const run = <T>(body: Parameters<typeof tables.run<T>>[0]): Promise<T> => tables.run(body);
  return { tables, jobs: createQueue(tables, run, silent) };
}

function putBlob(tables: MemoryTables, sha256: Sha256, given: Partial<BlobRecord> = {}): BlobRecord {
  const blob: BlobRecord = {
    sha256,
    place: PLACE,
    sizeBytes: 1,
    mime: 'image/png',
    storedAt: 0,
    picture: NO_FACTS,
    thumbs: { kind: 'pending' },
    quarantine: null,
    ...given,
  };
  write(tables, BLOBS, sha256, { blob, unreferencedAt: null, markSeq: 7 });
  return blob;
}

void t.test('owners take turns within a priority', async (t) => {
  const { tables, jobs } = setUp();
  const add = async (name: string, owner: string, now: number, priority: JobPriority = 'upload') =>
    await jobs.add(hashOf(name), priority, now, owner);
  await add('1', 'ada', 10);
  await add('2', 'ada', 11);
  await add('3', 'ada', 12);
  await add('4', 'bob', 13);
  await add('5', 'bob', 14);
  await add('6', 'ada', 9, 'backfill');
  await add('7', 'eve', 15, 'asked');
  await jobs.add(hashOf('8'), 'backfill', 16);
  const turns = (): object => Object.fromEntries(tables.jobs.map(({ sha256, turn }) => [sha256[0], turn]));
  t.same(turns(), { 1: 0, 2: 1, 3: 2, 4: 0, 5: 1, 6: 0, 7: 0, 8: 0 });
  t.equal(tables.jobs.at(-1)?.owner, '-', 'a job that no upload has queued');
  t.equal(names(await jobs.claim('w', 3, 20, 100)), '714');
  await add('9', 'carol', 19);
  t.match(turns(), { 9: 1 }, 'one that comes later begins where the others are');
  await add('0', 'ada', 8);
  t.match(turns(), { 0: 3 }, 'after the last one of its owner');
  t.equal(names(await jobs.claim('w', 9, 20, 100)), '2593068');
  await add('f', 'bob', 30);
  t.match(turns(), { f: 0 }, 'a queue that is empty begins anew');
});

void t.test('jobs that waited after a failure go by how long they wait, whatever their turn', async (t) => {
  const { tables, jobs } = setUp();
  const waits = { priority: 'upload', owner: 'ada', attempts: 1, lease: null } as const;
  const put = (name: string, given: Pick<Job, 'turn' | 'queuedAt' | 'readyAt'> & Partial<Job>): void => {
    const sha256 = hashOf(name);
    write(tables, JOBS, sha256, { ...waits, sha256, ...given });
  };
  put('1', { turn: 0, queuedAt: 50, readyAt: 50 });
  put('2', { turn: 1, queuedAt: 40, readyAt: 40 });
  put('3', { turn: null, queuedAt: 1, readyAt: 49 });
  put('4', { turn: null, queuedAt: 2, readyAt: 50 });
  put('5', { turn: null, queuedAt: 3, readyAt: 30 });
  put('6', { turn: null, queuedAt: 0, readyAt: 60 });
  put('7', { turn: null, queuedAt: 0, readyAt: 61 });
  put('8', { turn: null, queuedAt: 0, readyAt: 10, priority: 'backfill' });
  put('9', { turn: null, queuedAt: 0, readyAt: 55, priority: 'asked' });
  t.equal(names(await jobs.claim('w', 4, 60, 100)), '9531');
  t.equal(names(await jobs.claim('w', 1, 60, 100)), '2');
  t.equal(names(await jobs.claim('w', 9, 60, 100)), '468', 'what is due at this instant, and nothing later');
  t.equal(names(await jobs.claim('w', 9, 61, 100)), '7');
});

void t.test('no more is claimed than asked for, and asking in vain takes no transaction', async (t) => {
  const { tables, jobs } = setUp();
  t.same(await jobs.claim('w', 9, 5, 100), []);
  t.equal(tables.transactions, 0);
  for (const [n, sha256] of [A, B, C].entries()) await jobs.add(sha256, 'upload', n);
  const before = tables.transactions;
  t.same(await jobs.claim('w', 0, 5, 100), []);
  t.same(await jobs.claim('w', -1, 5, 100), []);
  t.equal(tables.transactions, before);
  t.same(await jobs.claim('w', 1, 5, 100), [
    {
      sha256: A,
      priority: 'upload',
      owner: '-',
      turn: 0,
      queuedAt: 0,
      readyAt: 0,
      attempts: 0,
      lease: { holder: 'w', until: 105 },
    },
  ]);
  t.same(await jobs.counts(), { waiting: 2, leased: 1, dead: 0 });
  t.equal(names(await jobs.claim('v', 9, 6, 50)), 'bc');
  t.same(await jobs.claim('w', 9, 55, 100), []);
  t.equal(tables.transactions, before + 2);
  t.same(tables.keys('job_ready'), []);
  t.same(tables.keys('job_lease'), [`56/${B}`, `56/${C}`, `105/${A}`]);
});

void t.test('a lease that has ended counts as an attempt, and the job is ready again', async (t) => {
  const { jobs } = setUp();
  for (const sha256 of [A, B]) await jobs.add(sha256, 'upload', 0);
  await jobs.claim('w', 9, 0, 100);
  t.equal(await jobs.renew(B, 'w', 101), true);
  t.match(await jobs.claim('v', 9, 100, 100), [{ sha256: A, attempts: 1, lease: { holder: 'v', until: 200 } }]);
  t.equal(await jobs.renew(A, 'w', 300), false, 'it is of another now');
  t.match(await jobs.claim('v', 9, 101, 100), [{ sha256: B, attempts: 1 }]);
  t.equal(await jobs.nextReadyAt(), 200);
});

void t.test('only the leaseholder gives a job back', async (t) => {
  const { tables, jobs } = setUp();
  const job = (): Job | undefined => tables.jobs[0];
  await jobs.add(A, 'upload', 5, 'ada');
  await jobs.claim('w', 1, 5, 100);
  const leased = job();
  await jobs.retry(A, 'v', 50, 'backfill');
  await jobs.giveBack(A, 'v', 50);
  await jobs.giveBack(A, 'v');
  t.same(job(), leased);
  await jobs.giveBack(A, 'w');
  t.match(job(), { turn: 0, readyAt: 5, attempts: 0, lease: null }, 'it keeps its turn');
  await jobs.giveBack(A, 'w', 60);
  t.match(job(), { turn: 0, readyAt: 5 }, 'twice is once');
  await jobs.claim('w', 1, 5, 100);
  await jobs.giveBack(A, 'w', 60);
  t.match(job(), { turn: null, readyAt: 60, attempts: 0, lease: null });
  await jobs.claim('w', 1, 60, 100);
  await jobs.retry(A, 'w', 70, null);
  t.match(job(), { turn: null, readyAt: 70, attempts: 1, lease: null, priority: 'upload' });
  await jobs.claim('w', 1, 70, 100);
  await jobs.retry(A, 'w', 90, 'backfill');
  t.same(job(), {
    sha256: A,
    owner: 'ada',
    queuedAt: 5,
    turn: null,
    readyAt: 90,
    attempts: 2,
    lease: null,
    priority: 'backfill',
  });
  t.equal(await jobs.renew(B, 'w', 100), false, 'there is no such job');
});

void t.test('the next instant is that of the first job or of the first lease to end', async (t) => {
  const { tables, jobs } = setUp();
  t.equal(await jobs.nextReadyAt(), null);
  await jobs.add(A, 'backfill', 50);
  t.equal(await jobs.nextReadyAt(), 50);
  await jobs.add(B, 'asked', 70);
  t.equal(await jobs.nextReadyAt(), 50, 'of any priority');
  await jobs.claim('w', 9, 70, 30);
  t.equal(await jobs.nextReadyAt(), 100);
  await jobs.retry(A, 'w', 90, null);
  t.equal(await jobs.nextReadyAt(), 90);
  await jobs.retry(B, 'w', 80, 'upload');
  t.equal(await jobs.nextReadyAt(), 80);
  for (const sha256 of [A, B]) await jobs.drop(sha256);
  t.equal(await jobs.nextReadyAt(), null);
  t.same(
    ['job', 'job_ready', 'job_lease'].map((table) => tables.keys(table)),
    [[], [], []],
  );
});

void t.test('a priority is lifted and never lowered', async (t) => {
  const { tables, jobs } = setUp();
  const added: string[] = [];
  jobs.onAdded(() => added.push('added'));
  const lift = async (sha256: Sha256, priority: JobPriority): Promise<readonly unknown[]> => {
    const known = await jobs.lift(sha256, priority);
    const changed = tables.last.jobsAdded;
    return [known, changed, tables.jobs.find((job) => job.sha256 === sha256)?.priority];
  };
  await jobs.add(A, 'backfill', 0, 'ada');
  await jobs.add(B, 'upload', 1, 'bob');
  await jobs.add(C, 'upload', 2, 'bob');
  t.equal(tables.last.jobsAdded, true);
  t.same(await lift(D, 'asked'), [false, false, undefined]);
  t.same(await lift(A, 'backfill'), [true, false, 'backfill']);
  t.same(await lift(A, 'upload'), [true, true, 'upload']);
  t.same(await lift(A, 'backfill'), [true, false, 'upload']);
  t.match(tables.jobs[0], { turn: 0, owner: 'ada' });
  t.same(await lift(C, 'asked'), [true, true, 'asked']);
  t.match(tables.jobs[2], { turn: 0 }, 'its turn is one of its new priority');
  await jobs.add(B, 'asked', 9, 'eve');
  t.same(
    tables.jobs[1],
    { sha256: B, owner: 'bob', turn: 1, queuedAt: 1, readyAt: 1, attempts: 0, lease: null, priority: 'asked' },
    'adding what is there lifts it',
  );
  t.equal(tables.last.jobsAdded, true);
  await jobs.claim('w', 1, 9, 100);
  await jobs.giveBack(C, 'w', 50);
  await jobs.drop(A);
  await jobs.add(A, 'backfill', 9);
  await jobs.claim('w', 9, 50, 100);
  await jobs.retry(A, 'w', 60, null);
  await lift(A, 'asked');
  t.match(tables.jobs[0], { turn: null, readyAt: 60, priority: 'asked' }, 'one that waits after a failure has no turn');
});

const FACTS = { width: 1, height: 2, durationMs: 3, frames: 4, orientation: 5, thumbhash: 'six' };
const MADE: ThumbMade = {
  variant: '160',
  format: 'webp',
  sha256: D,
  place: PLACE,
  sizeBytes: 1,
  width: 1,
  height: 1,
  animated: false,
};

void t.test('an outcome ends the job, and what it does not know of a picture stays as it was', async (t) => {
  const { tables, jobs } = setUp();
  const blob = putBlob(tables, A, { picture: FACTS });
  const other = { width: 11, height: 12, durationMs: 13, frames: 14, orientation: 6, thumbhash: '16' };
  const finish = (outcome: Parameters<typeof finishThumbs>[2]): unknown => {
    tables.change((change) => finishThumbs(change, A, outcome));
    return tables.blobs;
  };
  const stored = (given: Partial<BlobRecord>): object => [
    { blob: { ...blob, ...given }, unreferencedAt: null, markSeq: 7 },
  ];
  await jobs.add(A, 'upload', 0);
  const made = { kind: 'made', made: [MADE] } as const;
  t.same(finish({ ...made, picture: NO_FACTS }), stored({ thumbs: { kind: 'ready', made: [MADE] } }));
  t.same(tables.jobs, []);
  for (const name of Object.keys(FACTS) as (keyof typeof FACTS)[]) {
    putBlob(tables, A, { picture: FACTS });
    const picture = { ...FACTS, [name]: other[name] };
    const learnt = { ...NO_FACTS, [name]: other[name] };
    t.same(finish({ ...made, picture: learnt }), stored({ thumbs: { kind: 'ready', made: [MADE] }, picture }), name);
  }
  putBlob(tables, A);
  const refused = { kind: 'refused', reason: 'too_many_pixels', picture: FACTS } as const;
  t.same(finish(refused), stored({ thumbs: { kind: 'none', reason: 'too_many_pixels' }, picture: FACTS }));
  tables.change((change) => finishThumbs(change, B, refused));
  t.equal(tables.blobs.length, 1, 'a blob that is gone stays gone');
  tables.writes.length = 0;
  finish(refused);
  t.same(tables.writes, [`put blob ${A}`], 'without a job none is removed');
});

void t.test('thumbnails are made again for a blob that there is', async (t) => {
  const { tables } = setUp();
  const blob = putBlob(tables, A, { thumbs: { kind: 'ready', made: [MADE] } });
  const redo = (sha256: Sha256): boolean => tables.change((change) => redoThumbs(change, sha256, 'asked', 5));
  t.same([redo(B), redo(A)], [false, true]);
  t.same(tables.blobs, [{ blob: { ...blob, thumbs: { kind: 'pending' } }, unreferencedAt: null, markSeq: 7 }]);
  t.match(tables.jobs, [{ sha256: A, priority: 'asked', queuedAt: 5, owner: '-' }]);
  t.equal(tables.jobs.length, 1);
});

void t.test('dead letters are kept, the newest first, until they are revived', async (t) => {
  const { tables, jobs } = setUp();
  const blobs = [A, B, C].map((sha256) => putBlob(tables, sha256));
  for (const [n, sha256] of [A, B, C].entries()) await jobs.add(sha256, 'upload', n);
  await jobs.claim('w', 9, 9, 100);
  await jobs.retry(B, 'w', 10, null);
  await jobs.bury(B, 'it broke', 30);
  await jobs.bury(A, 'too much', 20, 'too_expensive');
  await jobs.bury(C, 'it broke', 40, 'failed');
  await jobs.bury(D, 'there is none', 40);
  const letter = (sha256: Sha256, diedAt: number, reason: string, attempts = 0): object => ({
    sha256,
    attempts,
    diedAt,
    reason,
  });
  t.same(await jobs.dead(9), [letter(C, 40, 'it broke'), letter(B, 30, 'it broke', 1), letter(A, 20, 'too much')]);
  t.equal(names(await jobs.dead(2)), 'cb');
  t.same(tables.jobs, []);
  const none = (reason: string): object => ({ kind: 'none', reason });
  t.same(
    tables.blobs.map(({ blob }) => blob.thumbs),
    [none('too_expensive'), none('failed'), none('failed')],
  );
  t.same(await jobs.counts(), { waiting: 0, leased: 0, dead: 3 });
  t.equal(await jobs.revive(2, 50), 2);
  t.equal(names(await jobs.dead(9)), 'c', 'the oldest are revived first');
  t.match(tables.jobs, [
    { sha256: A, priority: 'backfill', queuedAt: 50, attempts: 0 },
    { sha256: B, priority: 'backfill', queuedAt: 50, attempts: 0 },
  ]);
  t.same(tables.blobs[0]?.blob, blobs[0]);
  await jobs.add(C, 'asked', 60);
  t.same(tables.dead, [], 'a new job takes the place of the letter');
  t.same(tables.keys('dead_order'), []);
  t.equal(await jobs.revive(9, 60), 0);
});

void t.test('leases end with the process', async (t) => {
  const { tables, jobs } = setUp();
  for (const sha256 of [A, B, C]) await jobs.add(sha256, 'upload', 0);
  await jobs.claim('w', 2, 0, 100);
  t.equal(tables.change(endLeases), 2);
  t.same(
    tables.jobs.map(({ attempts, lease }) => [attempts, lease]),
    [
      [1, null],
      [1, null],
      [0, null],
    ],
  );
  t.same(tables.keys('job_lease'), []);
  t.equal(tables.change(endLeases), 0);
});

void t.test(
  'listeners hear of what was added and ended, and one that fails keeps nothing from the others',
  async (t) => {
    const { tables, jobs } = setUp();
    const heard: string[] = [];
    const fail = (): void => {
      throw new Error('a listener that fails');
    };
    const stops = [
      jobs.onAdded(fail),
      jobs.onEnded(fail),
      jobs.onAdded(() => heard.push('added')),
      jobs.onEnded((sha256) => heard.push(`ended ${sha256[0]}`)),
    ];
    jobs.announce({ jobsAdded: false, jobsEnded: [] });
    t.same(heard.splice(0), []);
    jobs.announce({ jobsAdded: true, jobsEnded: [A, B] });
    t.same(heard.splice(0), ['ended a', 'ended b', 'added']);
    for (const stop of stops) stop();
    jobs.announce({ jobsAdded: true, jobsEnded: [A] });
    t.same(heard, []);

    await jobs.add(A, 'upload', 0);
    tables.change((change) => endJob(change, B));
    t.same(tables.last.jobsEnded, []);
    tables.change((change) => endJob(change, A));
    t.same([tables.last.jobsEnded, tables.jobs], [[A], []]);
  },
);

void t.test('a damaged job holds up no others', async (t) => {
  const { tables, jobs } = setUp();
  for (const sha256 of [A, B, C]) await jobs.add(sha256, 'upload', 0);
  tables.put('job', B, Buffer.from('rubbish'));
  t.equal(names(await jobs.claim('w', 9, 0, 10)), 'ac');
  t.same(
    tables.damaged.splice(0).map(({ table, key }) => [table, key]),
    [['job', B]],
  );
  tables.put('job', A, Buffer.from('rubbish'));
  t.equal(names(await jobs.claim('w', 9, 10, 10)), 'c');
  t.same(new Set(tables.damaged.splice(0).map(({ key }) => key)), new Set([A, B]));
  tables.change((change) => endJob(change, B));
  t.same(tables.damaged.at(-1)?.key, B, 'a takedown is not kept from happening');
});

void t.test('the jobs of an owner are claimed in the order in which they were queued', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('add' as const), owner: fc.nat(2) }),
    fc.record({ kind: fc.constant('claim' as const), limit: fc.integer({ min: 1, max: 3 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const { tables, jobs } = setUp();
      let now = 0;
      let made = 0;
      for (const one of steps) {
        now += 1;
        if (one.kind === 'add') {
          made += 1;
          await jobs.add(made.toString(16).padStart(64, '0') as Sha256, 'upload', now, `owner ${one.owner}`);
          continue;
        }
        const waiting = new Set(tables.jobs.filter(({ lease }) => lease === null).map(({ owner }) => owner));
        const claimed = await jobs.claim('w', one.limit, now, 1e9);
        for (const owner of waiting) {
          const own = claimed.filter((job) => job.owner === owner).map(({ queuedAt }) => queuedAt);
          assert.deepEqual(
            own,
            own.toSorted((x, y) => x - y),
            'each in the order in which it was queued',
          );
        }
      }
    }),
    { numRuns: 40 },
  );
});
