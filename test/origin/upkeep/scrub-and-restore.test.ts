/** Scrubs and restores over stores of which the test sees every call. */
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import type { BlobKey } from '../../../origin/blobs/blob-store.js';
import { type BlobRecord, NO_FACTS, type Quarantine, type ThumbMade } from '../../../origin/meta/media.js';
import { type RestoreDeps, type RestoreFinding, restore } from '../../../origin/upkeep/restore.js';
import { localMarks, type ScrubFinding, type ScrubProgress, scrub } from '../../../origin/upkeep/scrub.js';
import type { Sha256 } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { mediaKey, PLACE, thumbKey } from '../../kit/origin/keys.js';

const sha256Of = (text: string): Sha256 => createHash('sha256').update(text).digest('hex') as Sha256;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** Long enough for everything that needs no timer. */
const settle = async (): Promise<void> => {
  for (let n = 0; n < 20; n += 1) await turn();
};

const THUMB = 'a thumbnail';
const madeThumb = (text: string): ThumbMade => ({
  variant: '160',
  format: 'webp',
  sha256: sha256Of(text),
  place: PLACE,
  sizeBytes: text.length,
  width: 1,
  height: 1,
  animated: false,
});
function recordOf(text: string, thumbs: readonly string[] = [], cause: Quarantine['cause'] | null = null): BlobRecord {
  return {
    sha256: sha256Of(text),
    place: PLACE,
    sizeBytes: text.length,
    mime: 'image/png',
    storedAt: 0,
    picture: NO_FACTS,
    thumbs: thumbs.length === 0 ? { kind: 'pending' } : { kind: 'ready', made: thumbs.map(madeThumb) },
    quarantine: cause && { at: 0, by: '', reason: null, cause },
  };
}

/** Stored texts by their key. An Error is thrown in place of the bytes. */
type StoredTexts = Map<BlobKey, string | Error>;

function readFrom(stored: StoredTexts, reads: BlobKey[] = []) {
  return async (key: BlobKey) => {
    reads.push(key);
    const found = stored.get(key);
    if (found === undefined) return { kind: 'missing' } as const;
    if (found instanceof Error) throw found;
    return { kind: 'found', sizeBytes: found.length, body: Readable.from([Buffer.from(found)]) } as const;
  };
}

/** Pages of two. */
function pagesOf(records: readonly BlobRecord[]) {
  const sorted = records.toSorted((one, other) => (one.sha256 < other.sha256 ? -1 : 1));
  return async (after: Sha256 | null) => {
    const rest = sorted.filter(({ sha256 }) => after === null || sha256 > after);
    const blobs = rest.slice(0, 2);
    return { blobs, next: rest.length > 2 ? (blobs.at(-1)?.sha256 ?? null) : null };
  };
}

function scrubbing(records: readonly BlobRecord[], stored: StoredTexts, rateBytes = 1e9) {
  const clock = new ManualClock();
  const [reads, marks, findings, progress] = [
    [] as BlobKey[],
    [] as string[],
    [] as ScrubFinding[],
    [] as ScrubProgress[],
  ];
  const unreferenced = new Set<Sha256>();
  const known = new Map(records.map((record) => [record.sha256, record]));
  const leaving = new AbortController();
  const run = (after: Sha256 | null = null) =>
    scrub(
      {
        config: { rateBytes, againMs: 2_000 },
        meta: {
          blobsAfter: pagesOf(records),
          findBlob: async (sha256) => known.get(sha256),
          isUnreferenced: async (sha256) => unreferenced.has(sha256),
        },
        blobs: { read: readFrom(stored, reads) },
        marks: {
          rotten: async (sha256, reason) => void marks.push(`rotten ${sha256}: ${reason}`),
          redoThumbs: async (sha256) => void marks.push(`thumbs ${sha256}`),
        },
        clock,
      },
      {
        after,
        signal: leaving.signal,
        onFinding: (finding) => findings.push(finding),
        onProgress: (at) => progress.push(at),
      },
    );
  return { run, clock, reads, marks, findings, progress, unreferenced, known, leaving };
}

