/** The parts of the follower by themselves: lines of the stream, what is applied here, and the position file. */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import t from 'tap';
import { createAppliedJournal } from '../../../edge/journal/applied-journal.js';
import { type FollowerDeps, journalSection, type OpenOrigin } from '../../../edge/journal/config.js';
import { type ConfirmOutcome, createConfirmer } from '../../../edge/journal/confirm.js';
import { createDelayGauge, createLease, type LeaseState } from '../../../edge/journal/lease.js';
import { openPositionFile } from '../../../edge/journal/position.js';
import { whereToStart } from '../../../edge/journal/start.js';
import { chunksOf, createLineSplitter, openStream, SessionEnded } from '../../../edge/journal/stream.js';
import { type EdgesBehind, NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import type { JournalEntry, JournalPosition } from '../../../src/journal/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { configured } from '../../kit/deps.js';
import { mediaIdOf } from '../../kit/edge/cache.js';
import { until } from '../../kit/until.js';

const at = (seq: number, mark: string | null = `m${seq}`): JournalPosition => ({ journal: 'j', seq, mark });
const entry = (seq: number, ids = 1): JournalEntry => ({
  seq,
  mark: `m${seq}`,
  at: 0,
  cause: 'delete',
  ids: Array.from({ length: ids }, (_, index) => mediaIdOf(index)),
});

void t.test('lines are read from pieces of any size, and none may be too long or of another protocol', (t) => {
  const beat = '{"t":"beat","newest":3,"mark":"m3","at":5,"ageMs":0}\n';
  const text = Buffer.from(beat.repeat(3));
  const line = { t: 'beat', newest: 3, mark: 'm3', at: 5, ageMs: 0 };
  for (const size of [1, 7, beat.length, beat.length + 1, text.length]) {
    const split = createLineSplitter(beat.length);
    const lines: unknown[] = [];
    for (let from = 0; from < text.length; from += size) lines.push(...split(text.subarray(from, from + size)));
    t.same(lines, [line, line, line], `pieces of ${size}`);
  }
  const garbled = { message: 'garbled', reason: 'garbled' };
  const exact = createLineSplitter(10);
  t.same(exact(Buffer.alloc(10, 'x')), []);
  t.throws(() => exact(Buffer.alloc(1, 'x')), garbled);
  const grown = createLineSplitter(10);
  grown(Buffer.alloc(6, 'x'));
  t.throws(() => grown(Buffer.alloc(5, 'x')), garbled, 'the pieces of one line count together');
  const many = createLineSplitter(beat.length);
  for (let count = 0; count < 5; count += 1)
    t.equal(many(Buffer.from(beat)).length, 1, 'a line that has ended counts no more');
  for (const wrong of ['\n', 'x\n', '{}\n', '{"t":"other"}\n'])
    t.throws(() => createLineSplitter(100)(Buffer.from(wrong)), garbled);
  t.end();
});

function streamDeps(open: OpenOrigin, clock = new ManualClock()) {
  const config = configured(journalSection, { connectTimeoutMs: 1_000 });
  return {
    config,
    clock,
    edgeName: 'an edge',
    instance: 'i',
    open,
    proof: () => 'the proof',
  } as unknown as FollowerDeps;
}

void t.test('the stream is asked for from the position on, with the proof of the edge', async (t) => {
  const targets: string[] = [];
  const body = new PassThrough();
  const clock = new ManualClock();
  const deps = streamDeps(async ({ method, target, headers }) => {
    t.equal(method, 'GET');
    t.same(headers, [['edge-authorization', 'the proof']]);
    targets.push(target);
    return { status: 200, body };
  }, clock);
  for (const position of [undefined, at(7), at(0, ''), at(7, null)])
    t.equal(await openStream(deps, position, new AbortController()), body);
  t.same(targets, [
    '/internal/v1/journal?edge=an+edge&instance=i',
    '/internal/v1/journal?edge=an+edge&instance=i&from=7&journal=j&mark=m7',
    '/internal/v1/journal?edge=an+edge&instance=i&from=0&journal=j&mark=',
    '/internal/v1/journal?edge=an+edge&instance=i&from=7&journal=j',
  ]);
  t.equal(clock.pending, 0, 'no timer is left');
});

void t.test('a stream that is refused, fails or does not open in time says which', async (t) => {
  const refused = new PassThrough();
  const deps = streamDeps(async () => ({ status: 503, body: refused }));
  await t.rejects(openStream(deps, undefined, new AbortController()), {
    message: 'refused',
    cause: { message: 'the origin answered 503' },
  });
  t.ok(refused.destroyed);
  refused.emit('error', new Error('nobody listens'));
  const cause = new Error('ECONNREFUSED');
  await t.rejects(
    openStream(
      streamDeps(() => Promise.reject(cause)),
      undefined,
      new AbortController(),
    ),
    { message: 'unreachable', cause },
  );
  const clock = new ManualClock();
  const ending = new AbortController();
  const slow = openStream(
    streamDeps(
      (_request, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
      clock,
    ),
    undefined,
    ending,
  );
  slow.catch(() => undefined);
  clock.advance(999);
  t.equal(ending.signal.aborted, false);
  clock.advance(1);
  t.match(ending.signal.reason, { reason: 'unreachable' });
  await t.rejects(slow, { message: 'unreachable' });
});

void t.test('a stream that is silent for too long ends, and only while it is waited for', async (t) => {
  const clock = new ManualClock();
  const body = new PassThrough();
  const ending = new AbortController();
  const chunks = chunksOf(body, ending, clock, () => 500);
  body.write('a');
  t.equal((await chunks.next()).value?.toString(), 'a');
  clock.advance(10_000);
  t.equal(ending.signal.aborted, false, 'what was received is being applied');
  const next = chunks.next();
  clock.advance(499);
  t.equal(ending.signal.aborted, false);
  clock.advance(1);
  t.match(ending.signal.reason, { reason: 'silent' });
  await t.rejects(Promise.resolve(next), { message: 'silent' });
  t.ok(body.destroyed);
  t.equal(clock.pending, 0);
  const ended = new PassThrough();
  ended.end('b');
  const all: string[] = [];
  for await (const chunk of chunksOf(ended, new AbortController(), clock, () => 500)) all.push(chunk.toString());
  t.same([all, clock.pending, ended.destroyed], [['b'], 0, true]);
});

void t.test('what is applied here is told from its position on, and nothing else', async (t) => {
  let breaks = 0;
  const applied = createAppliedJournal(8, () => {
    breaks += 1;
  });
  const seqsFrom = async (after: number, limit = 9) => (await applied.read(after, limit)).map(({ seq }) => seq);
  const facts = () => [applied.name, applied.newest(), applied.oldest()];
  t.equal(applied.isOwn, false);
  t.same([facts(), applied.ageMs(), applied.markOf(0), applied.markOf(1)], [['', 0, 1], null, '', undefined]);
  const lease: { state: LeaseState } = { state: { kind: 'held', currentMsAgo: 30 } };
  applied.begin({ state: () => lease.state }, at(10));
  t.same([facts(), applied.ageMs(), applied.markOf(10), applied.markOf(9)], [['j', 10, 11], 30, 'm10', undefined]);
  const told: number[] = [];
  const stop = applied.subscribe(({ seq }) => told.push(seq));
  applied.applied([entry(11), entry(12)], at(12));
  t.same(
    [facts(), await seqsFrom(10), await seqsFrom(11), await seqsFrom(12), await seqsFrom(3)],
    [['j', 12, 11], [11, 12], [12], [], [11, 12]],
  );
  t.same(await seqsFrom(10, 1), [11], 'no more than is asked for');
  t.same(
    [10, 11, 12, 13].map((seq) => applied.markOf(seq)),
    ['m10', 'm11', 'm12', undefined],
  );
  applied.applied([entry(13, 2)], at(13));
  t.same(
    [facts(), await seqsFrom(11)],
    [
      ['j', 13, 11],
      [12, 13],
    ],
    'seven of eight: each entry counts as one more than its ids',
  );
  applied.applied([entry(14, 0)], at(14));
  t.equal(applied.oldest(), 11, 'eight fit');
  applied.applied([entry(15, 0)], at(15));
  t.same(
    [facts(), await seqsFrom(11), applied.markOf(11), applied.markOf(10)],
    [['j', 15, 12], [12, 13, 14, 15], 'm11', undefined],
    'the oldest has gone',
  );
  t.same(told, [11, 12, 13, 14, 15]);
  stop();
  applied.applied([entry(16)], at(16));
  t.equal(told.length, 5, 'who has left is told nothing');
  applied.lost();
  t.same([breaks, facts(), applied.ageMs(), await seqsFrom(0)], [1, ['', 0, 1], null, []]);
  applied.positioned(at(20, null));
  t.same([facts(), applied.markOf(20), applied.ageMs(), breaks], [['j', 20, 21], undefined, 30, 1]);
  applied.marked(at(20));
  t.same([applied.markOf(20), applied.oldest()], ['m20', 21], 'a mark that becomes known is that of the base too');
  applied.applied([{ ...entry(21), mark: null }], at(21, null));
  applied.marked(at(21));
  t.same([applied.markOf(20), applied.markOf(21)], ['m20', 'm21']);
  lease.state = { kind: 'lapsed', currentMsAgo: -5 };
  t.equal(applied.ageMs(), 0, 'never in the future');
  lease.state = { kind: 'new' };
  t.equal(applied.ageMs(), null);
});

void t.test('who waits for renewals is told of each, until it stops', (t) => {
  const applied = createAppliedJournal(8, () => undefined);
  let renewals = 0;
  const stop = applied.onRenewal(() => {
    renewals += 1;
  });
  applied.renewed();
  applied.renewed();
  stop();
  applied.renewed();
  t.equal(renewals, 2);
  t.end();
});

void t.test('a lease is held to its last moment, and each mode says what follows', (t) => {
  const cases = [
    ['refuse', 'refuse', 'refuse', 'refuse', 'refuse'],
    ['revalidate', 'revalidate', 'revalidate', 'revalidate', 'revalidate'],
    ['serve', 'revalidate', 'yes', 'yes', 'revalidate'],
  ] as const;
  for (const [mode, fresh, lapsed, last, over] of cases) {
    const clock = new ManualClock();
    const lease = createLease({ mode, ttlMs: 100, serveMaxMs: 50 }, clock);
    t.same([lease.state(), lease.mayServe()], [{ kind: 'new' }, fresh], mode);
    lease.renewAt(clock.monotonicMs());
    clock.advance(100);
    t.same([lease.state(), lease.mayServe()], [{ kind: 'held', currentMsAgo: 100 }, 'yes'], mode);
    lease.renewAt(0 - 50);
    t.equal(lease.mayServe(), 'yes', 'an older proof takes nothing away');
    clock.advance(1);
    t.same([lease.state(), lease.mayServe()], [{ kind: 'lapsed', currentMsAgo: 101 }, lapsed], mode);
    clock.advance(49);
    t.equal(lease.mayServe(), last, mode);
    clock.advance(1);
    t.equal(lease.mayServe(), over, mode);
    lease.renewAt(clock.monotonicMs());
    t.equal(lease.mayServe(), 'yes', mode);
  }
  const gauge = createDelayGauge();
  t.same(
    [gauge.delayMs(1_000, 50), gauge.delayMs(2_000, 1_060), gauge.delayMs(3_000, 2_045), gauge.delayMs(4_000, 3_045)],
    [0, 10, 0, 0],
  );
  t.end();
});

void t.test('the position file is made anew with its folder, and for this user only', async (t) => {
  const folder = join(t.testdir(), 'a');
  const errors: unknown[] = [];
  const file = await openPositionFile(folder, (thrown) => errors.push(thrown));
  t.equal(statSync(folder).mode & 0o777, 0o700);
  t.same(await file.read(), { kind: 'absent' });
  await file.flush();
  t.same(await file.read(), { kind: 'absent' }, 'there was nothing to write');
  file.save(at(1));
  file.save(at(2, null));
  await file.flush();
  t.same(await file.read(), { kind: 'found', position: at(2, null) });
  const path = join(folder, 'journal-position.json');
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.notOk(existsSync(`${path}.tmp`));
  t.match(JSON.parse(readFileSync(path, 'utf8')), { v: 2, journal: 'j', seq: 2, mark: null });
  rmSync(folder, { recursive: true });
  file.save(at(3));
  await file.flush();
  t.same(await file.read(), { kind: 'found', position: at(3) }, 'its folder was removed meanwhile');
  t.equal(statSync(folder).mode & 0o777, 0o700);
  t.same(errors, []);
  rmSync(folder, { recursive: true });
  writeFileSync(folder, 'in its place');
  file.save(at(4));
  await t.rejects(file.flush());
  await until('the failure is told', () => errors.length === 1);
  t.same(await file.read(), { kind: 'damaged' });
  rmSync(folder);
  file.save(at(5));
  await file.flush();
  t.same(await file.read(), { kind: 'found', position: at(5) }, 'and written once it can be');
  chmodSync(folder, 0o700);
});

void t.test('a position is read if its kind of values and its checksum are right, in each version', async (t) => {
  const folder = t.testdir();
  const file = await openPositionFile(folder, () => undefined);
  const read = async (value: unknown): Promise<unknown> => {
    writeFileSync(join(folder, 'journal-position.json'), JSON.stringify(value));
    return file.read();
  };
  const checked = (v: number, journal: unknown, seq: unknown, ...mark: readonly unknown[]) => {
    const check = createHash('sha256')
      .update([v, journal, seq, ...mark].join('\n'))
      .digest('hex')
      .slice(0, 16);
    return { v, journal, seq, ...(mark.length > 0 && { mark: mark[0] }), check };
  };
  t.same(await read(checked(2, 'j', 7, 'm')), { kind: 'found', position: at(7, 'm') });
  t.same(await read(checked(2, 'j', 7, null)), { kind: 'found', position: at(7, null) });
  t.same(await read(checked(1, 'j', 7)), { kind: 'found', position: at(7, null) });
  for (const wrong of [
    checked(3, 'j', 7, 'm'),
    checked(2, 5, 7, 'm'),
    checked(2, 'j', '7', 'm'),
    checked(2, 'j', 7.5, 'm'),
    checked(2, 'j', 7, 5),
    checked(2, 'j', 7, 'm'.repeat(1_000)),
    { ...checked(2, 'j', 7, 'm'), seq: 8 },
    { ...checked(1, 'j', 7), seq: 8 },
    { ...checked(1, 'j', 7), v: 2 },
    null,
    7,
    'text',
  ]) {
    t.same(await read(wrong), { kind: 'damaged' }, JSON.stringify(wrong)?.slice(0, 60));
  }
});

void t.test('where an edge starts', (t) => {
  const found = { kind: 'found', position: at(5) } as const;
  const cases: readonly (readonly [Parameters<typeof whereToStart>, unknown])[] = [
    [[{ kind: 'absent' }, { kind: 'applied', position: at(9) }], { kind: 'empty_cache', why: 'no_position' }],
    [[{ kind: 'damaged' }, { kind: 'nothing_stored' }], { kind: 'empty_cache', why: 'damaged' }],
    [[found, { kind: 'nothing_stored' }], { kind: 'continue', position: at(5) }],
    [[found, { kind: 'unknown' }], { kind: 'empty_cache', why: 'cache_without_position' }],
    [[found, { kind: 'applied', position: at(3) }], { kind: 'continue', position: at(3) }],
    [[found, { kind: 'applied', position: at(9) }], { kind: 'continue', position: at(9) }],
    [[found, { kind: 'applied', position: { ...at(5), journal: 'k' } }], { kind: 'empty_cache', why: 'other_journal' }],
  ];
  for (const [[file, cache], wanted] of cases) t.strictSame(whereToStart(file, cache), wanted);
  t.end();
});

function confirmer(behind: EdgesBehind = NOBODY_BEHIND, everyMs = 0) {
  const clock = new ManualClock();
  const sent: {
    readonly said: unknown;
    answer: (status: number) => void;
    fail: () => void;
    readonly signal: AbortSignal;
  }[] = [];
  const outcomes: ConfirmOutcome[] = [];
  const deps = {
    ...streamDeps(
      ({ method, target, headers, body }, signal) =>
        new Promise((resolve, reject) => {
          t.same([method, target], ['POST', '/internal/v1/journal/confirm']);
          t.same(headers, [
            ['content-type', 'application/json'],
            ['edge-authorization', 'the proof'],
          ]);
          signal.addEventListener('abort', () => reject(signal.reason as Error));
          const answer = (status: number): void => resolve({ status, body: new PassThrough().end() });
          sent.push({ said: JSON.parse(String(body)), answer, fail: () => reject(new Error('reset')), signal });
        }),
      clock,
    ),
    behind: () => behind,
  };
  return { clock, sent, outcomes, confirmer: createConfirmer(deps, everyMs, (outcome) => outcomes.push(outcome)) };
}

void t.test(
  'what has not changed is confirmed again after a while, what is new or was not taken at once',
  async (t) => {
    const { clock, sent, outcomes, confirmer: own } = confirmer(NOBODY_BEHIND, 5_000);
    const confirmed = async (seq: number, status = 204): Promise<number> => {
      const before = outcomes.length;
      own.confirm(seq);
      if (sent.length === before) return sent.length;
      sent.at(-1)?.answer(status);
      await until('its outcome', () => outcomes.length === before + 1);
      return sent.length;
    };
    t.equal(await confirmed(7), 1);
    clock.advance(4_999);
    t.equal(await confirmed(7), 1);
    t.equal(await confirmed(8), 2, 'a new number');
    clock.advance(4_999);
    t.equal(await confirmed(8), 2);
    clock.advance(1);
    t.equal(await confirmed(8, 503), 3);
    t.equal(await confirmed(8), 4, 'the origin has not taken it');
    t.equal(await confirmed(8), 4);
  },
);

void t.test('one confirmation is under way at a time, and the next one has the latest number', async (t) => {
  const { sent, outcomes, confirmer: own } = confirmer();
  own.confirm(1);
  own.confirm(2);
  own.confirm(3);
  await until('the first', () => sent.length === 1);
  t.same(sent[0]?.said, { edge: 'an edge', instance: 'i', seq: 1 });
  sent[0]?.answer(204);
  await until('the next', () => sent.length === 2);
  t.same(sent[1]?.said, { edge: 'an edge', instance: 'i', seq: 3 });
  sent[1]?.answer(409);
  await until('its outcome', () => outcomes.length === 2);
  own.confirm(4);
  await until('a third', () => sent.length === 3);
  sent[2]?.answer(500);
  await until('its outcome', () => outcomes.length === 3);
  own.confirm(5);
  await until('a fourth', () => sent.length === 4);
  sent[3]?.fail();
  await until('its outcome', () => outcomes.length === 4);
  own.confirm(6);
  await until('a fifth', () => sent.length === 5);
  sent[4]?.answer(299);
  await until('its outcome', () => outcomes.length === 5);
  own.confirm(7);
  await until('a sixth', () => sent.length === 6);
  sent[5]?.answer(300);
  await until('its outcome', () => outcomes.length === 6);
  t.same(outcomes, ['confirmed', 'unknown', 'failed', 'failed', 'confirmed', 'failed']);
});

void t.test('a confirmation that takes too long has failed, and one that is closed is ended', async (t) => {
  const late = confirmer();
  late.confirmer.confirm(1);
  await until('it', () => late.sent.length === 1);
  late.clock.advance(999);
  t.equal(late.sent[0]?.signal.aborted, false);
  late.clock.advance(1);
  await until('its outcome', () => late.outcomes.length === 1);
  t.same(late.outcomes, ['failed']);
  const closed = confirmer();
  closed.confirmer.confirm(1);
  closed.confirmer.confirm(2);
  await until('it', () => closed.sent.length === 1);
  await closed.confirmer.close();
  t.equal(closed.sent[0]?.signal.aborted, true);
  t.equal(closed.sent.length, 1, 'nothing more is sent');
});

void t.test('an edge says that it leaves after what it is confirming, unless others follow through it', async (t) => {
  const { sent, confirmer: own } = confirmer();
  own.confirm(7);
  await until('it', () => sent.length === 1);
  own.confirm(8);
  const leaving = own.leave();
  await new Promise(setImmediate);
  t.equal(sent.length, 1);
  sent[0]?.answer(204);
  await until('its farewell', () => sent.length === 2);
  t.same(sent[1]?.said, { edge: 'an edge', instance: 'i', seq: 8, leaves: true });
  sent[1]?.answer(204);
  await leaving;
  const first = confirmer();
  const gone = first.confirmer.leave();
  await until('its farewell', () => first.sent.length === 1);
  t.same(
    first.sent[0]?.said,
    { edge: 'an edge', instance: 'i', seq: 0, leaves: true },
    'also one that has confirmed nothing',
  );
  let left = false;
  const leftThen = gone.then(() => (left = true));
  await new Promise(setImmediate);
  t.equal(left, false, 'it waits for the answer');
  first.sent[0]?.answer(204);
  await leftThen;
  for (const behind of [
    { connected: [{ seq: 1, edges: 1 }], away: [] },
    { connected: [], away: [{ seq: 1, edges: 1 }] },
  ]) {
    const before = confirmer(behind);
    await before.confirmer.leave();
    t.equal(before.sent.length, 0);
  }
  t.ok(new SessionEnded('closing') instanceof Error);
});
