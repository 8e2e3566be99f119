/** What origin and edges write to each other, value by value: lines of the journal, confirmations, reports of uses, and the file of known edges. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t from 'tap';
import { Fault } from '../../../src/errors.js';
import { parseMediaId } from '../../../src/ids.js';
import {
  CONFIRMATION_MAX_BYTES,
  type Confirmation,
  edgesIn,
  formatConfirmation,
  NOBODY_BEHIND,
  parseConfirmation,
  summed,
} from '../../../src/journal/confirmation.js';
import { parseLine } from '../../../src/journal/entry.js';
import { openKnownEdges } from '../../../src/journal/known-edges.js';
import {
  formatUseReport,
  parseUseReport,
  USE_REPORT_IDS_MAX,
  USE_REPORT_MAX_BYTES,
} from '../../../src/journal/use-report.js';
import { readSmallBody } from '../../../src/server/small-body.js';
import { testDeps } from '../../kit/deps.js';

const ID = '01ARZ3NDEKTSV4RRFFQ69G5FAV';
const BIG = Number.MAX_SAFE_INTEGER;
/** No number of an entry, whatever field it stands in. */
const NO_SEQ = [-1, 1.5, BIG + 1, '1', null, true, [], {}];

/** Each field of a valid object by itself with values that are taken and values that are not. */
type Values = Readonly<Record<string, { readonly good: readonly unknown[]; readonly bad: readonly unknown[] }>>;

void t.test('a line of the journal is read only if each field is what it must be', async (t) => {
  const seq = { good: [0, 1, BIG], bad: NO_SEQ };
  const mark = { good: ['', 'm', 'm'.repeat(64), null], bad: ['m'.repeat(65), 7, true, [], {}] };
  const lines: readonly (readonly [base: Readonly<Record<string, unknown>>, fields: Values])[] = [
    [
      { t: 'hello', journal: 'j', oldest: 1, newest: 9, mark: 'm', beatMs: 1_000 },
      {
        journal: { good: ['', 'k'], bad: [1, null] },
        oldest: seq,
        newest: seq,
        mark,
        beatMs: seq,
        usesEveryMs: { good: [1, BIG], bad: [0, ...NO_SEQ] },
        confirmEveryMs: { good: [0, BIG], bad: NO_SEQ },
      },
    ],
    [
      { t: 'entry', seq: 3, mark: 'm', at: 5, cause: 'delete', ids: [ID] },
      {
        seq,
        mark,
        at: seq,
        cause: {
          good: ['delete', 'quarantine', 'restore', 'expire', 'visibility'],
          bad: ['', 'Delete', 'none', 1, null],
        },
        ids: { good: [[], [ID, ID]], bad: ['', null, [ID, 'x'], ['x', ID], [1], [ID, null]] },
      },
    ],
    [
      { t: 'beat', newest: 9, mark: 'm', at: 7, ageMs: 4 },
      { newest: seq, mark, at: seq, ageMs: seq },
    ],
    [
      { t: 'gap', newest: 9, mark: 'm' },
      { newest: seq, mark },
    ],
  ];
  for (const [base, fields] of lines) {
    t.strictSame(parseLine(JSON.stringify({ ...base, more: 1 })), base, 'unknown members are passed over');
    for (const [name, { good, bad }] of Object.entries(fields)) {
      for (const value of good)
        t.strictSame(parseLine(JSON.stringify({ ...base, [name]: value })), { ...base, [name]: value });
      for (const value of bad) {
        const text = JSON.stringify({ ...base, [name]: value });
        t.equal(parseLine(text), undefined, text.slice(0, 120));
      }
    }
  }
  for (const text of ['', 'x', '1', 'null', '"hello"', '[]', '{}', '{"t":"other"}', '{"t":null}']) {
    t.equal(parseLine(text), undefined, text);
  }
});

const SAID: Confirmation = { edge: 'e', instance: 'i', seq: 4, behind: NOBODY_BEHIND, leaves: false };