void t.test('a scrub reads all that the records name, in the order of their hashes', async (t) => {
  const records = ['one', 'two', 'three'].map((text) => recordOf(text, text === 'one' ? [THUMB, 'another'] : []));
  const stored: StoredTexts = new Map(['one', 'two', 'three'].map((text) => [mediaKey(sha256Of(text)), text]));
  for (const text of [THUMB, 'another']) stored.set(thumbKey(sha256Of('one'), sha256Of(text)), text);
  const { run, reads, marks, progress } = scrubbing(records, stored);
  t.same(await run(), { blobs: 3, thumbs: 2, bytes: 3 + 3 + 5 + 11 + 7, findings: 0 });
  t.equal(reads.length, 5);
  t.same(marks, []);
  const hashes = records.map(({ sha256 }) => sha256).sort();
  t.same(
    progress.map(({ after, blobs }) => [after, blobs]),
    hashes.map((hash, n) => [hash, n + 1]),
  );
  t.equal(progress.at(-1)?.bytes, 29);
  t.match(await run(hashes[0] ?? null), { blobs: 2 }, 'it goes on from where an earlier one was');
});

void t.test('what is wrong twice is marked: an original as rotten, thumbnails to be made again', async (t) => {
  const [key, thumb] = [mediaKey(sha256Of('original')), thumbKey(sha256Of('original'), sha256Of(THUMB))];
  const rotten = `rotten ${sha256Of('original')}: its bytes are not what they were`;
  const again = `thumbs ${sha256Of('original')}`;
  type Case = readonly [
    what: string,
    original: string | Error | undefined,
    thumbnail: string | Error | undefined,
    findings: readonly (readonly [ScrubFinding['kind'], BlobKey, string])[],
    marks: readonly string[],
  ];
  const cases: readonly Case[] = [
    ['all right', 'original', THUMB, [], []],
    ['other bytes', 'oriGinal', THUMB, [['rotten', key, `its bytes hash to ${sha256Of('oriGinal')}`]], [rotten]],
    ['fewer bytes', 'origin', THUMB, [['cut', key, '6 of 8 bytes are stored']], [rotten]],
    ['no bytes', undefined, THUMB, [['missing', key, 'nothing is stored']], [rotten]],
    ['a failing disk', new Error('EIO'), THUMB, [['unreadable', key, 'EIO']], []],
    [
      'a wrong thumbnail',
      'original',
      'A thumbnail',
      [['rotten', thumb, `its bytes hash to ${sha256Of('A thumbnail')}`]],
      [again],
    ],
    ['no thumbnail', 'original', undefined, [['missing', thumb, 'nothing is stored']], [again]],
    ['an unreadable thumbnail', 'original', new Error('EIO'), [['unreadable', thumb, 'EIO']], []],
  ];
  for (const [what, original, thumbnail, findings, marks] of cases) {
    const stored: StoredTexts = new Map();
    if (original !== undefined) stored.set(key, original);
    if (thumbnail !== undefined) stored.set(thumb, thumbnail);
    const scrubbed = scrubbing([recordOf('original', [THUMB])], stored);
    const running = scrubbed.run();
    await settle();
    if (findings.length > 0) {
      t.same(scrubbed.findings, [], 'not before it was looked at again');
      scrubbed.clock.advance(1_999);
      await settle();
      t.same(scrubbed.findings, []);
      scrubbed.clock.advance(1);
    }
    t.match(await running, { blobs: 1, thumbs: 1, findings: findings.length }, what);
    t.same(
      scrubbed.findings,
      findings.map(([kind, of, detail]) => ({ kind, key: of, detail })),
      what,
    );
    t.same(scrubbed.marks, marks, what);
  }
});

