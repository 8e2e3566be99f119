/** The journal of a database that several origins write, as one of them tells it. No server is needed. */
import t from 'tap';
import { openJournal, type PolledJournal } from '../../../../origin/meta/postgres/journal.js';
import type { Beat } from '../../../../origin/meta/postgres/registry.js';
import { JOURNAL_ROWS, type Row } from '../../../../origin/meta/postgres/rows.js';
import { createIdSource } from '../../../../src/ids.js';
import { FIRST_MARK, type JournalEntry } from '../../../../src/journal/entry.js';
import { createLog } from '../../../../src/log.js';
import { ManualClock } from '../../../kit/clock.js';
import { createRecordedPool } from '../../../kit/postgres/recorded-pool.js';

const POLL_MS = 100;
const newId = createIdSource({ now: () => 1_767_225_600_000 });

const entry = (seq: number, mark = `m${seq}`): JournalEntry => ({
  seq,
  mark: mark,
  at: seq,
  cause: 'delete',
  ids: [newId()],
});

/** The table of entries, in their order. A read may be made to fail or to wait. */
class Table {
  entries: JournalEntry[] = [];
  reads = 0;
  fails = false;
  held: Promise<void> | null = null;
  gone: readonly number[] = [];

  async answer({ sql, parameters }: { readonly sql: string; readonly parameters: readonly unknown[] }): Promise<Row[]> {
    const rows = this.entries.map((one) => JOURNAL_ROWS.rowOf(one.seq, one));
    if (sql.startsWith('SELECT seq, mark')) return rows.toReversed();
    if (sql.startsWith('SELECT min')) return [{ seq: this.entries[0]?.seq ?? null }];
    if (sql.startsWith('DELETE')) return this.gone.map((seq) => ({ seq }));
    this.reads += 1;
    const found = rows.filter(({ seq }) => Number(seq) >= Number(parameters[0])).slice(0, Number(parameters[1]));
    await this.held;
    if (this.fails) throw new Error('the connection was lost');
    return found;
  }
}

async function opened(given: readonly JournalEntry[] = [], beats = true) {
  const table = new Table();
  table.entries = [...given];
  const clock = new ManualClock();
  const lines: string[] = [];
  const log = createLog('test', { level: 'info' }, { write: (text: string) => void lines.push(text) });
  let listener: ((beat: Beat) => Promise<void>) | undefined;
  const registry = {
    onBeat: (told: (beat: Beat) => Promise<void>) => {
      listener = told;
      return () => (listener = undefined);
    },
  };
  const pool = createRecordedPool((statement) => table.answer(statement));
  const journal = await openJournal({
    pool,
    name: 'one',
    registry: beats ? registry : null,
    pollMs: POLL_MS,
    clock,
    log,
  });
  const heard: number[] = [];
  journal.subscribe(({ seq }) => void heard.push(seq));
  const poll = async (): Promise<void> => {
    clock.advance(POLL_MS);
    await turns();
  };
  const beat = (one: Beat): Promise<void> => listener?.(one) ?? Promise.reject(new Error('nobody listens'));
  const warnings = (): readonly string[] =>
    lines.filter((line) => !line.includes('bug')).map((line) => String((JSON.parse(line) as { msg: unknown }).msg));
  return { table, clock, journal, heard, poll, beat, warnings, isHeard: () => listener !== undefined };
}

async function turns(): Promise<void> {
  for (let count = 0; count < 3; count += 1) await new Promise(setImmediate);
}

const known = (journal: PolledJournal) => [journal.oldest(), journal.newest()];

void t.test('it begins with what the database has, and finds what others commit', async (t) => {
  const { table, clock, journal, heard, poll } = await opened([entry(3), entry(4)]);
  t.same(known(journal), [3, 4]);
  t.same(
    [0, 2, 3, 4, 5].map((seq) => journal.markOf(seq)),
    [FIRST_MARK, undefined, 'm3', 'm4', undefined],
  );
  clock.advance(POLL_MS - 1);
  t.equal(table.reads, 0);
  table.entries.push(entry(5), entry(6));
  clock.advance(1);
  await turns();
  t.same(heard, [5, 6], 'each once, in their order');
  t.same(known(journal), [3, 6]);
  t.equal(journal.markOf(6), 'm6');
  await poll();
  t.same(heard, [5, 6]);
  t.equal(table.reads, 2, 'it goes on asking');
  t.same(
    (await journal.read(4, 1)).map(({ seq }) => seq),
    [5],
  );

  const empty = await opened();
  t.same(known(empty.journal), [1, 0]);
  empty.table.entries.push(entry(1));
  await empty.poll();
  t.same(empty.heard, [1]);
});

void t.test('many new entries are read in pages', async (t) => {
  const { table, journal, heard, poll } = await opened([entry(1)]);
  table.entries.push(...Array.from({ length: 600 }, (_, at) => entry(at + 2)));
  await poll();
  t.same(
    heard,
    table.entries.slice(1).map(({ seq }) => seq),
  );
  t.equal(table.reads, 3, 'of which each has 256 at the most');
  t.equal(journal.newest(), 601);
});