void t.test('a confirmation is read only if each field is what it must be', async (t) => {
  const pairs = (count: number) => Array.from({ length: count }, () => [1, 1]);
  const fields: Values = {
    edge: { good: ['x', 'x'.repeat(128)], bad: ['', 'x'.repeat(129), 1, null] },
    instance: { good: ['x', 'x'.repeat(64)], bad: ['', 'x'.repeat(65), 1, null] },
    seq: { good: [0, BIG], bad: NO_SEQ },
    leaves: { good: [true, false], bad: [null, 0, 'true'] },
    behind: {
      good: [],
      bad: [
        null,
        7,
        'x',
        {},
        { connected: [] },
        { away: [] },
        { connected: {}, away: [] },
        { connected: [], away: 'x' },
        { connected: [[1]], away: [] },
        { connected: [[1, 1, 1]], away: [] },
        { connected: [[1, 1], 2], away: pairs(1) },
        { connected: pairs(1), away: [[1, 1], [1]] },
        { connected: [], away: [['1', 1]] },
        { connected: [], away: [[1, '1']] },
        { connected: [[-1, 1]], away: [] },
        { connected: pairs(33), away: [] },
        { connected: [], away: pairs(33) },
      ],
    },
  };
  const base = { edge: 'e', instance: 'i', seq: 4 };
  t.strictSame(parseConfirmation(JSON.stringify(base)), SAID);
  for (const [name, { good, bad }] of Object.entries(fields)) {
    for (const value of good) {
      t.strictSame(parseConfirmation(JSON.stringify({ ...base, [name]: value })), { ...SAID, [name]: value });
    }
    for (const value of bad) {
      const text = JSON.stringify({ ...base, [name]: value });
      t.equal(parseConfirmation(text), undefined, text.slice(0, 120));
    }
  }
  const many = parseConfirmation(JSON.stringify({ ...base, behind: { connected: pairs(32), away: pairs(32) } }));
  t.strictSame([many?.behind.connected.length, many?.behind.away.length], [32, 32]);
  t.strictSame(many?.behind.away[31], { seq: 1, edges: 1 });
  const none = parseConfirmation(JSON.stringify({ ...base, behind: { connected: [], away: pairs(1) } }));
  t.strictSame(none?.behind, { connected: [], away: [{ seq: 1, edges: 1 }] });
  for (const text of ['', 'null', '1', '[]']) t.equal(parseConfirmation(text), undefined, text);
});

void t.test('a confirmation says no more than it must', async (t) => {
  const count = { seq: 3, edges: 2 };
  const cases: readonly (readonly [Partial<Confirmation>, string])[] = [
    [{}, '{"edge":"e","instance":"i","seq":4}'],
    [{ leaves: true }, '{"edge":"e","instance":"i","seq":4,"leaves":true}'],
    [
      { behind: { connected: [count], away: [] } },
      '{"edge":"e","instance":"i","seq":4,"behind":{"connected":[[3,2]],"away":[]}}',
    ],
    [
      { behind: { connected: [], away: [count, count] } },
      '{"edge":"e","instance":"i","seq":4,"behind":{"connected":[],"away":[[3,4]]}}',
    ],
  ];
  for (const [said, text] of cases) t.equal(formatConfirmation({ ...SAID, ...said }), text);
  const counts = Array.from({ length: 200 }, (_, at) => ({ seq: BIG - at, edges: 1_000_000 }));
  const largest = formatConfirmation({
    edge: 'e'.repeat(128),
    instance: 'i'.repeat(64),
    seq: BIG,
    behind: { connected: counts, away: counts },
    leaves: true,
  });
  t.ok(largest.length <= CONFIRMATION_MAX_BYTES, String(largest.length));
  t.equal(parseConfirmation(largest)?.behind.connected.length, 32);
});

void t.test('counts are one for each number, newest first, and beyond 32 the lowest are one', async (t) => {
  t.strictSame(summed([]), []);
  t.strictSame(
    summed([
      { seq: 1, edges: 2 },
      { seq: 5, edges: 1 },
      { seq: 1, edges: 3 },
      { seq: 9, edges: 1 },
    ]),
    [
      { seq: 9, edges: 1 },
      { seq: 5, edges: 1 },
      { seq: 1, edges: 5 },
    ],
  );
  const each = (count: number) => Array.from({ length: count }, (_, at) => ({ seq: count - at, edges: 10 }));
  t.strictSame(summed(each(32)), each(32));
  t.strictSame(summed(each(34)), [...each(34).slice(0, 31), { seq: 1, edges: 30 }]);
  const three = [
    { seq: 3, edges: 1 },
    { seq: 2, edges: 10 },
    { seq: 1, edges: 100 },
  ];
  t.strictSame(
    [edgesIn(three), edgesIn(three, 1), edgesIn(three, 2), edgesIn(three, 3), edgesIn(three, 4)],
    [111, 111, 11, 1, 0],
  );
  t.equal(edgesIn([]), 0);
});