void t.test('what was swept, healed or made again meanwhile is not wrong', async (t) => {
  const record = recordOf('original', [THUMB]);
  const key = mediaKey(record.sha256);
  const thumb = thumbKey(record.sha256, sha256Of(THUMB));
  const healthy = (): StoredTexts =>
    new Map<BlobKey, string | Error>([
      [key, 'original'],
      [thumb, THUMB],
    ]);
  const meanwhile: readonly (readonly [
    string,
    wrong: BlobKey,
    (scrubbed: ReturnType<typeof scrubbing>, stored: StoredTexts) => void,
  ])[] = [
    ['healed', key, (_, stored) => stored.set(key, 'original')],
    ['swept', key, ({ known }) => known.delete(record.sha256)],
    ['about to be swept', key, ({ unreferenced }) => unreferenced.add(record.sha256)],
    ['made again', thumb, ({ known }) => known.set(record.sha256, recordOf('original', ['another']))],
  ];
  for (const [what, wrong, change] of meanwhile) {
    const stored = healthy();
    stored.set(wrong, 'wrong');
    const scrubbed = scrubbing([record], stored);
    const running = scrubbed.run();
    await settle();
    change(scrubbed, stored);
    scrubbed.clock.advance(2_000);
    t.match(await running, { findings: 0 }, what);
    t.same([scrubbed.findings, scrubbed.marks], [[], []]);
  }
  const known = scrubbing([recordOf('original', [THUMB], 'rot')], new Map([[thumb, THUMB]]));
  t.match(await known.run(), { blobs: 1, findings: 0, bytes: 11 }, 'what is marked already is not read');
  t.same(known.reads, [thumb]);
  const held = scrubbing([recordOf('original', [], 'admin')], new Map([[key, 'original']]));
  t.match(await held.run(), { bytes: 8 }, 'evidence is');
});

void t.test('a scrub keeps to its rate, and waits for nothing once it is left', async (t) => {
  const texts = ['a', 'b'].map((letter) => letter.repeat(100));
  const stored: StoredTexts = new Map(texts.map((text) => [mediaKey(sha256Of(text)), text]));
  const { run, clock, progress } = scrubbing(
    texts.map((text) => recordOf(text)),
    stored,
    1_000,
  );
  const running = run();
  await settle();
  t.equal(progress.length, 0);
  clock.advance(99);
  await settle();
  t.equal(progress.length, 0, '100 bytes take a tenth of a second');
  clock.advance(1);
  await settle();
  t.equal(progress.length, 1);
  clock.advance(100);
  t.match(await running, { blobs: 2 });

  const quick = scrubbing(
    texts.map((text) => recordOf(text)),
    stored,
    10_000,
  );
  const soon = quick.run();
  await settle();
  t.equal(quick.progress.length, 1, 'waits of less than 20 ms are added up');
  quick.clock.advance(20);
  t.match(await soon, { blobs: 2 });
  const left = scrubbing(
    texts.map((text) => recordOf(text)),
    stored,
    1_000,
  );
  const ending = left.run();
  ending.catch(() => undefined);
  await settle();
  left.leaving.abort(new Error('left'));
  await t.rejects(ending, { message: 'left' });
  t.equal(left.clock.pending, 0);
  await t.rejects(left.run(), { message: 'left' });
});

void t.test('the marks of a scrub say who made them', async (t) => {
  const made: unknown[] = [];
  const clock = new ManualClock(5_000);
  const marks = localMarks(
    {
      quarantine: async (...mark) => {
        await turn();
        made.push(mark);
        return { kind: 'done', seq: 1 };
      },
      redoThumbs: async (...redo) => {
        await turn();
        return made.push(redo) > 0;
      },
    },
    clock,
  );
  await marks.rotten(sha256Of('x'), 'why');
  await marks.redoThumbs(sha256Of('y'));
  t.same(made, [
    [sha256Of('x'), { at: 5_000, by: 'scrub', reason: 'why', cause: 'rot' }],
    [sha256Of('y'), 'backfill', 5_000],
  ]);
});

// Restores.