void t.test('an own commit is told at once, also while an earlier poll is under way', async (t) => {
  const { table, clock, journal, heard } = await opened([entry(1)]);
  let letGo = (): void => undefined;
  table.held = new Promise((resolve) => (letGo = resolve));
  clock.advance(POLL_MS);
  table.entries.push(entry(2));
  const told = journal.committed([entry(2)]);
  letGo();
  await told;
  t.same(heard, [2], 'the earlier poll could not know of it');
  t.equal(table.reads, 2);
  await journal.committed([]);
  t.equal(table.reads, 2, 'without entries nothing is asked');
});

void t.test('a listener that fails keeps no other from hearing, and one that has left hears nothing', async (t) => {
  const { table, journal, poll } = await opened();
  const heard: string[] = [];
  const leave = journal.subscribe(() => void heard.push('left'));
  journal.subscribe(() => {
    throw new Error('no');
  });
  journal.subscribe(({ seq }) => void heard.push(String(seq)));
  leave();
  table.entries.push(entry(1));
  await poll();
  t.same(heard, ['1']);
});

void t.test('a journal that cannot be read is said once, and read again', async (t) => {
  const { table, heard, poll, beat, warnings, journal } = await opened();
  table.fails = true;
  await poll();
  await poll();
  await beat({ begunMs: 1, seq: 0, mark: null });
  t.equal(journal.proof.ageMs(), null, 'nothing is proved meanwhile');
  t.same(warnings(), ['the journal cannot be read at the moment']);
  table.fails = false;
  table.entries.push(entry(1));
  await poll();
  t.same(heard, [1]);
  await poll();
  t.same(warnings().slice(1), ['the journal can be read again']);
});

void t.test('a beat proves what has been told, if its newest entry was', async (t) => {
  const { table, clock, journal, heard, beat } = await opened([entry(1)]);
  const { proof } = journal;
  t.same([proof.isOwn, proof.ageMs()], [false, null]);
  let renewals = 0;
  const leave = proof.onRenewal(() => (renewals += 1));
  clock.advance(50);
  await beat({ begunMs: 20, seq: 1, mark: 'm1' });
  t.equal(proof.ageMs(), 30, 'counted from the beginning of the beat');
  t.equal(renewals, 1);
  table.entries.push(entry(2));
  await beat({ begunMs: 40, seq: 2, mark: 'm2' });
  t.same(heard, [2], 'it is told before it is proved');
  t.equal(proof.ageMs(), 10);
  for (const wrong of [
    { begunMs: 45, seq: 2, mark: 'other' },
    { begunMs: 45, seq: 3, mark: 'm3' },
  ]) {
    await beat(wrong);
    t.equal(proof.ageMs(), 10, 'a beat of another history, or one that is ahead, proves nothing');
  }
  await beat({ begunMs: 30, seq: 2, mark: 'm2' });
  t.equal(proof.ageMs(), 10, 'nor does an older one');
  leave();
  await beat({ begunMs: 50, seq: 0, mark: null });
  t.equal(proof.ageMs(), 0);
  t.equal(renewals, 3);
  const alone = await opened([], false);
  t.same([alone.journal.proof.isOwn, alone.journal.proof.ageMs()], [true, 0], 'who writes alone needs no beat');
});

void t.test('a database that goes on from an earlier state makes every edge start again', async (t) => {
  for (const [name, left] of [
    ['it lacks the newest entry', [entry(1)]],
    ['another entry has its number', [entry(1), entry(2, 'other'), entry(3)]],
    ['it is empty', []],
  ] as const) {
    const { table, journal, heard, poll, warnings } = await opened([entry(1), entry(2)]);
    let resets = 0;
    const stay = journal.onReset(() => (resets += 1));
    journal.onReset(() => void heard.push(-1))();
    table.entries = [...left];
    await poll();
    t.equal(resets, 1, name);
    t.same(heard, [], 'what it has now is not told as new');
    t.same(known(journal), [left[0]?.seq ?? 1, left.at(-1)?.seq ?? 0], name);
    t.equal(journal.markOf(2), left[1]?.mark, name);
    t.match(warnings(), [/every edge starts again/]);
    stay();
    table.entries.push(entry(left.length + 1));
    await poll();
    t.same(heard, [left.length + 1], 'it goes on from there');
    t.equal(resets, 1);
  }
});

void t.test('what is trimmed is forgotten', async (t) => {
  const { table, journal } = await opened([entry(1), entry(2), entry(3)]);
  t.equal(await journal.trim(9), 0);
  t.equal(journal.oldest(), 1);
  table.gone = [1, 2];
  table.entries.splice(0, 2);
  t.equal(await journal.trim(9), 2);
  t.equal(journal.oldest(), 3);
  t.same(
    [1, 2, 3].map((seq) => journal.markOf(seq)),
    [undefined, undefined, 'm3'],
  );
  table.gone = [3];
  table.entries = [];
  await journal.trim(9);
  t.equal(journal.oldest(), 4, 'the next one that there will be');
});

void t.test('it closes once its poll has ended, and asks nothing afterwards', async (t) => {
  const { table, clock, journal, isHeard } = await opened();
  let letGo = (): void => undefined;
  table.held = new Promise((resolve) => (letGo = resolve));
  clock.advance(POLL_MS);
  let closed = false;
  const closing = journal.close().then(() => (closed = true));
  await turns();
  t.equal(closed, false);
  letGo();
  await closing;
  await turns();
  t.equal(clock.pending, 0);
  t.equal(isHeard(), false, 'beats are no longer heard');
  t.equal(table.reads, 1);
  const idle = await opened();
  await idle.journal.close();
  t.equal(idle.clock.pending, 0);
});