void t.test(
  'a report of uses is read back as written, and refused as a whole if anything in it is wrong',
  async (t) => {
    const id = parseMediaId(ID);
    if (id === undefined) throw new Error('it is an id');
    const report = {
      uses: [
        { agoMs: 0, ids: [id] },
        { agoMs: 9, ids: [] },
      ],
    };
    t.equal(formatUseReport(report), `{"uses":[{"agoMs":0,"ids":["${ID}"]},{"agoMs":9,"ids":[]}]}`);
    t.strictSame(parseUseReport(formatUseReport(report)), report);
    t.strictSame(parseUseReport('{"uses":[]}'), { uses: [] });
    const good = { agoMs: 1, ids: [ID] };
    for (const wrong of [
      { agoMs: -1 },
      { agoMs: 1.5 },
      { agoMs: BIG + 1 },
      { agoMs: '1' },
      { agoMs: null },
      { ids: ID },
      { ids: null },
      { ids: [ID, 'x'] },
      { ids: ['x', ID] },
      { ids: [1] },
    ]) {
      const text = JSON.stringify({ uses: [good, { ...good, ...wrong }] });
      t.equal(parseUseReport(text), undefined, text);
    }
    for (const text of [
      '',
      'x',
      'null',
      '1',
      '[]',
      '{}',
      '{"uses":{}}',
      '{"uses":[null]}',
      '{"uses":[1]}',
      '{"uses":[[]]}',
    ]) {
      t.equal(parseUseReport(text), undefined, text);
    }
    const full = Array.from({ length: USE_REPORT_IDS_MAX - 1 }, () => id);
    const most = {
      uses: [
        { agoMs: 1, ids: [id] },
        { agoMs: BIG, ids: full },
      ],
    };
    const text = formatUseReport(most);
    t.ok(Buffer.byteLength(text) <= USE_REPORT_MAX_BYTES);
    t.strictSame(parseUseReport(text), most);
    t.equal(parseUseReport(formatUseReport({ uses: [...most.uses, { agoMs: 1, ids: [id] }] })), undefined);
  },
);

void t.test(
  'the file of known edges is replaced as a whole, and what is not an edge in it is passed over',
  async (t) => {
    const folder = t.testdir();
    const path = join(folder, 'edges.json');
    const { log, lines } = testDeps();
    const edge = { edge: 'a', instance: 'i', behind: 2 };
    const file = await openKnownEdges(path, log);
    file.save(() => [edge]);
    await file.close();
    t.equal(await readFile(path, 'utf8'), '{"v":1,"edges":[{"edge":"a","instance":"i","behind":2}]}\n');
    t.strictSame(await readdir(folder), ['edges.json'], 'no staged file is left');
    const odd = [
      null,
      7,
      {},
      { ...edge, edge: 1 },
      { ...edge, instance: null },
      { ...edge, behind: -1 },
      { ...edge, behind: '2' },
    ];
    await writeFile(path, JSON.stringify({ v: 1, edges: [...odd, edge] }));
    t.strictSame((await openKnownEdges(path, log)).known, [edge]);
    t.strictSame(lines, []);
  },
);

void t.test(
  'a list that cannot be written is logged, leaves nothing behind, and the next one is written',
  async (t) => {
    const folder = t.testdir();
    const path = join(folder, 'edges.json');
    const { log, lines } = testDeps();
    const file = await openKnownEdges(path, log);
    await mkdir(join(path, 'in the way'), { recursive: true });
    const saved: number[] = [];
    file.save(() => {
      saved.push(1);
      return [];
    });
    file.save(() => {
      saved.push(2);
      return [];
    });
    await file.close();
    t.strictSame(saved, [1, 2], 'each call was answered by a write');
    t.equal(lines.length, 2);
    t.match(lines, [{ msg: 'the list of known edges could not be written' }]);
    t.strictSame(await readdir(folder), ['edges.json']);
    await file.close();
  },
);

void t.test('a small body is read up to its limit, and not once its reader has left', async (t) => {
  const body = (...pieces: readonly string[]): IncomingMessage =>
    Readable.from(pieces.map((piece) => Buffer.from(piece))) as IncomingMessage;
  const tooLong = (): Fault => new Fault('too_large', 'It is too long.');
  const { signal } = new AbortController();
  t.equal(await readSmallBody(body(), 3, tooLong, signal), '');
  t.equal(await readSmallBody(body('a', 'bc'), 3, tooLong, signal), 'abc');
  await t.rejects(readSmallBody(body('a', 'bcd'), 3, tooLong, signal), { code: 'too_large' });
  await t.rejects(readSmallBody(body('a'), 3, tooLong, AbortSignal.abort(new Error('left'))), { message: 'left' });
});