function restoring(t: Test, records: readonly BlobRecord[], backup: StoredTexts, stored: StoredTexts = new Map()) {
  const done: string[] = [];
  const findings: RestoreFinding[] = [];
  const stageFolder = t.testdir({});
  const unreferenced = new Set<Sha256>();
  const short = (key: string): string => key.slice(0, 8);
  const leaving = new AbortController();
  const deps = {
    source: { read: readFrom(backup) },
    target: {
      kind: 'local',
      stageFolder,
      read: readFrom(stored),
      stat: async (key: BlobKey) => {
        const found = stored.get(key);
        return found === undefined ? undefined : String(found).length;
      },
      remove: async (key: BlobKey) => {
        done.push(`remove ${short(key)}`);
        stored.delete(key);
      },
      adopt: async (_path: string, key: BlobKey) => {
        done.push(`adopt ${short(key)}`);
        stored.set(key, String(backup.get(key)));
      },
    },
    incoming: {
      store: {
        blobsAfter: pagesOf(records),
        isUnreferenced: async (sha256: Sha256) => unreferenced.has(sha256),
        forgetBlob: async (sha256: Sha256) => {
          await turn();
          return done.push(`forget ${short(sha256)}`) > 0;
        },
        quarantine: async (sha256: Sha256, mark: Quarantine) => {
          await turn();
          done.push(`quarantine ${short(sha256)} ${JSON.stringify(mark)}`);
        },
        redoThumbs: async (sha256: Sha256, priority: string, now: number) => {
          await turn();
          return done.push(`thumbs ${short(sha256)} ${priority} ${now}`) > 0;
        },
      },
      publish: async () => {
        await turn();
        done.push('publish');
      },
    },
    clock: { now: () => 7_000 },
  };
  const progress: unknown[] = [];
  const run = (incomplete = false) =>
    restore(deps as unknown as RestoreDeps, {
      incomplete,
      signal: leaving.signal,
      onFinding: (finding) => findings.push(finding),
      onProgress: (at) => progress.push(at),
    });
  return { run, deps, done, findings, progress, stored, unreferenced, short, leaving, stageFolder };
}

const NOTHING_MISSING = { originalsMissing: 0, thumbsMissing: 0, withheld: 0, published: true };

void t.test('a restore copies what is not stored, keeps what is right, and replaces what is wrong', async (t) => {
  const texts = ['absent', 'right', 'rotten', 'cut', 'other'];
  const backup: StoredTexts = new Map(texts.map((text) => [mediaKey(sha256Of(text)), text]));
  const thumb = thumbKey(sha256Of('right'), sha256Of(THUMB));
  backup.set(thumb, THUMB);
  const stored: StoredTexts = new Map<BlobKey, string>([
    [mediaKey(sha256Of('right')), 'right'],
    [mediaKey(sha256Of('rotten')), 'rOtten'],
    [mediaKey(sha256Of('cut')), 'cu'],
  ]);
  const { run, done, findings, progress, short, stageFolder } = restoring(
    t,
    texts.map((text) => recordOf(text, text === 'right' ? [THUMB] : [])),
    backup,
    stored,
  );
  t.same(await run(), { blobs: 6, copied: 5, copiedBytes: 6 + 6 + 3 + 5 + 11, ...NOTHING_MISSING });
  t.same(findings, []);
  t.same(stored, backup);
  const removed = done.filter((act) => act.startsWith('remove'));
  t.equal(removed.length, 2, 'what is wrong goes first');
  t.equal(done.at(-1), 'publish', 'the metadata come last');
  t.equal(done.filter((act) => act === `adopt ${short(thumb)}`).length, 1);
  t.equal(progress.length, 3);
  t.same(progress.at(-1), { blobs: 6, copiedBytes: 31 });
  t.same(readdirSync(stageFolder), [], 'nothing is left on the stage');
});

void t.test('originals that are right nowhere keep the metadata away, unless that is asked for', async (t) => {
  const [gone, rotten] = ['gone', 'rotten'];
  const setUp = () =>
    restoring(t, [recordOf(gone), recordOf(rotten)], new Map([[mediaKey(sha256Of(rotten)), 'rOtten']]));
  const strict = setUp();
  t.match(await strict.run(), { blobs: 0, copied: 0, originalsMissing: 2, published: false });
  t.notOk(strict.done.includes('publish'));
  const findings = [
    { kind: 'missing', key: mediaKey(sha256Of(gone)), detail: 'nothing is stored' },
    { kind: 'rotten', key: mediaKey(sha256Of(rotten)), detail: `its bytes hash to ${sha256Of('rOtten')}` },
  ];
  t.same(
    strict.findings.toSorted((one, other) => (one.kind < other.kind ? -1 : 1)),
    findings,
  );
  const lax = setUp();
  t.match(await lax.run(true), { originalsMissing: 2, published: true });
  const mark = (text: string, reason: string): string =>
    `quarantine ${lax.short(sha256Of(text))} ${JSON.stringify({ at: 7_000, by: 'restore', reason, cause: 'rot' })}`;
  t.same(
    lax.done.toSorted(),
    [mark(gone, 'nothing is stored'), mark(rotten, findings[1]?.detail ?? ''), 'publish'].toSorted(),
  );
  t.equal(lax.done.at(-1), 'publish');
  const unneeded = setUp();
  unneeded.unreferenced.add(sha256Of(gone));
  await unneeded.run(true);
  t.ok(unneeded.done.includes(`forget ${unneeded.short(sha256Of(gone))}`), 'what nothing refers to is forgotten');
});

void t.test('what was rotten in the backup already is no finding, and thumbnails are made again', async (t) => {
  const withheld = restoring(t, [recordOf('rotten', [], 'rot')], new Map());
  t.match(await withheld.run(), { withheld: 1, originalsMissing: 0, published: true });
  t.same([withheld.findings, withheld.done], [[], ['publish']]);
  const key = mediaKey(sha256Of('original'));
  const thumbs = restoring(t, [recordOf('original', [THUMB, 'another'])], new Map([[key, 'original']]));
  t.match(await thumbs.run(), { blobs: 1, thumbsMissing: 2, originalsMissing: 0, published: true });
  t.equal(thumbs.findings.length, 2);
  t.same(thumbs.done, [
    `adopt ${thumbs.short(key)}`,
    `thumbs ${thumbs.short(sha256Of('original'))} backfill 7000`,
    'publish',
  ]);
});

void t.test('a file of the backup that is cut short or cannot be read to its end is a finding', async (t) => {
  const key = mediaKey(sha256Of('original'));
  const cut = restoring(t, [recordOf('original')], new Map([[key, 'origin']]));
  await cut.run();
  t.same(cut.findings, [{ kind: 'rotten', key, detail: '6 of 8 bytes are stored' }]);
  const torn = restoring(t, [recordOf('original')], new Map());
  const bodies: Readable[] = [];
  torn.deps.source.read = async () => {
    const body = new Readable({ read: () => void body.destroy(new Error('EIO: bad sector')) });
    bodies.push(body);
    return { kind: 'found', sizeBytes: 8, body };
  };
  t.match(await torn.run(), { originalsMissing: 1, published: false });
  t.same(torn.findings, [{ kind: 'unreadable', key, detail: 'EIO: bad sector' }]);
  t.same(readdirSync(torn.stageFolder), []);
  const swept = restoring(t, [recordOf('original')], new Map([[key, 'original']]));
  swept.deps.target.stat = async () => 8;
  t.match(await swept.run(), { blobs: 1, copied: 1 }, 'what vanished since it was seen is copied');
});

void t.test('a restore that fails or is left puts nothing in place', async (t) => {
  const key = mediaKey(sha256Of('original'));
  const failing = restoring(t, [recordOf('original')], new Map([[key, new Error('EIO')]]));
  await t.rejects(failing.run(true), { message: 'EIO' });
  t.same(failing.done, []);
  const left = restoring(t, [recordOf('original')], new Map([[key, 'original']]));
  left.leaving.abort(new Error('left'));
  await t.rejects(left.run(true), { message: 'left' });
  t.same(left.done, []);
});
