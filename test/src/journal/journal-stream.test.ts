/** The journal stream as an edge reads it, over real connections. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { type JournalConfig, journalSection } from '../../../origin/edges/origin-journal.js';
import { type EdgesBehind, NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import { createConfirmations, type KnownEdge } from '../../../src/journal/confirmations.js';
import { CONFIRM_PATH, JOURNAL_PATH, type JournalLine, parseLine } from '../../../src/journal/entry.js';
import { createJournalStream, type JournalStream } from '../../../src/journal/journal-stream.js';
import { openKnownEdges } from '../../../src/journal/known-edges.js';
import { ALWAYS_CURRENT } from '../../../src/journal/source.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { sendRequest } from '../../kit/http/request.js';
import { connectedEdges, MemoryJournal, mediaId } from '../../kit/origin/journal.js';
import { journalHandler, PROOF } from '../../kit/origin/journal-origin.js';
import { until } from '../../kit/until.js';

interface Bench {
  readonly url: string;
  readonly clock: ManualClock;
  readonly journal: MemoryJournal;
  readonly stream: JournalStream;
  readonly sample: (name: string) => Promise<number>;
}

async function openOrigin(t: Test, values: Partial<JournalConfig> = {}, journal = new MemoryJournal()): Promise<Bench> {
  const clock = new ManualClock();
  const { log, metrics, sample } = testDeps();
  const config = configured(journalSection, values);
  const stream = createJournalStream({
    journal,
    proof: ALWAYS_CURRENT,
    usesEveryMs: () => undefined,
    config,
    isEdge: (proof) => proof === PROOF,
    clock,
    log,
    metrics,
  });
  const server = createServer(journalHandler(stream));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(async () => {
    await stream.close();
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, clock, journal, stream, sample };
}

interface Reading {
  readonly lines: JournalLine[];
  readonly seqs: () => number[];
  readonly response: IncomingMessage;
  readonly over: () => boolean;
  leave(): void;
}

async function follow(t: Test, bench: Bench, query: Readonly<Record<string, string>>, read = true): Promise<Reading> {
  const parameters = new URLSearchParams({ edge: 'edge-1', instance: 'i1', ...query });
  const sent = httpRequest(`${bench.url}${JOURNAL_PATH}?${parameters.toString()}`, {
    headers: { 'edge-authorization': PROOF },
    agent: false,
  });
  sent.on('error', () => {});
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  t.equal(response.statusCode, 200);
  const lines: JournalLine[] = [];
  let over = false;
  let rest = '';
  response.on('error', () => {});
  response.on('close', () => (over = true));
  if (read) {
    response.setEncoding('utf8').on('data', (chunk: string) => {
      const texts = (rest + chunk).split('\n');
      rest = texts.pop() ?? '';
      for (const text of texts) {
        const line = parseLine(text);
        if (line === undefined) t.fail(`not a line: ${text}`);
        else lines.push(line);
      }
    });
  }
  t.teardown(() => sent.destroy());
  return {
    lines,
    seqs: () => lines.flatMap((line) => (line.t === 'entry' ? [line.seq] : [])),
    response,
    over: () => over,
    leave: () => sent.destroy(),
  };
}

function confirm(bench: Bench, seq: number, edge = 'edge-1', instance = 'i1'): Promise<{ status: number }> {
  return sendRequest(bench.url + CONFIRM_PATH, {
    method: 'POST',
    headers: { 'edge-authorization': PROOF },
    body: JSON.stringify({ edge, instance, seq }),
  });
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, index) => from + index);

function fill(journal: MemoryJournal, count: number): void {
  for (let index = 0; index < count; index += 1) journal.add('delete', [mediaId(index)]);
}

void t.test('without the edge secret the journal looks as if it did not exist', async (t) => {
  const bench = await openOrigin(t);
  for (const headers of [{}, { 'edge-authorization': 'wrong' }]) {
    const read = await sendRequest(`${bench.url}${JOURNAL_PATH}?edge=e&instance=i`, { headers });
    const confirmed = await sendRequest(bench.url + CONFIRM_PATH, { method: 'POST', headers, body: '{}' });
    for (const response of [read, confirmed]) {
      t.equal(response.status, 404);
      t.notMatch(response.bytes.toString(), /journal|edge/i);
    }
  }
  const proven = { 'edge-authorization': PROOF };
  for (const query of [
    '',
    'edge=e',
    'instance=i',
    'edge=e&instance=i&from=-1',
    'edge=e&instance=i&from=x',
    `edge=e&instance=i&from=1&mark=${'m'.repeat(65)}`,
    `edge=${'e'.repeat(129)}&instance=i`,
  ]) {
    t.equal((await sendRequest(`${bench.url}${JOURNAL_PATH}?${query}`, { headers: proven })).status, 400, query);
  }
  for (const body of ['', '{}', '{"edge":"e","instance":"i","seq":"1"}', 'x'.repeat(5_000)]) {
    t.equal(
      (await sendRequest(bench.url + CONFIRM_PATH, { method: 'POST', headers: proven, body })).status,
      400,
      body.slice(0, 40),
    );
  }
});

void t.test(
  'a stream begins with hello and a beat, then has old and new entries, each once and in order',
  async (t) => {
    const bench = await openOrigin(t, { batchMax: 3, beatMs: 1_000 });
    fill(bench.journal, 10);
    const reading = await follow(t, bench, { from: '4' });
    await until('the old entries', () => reading.seqs().length === 6);
    bench.journal.add('quarantine', [mediaId(100), mediaId(101)], 5);
    await until('the new entry', () => reading.seqs().length === 7);
    bench.clock.advance(1_000);
    await until('the next beat', () => reading.lines.filter((line) => line.t === 'beat').length === 2);
    const mark = bench.journal.markOf(10);
    t.same(reading.lines[0], {
      t: 'hello',
      journal: 'journal-a',
      oldest: 1,
      newest: 10,
      mark,
      beatMs: 1_000,
      confirmEveryMs: 5_000,
    });
    t.match(reading.lines[1], { t: 'beat', newest: 10 });
    t.same(reading.seqs(), range(5, 11));
    t.same(reading.lines.at(-2), {
      t: 'entry',
      seq: 11,
      mark: bench.journal.markOf(11),
      at: 5,
      cause: 'quarantine',
      ids: [mediaId(100), mediaId(101)],
    });
    t.same(reading.lines.at(-1), {
      t: 'beat',
      newest: 11,
      mark: bench.journal.markOf(11),
      at: bench.clock.now(),
      ageMs: 0,
    });

    const fresh = await follow(t, bench, { instance: 'i2' });
    bench.journal.add('delete', [mediaId(1)]);
    await until('only the new entry', () => fresh.seqs().length === 1);
    t.same(fresh.seqs(), [12], 'an edge with an empty cache needs no old entries');
  },
);

void t.test('no entry is lost or sent twice, however appends and reads interleave', async (t) => {
  const bench = await openOrigin(t, { batchMax: 2 });
  const steps = fc.array(fc.oneof(fc.constant('turn'), fc.constant('add'), fc.constant('burst')), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(steps, fc.nat(5), async (steps, back) => {
      const from = Math.max(0, bench.journal.newest() - back);
      const reading = await follow(t, bench, { from: String(from) });
      for (const step of steps) {
        if (step === 'turn') await new Promise(setImmediate);
        else fill(bench.journal, step === 'add' ? 1 : 5);
      }
      const newest = bench.journal.newest();
      await until('all entries', () => reading.seqs().length >= newest - from);
      t.same(reading.seqs(), range(from + 1, newest));
      reading.leave();
    }),
    { numRuns: 25 },
  );
  await until('all edges to be gone', () => connectedEdges(bench.stream).length === 0);
  t.equal(bench.journal.listeners, 0, 'no listener is left for edges that have gone');
});

void t.test('an edge gets a gap for entries that the journal no longer has, or never had', async (t) => {
  const bench = await openOrigin(t);
  fill(bench.journal, 10);
  bench.journal.forget(4);
  const table: readonly (readonly [Readonly<Record<string, string>>, 'gap' | 'entries'])[] = [
    [{ from: '4', edge: 'a' }, 'entries'],
    [{ from: '3', edge: 'b' }, 'gap'],
    [{ from: '10', edge: 'c' }, 'entries'],
    [{ from: '11', edge: 'd' }, 'gap'],
    [{ from: '7', journal: 'journal-a', edge: 'e' }, 'entries'],
    [{ from: '7', journal: 'another', edge: 'f' }, 'gap'],
    [{ from: '10', journal: 'another', edge: 'g' }, 'gap'],
    [{ from: '7', mark: bench.journal.markOf(7) ?? '', edge: 'h' }, 'entries'],
    [{ from: '7', mark: bench.journal.markOf(8) ?? '', edge: 'i' }, 'gap'],
    [{ from: '4', mark: 'what it was is not known any more', edge: 'j' }, 'gap'],
  ];
  for (const [query, wanted] of table) {
    const reading = await follow(t, bench, query);
    await until('the first lines', () => reading.lines.some((line) => line.t === 'beat'));
    const gap = reading.lines.find((line) => line.t === 'gap');
    t.same(
      gap,
      wanted === 'gap' ? { t: 'gap', newest: 10, mark: bench.journal.markOf(10) } : undefined,
      JSON.stringify(query),
    );
    const position = bench.stream.positions().find(({ edge }) => edge === query['edge']);
    t.equal(
      position?.confirmed,
      wanted === 'gap' ? 0 : Number(query['from']),
      'a number of another journal confirms nothing',
    );
  }
});

void t.test('a slow edge gets a gap, not entries with a hole, when the journal is trimmed', async (t) => {
  const bench = await openOrigin(t, { batchMax: 2, keepMs: 60_000 });
  const reading = await follow(t, bench, { from: '0' });
  fill(bench.journal, 6);
  bench.journal.forget(5);
  await until('the gap', () => reading.lines.some((line) => line.t === 'gap'));
  t.same(reading.seqs(), range(1, reading.seqs().length), 'no hole before the gap');
  t.same(
    reading.lines.find((line) => line.t === 'gap'),
    { t: 'gap', newest: 6, mark: bench.journal.markOf(6) },
  );
  bench.journal.add('delete', [mediaId(7)], bench.clock.now());
  await until('what comes after', () => reading.seqs().includes(7));

  await bench.clock.advanceAsync(60_000);
  t.equal(bench.journal.oldest(), 6, 'entries older than `keep` are removed, except the last of them');
});

void t.test('the number of edges is limited, and an edge that reconnects replaces its own stream', async (t) => {
  const bench = await openOrigin(t, { edgesMax: 2 });
  const first = await follow(t, bench, { edge: 'a', from: '0' });
  await follow(t, bench, { edge: 'b', from: '0' });
  const third = await sendRequest(`${bench.url}${JOURNAL_PATH}?edge=c&instance=i1`, {
    headers: { 'edge-authorization': PROOF },
  });
  t.equal(third.status, 503);
  t.equal(third.headers['retry-after'], '5');
  t.equal(await bench.sample('journal_streams_refused_total'), 1);
  await follow(t, bench, { edge: 'a', from: '0' });
  await until('the old stream to end', () => first.over());
  t.same(
    connectedEdges(bench.stream)
      .map(({ edge }) => edge)
      .sort(),
    ['a', 'b'],
  );
  t.equal(await bench.sample('journal_edges'), 2);
  t.equal(await bench.sample('journal_streams_ended_total{reason="replaced"}'), 1);
});

void t.test('an edge that confirms nothing is disconnected; one that confirms stays', async (t) => {
  const bench = await openOrigin(t, { beatMs: 1_000, silenceMaxMs: 3_000 });
  const silent = await follow(t, bench, { edge: 'silent', from: '0' });
  const alive = await follow(t, bench, { edge: 'alive', from: '0' });
  for (let second = 0; second < 5; second += 1) {
    bench.clock.advance(1_000);
    if (connectedEdges(bench.stream).some(({ edge }) => edge === 'alive')) {
      t.equal((await confirm(bench, 0, 'alive')).status, 204);
    }
  }
  await until('the silent edge to be disconnected', () => silent.over());
  t.same(
    connectedEdges(bench.stream).map(({ edge }) => edge),
    ['alive'],
  );
  t.notOk(alive.over());
  t.equal((await confirm(bench, 0, 'silent')).status, 409, 'a disconnected edge cannot confirm');
  t.equal((await confirm(bench, 5, 'alive')).status, 409, 'an entry that does not exist cannot be confirmed');
  bench.journal.elsewhere = () => fill(bench.journal, 5);
  t.equal((await confirm(bench, 5, 'alive')).status, 204, 'unless another origin has added it');
  t.same(
    bench.stream.positions().map(({ edge, connected }) => [edge, connected]),
    [
      ['silent', false],
      ['alive', true],
    ],
  );
});

void t.test('an edge that does not read takes a limited amount of memory', async (t) => {
  const bench = await openOrigin(t, { batchMax: 16 });
  const ids = range(1, 400).map(mediaId);
  for (let index = 0; index < 3_000; index += 1) bench.journal.add('quarantine', ids);
  const reading = await follow(t, bench, { from: '0' }, false);
  let before = -1;
  await until('the reading of the journal to stop', () => {
    const now = bench.journal.reads.length;
    const settled = now === before;
    before = now;
    return settled && now > 0 && bench.journal.reads.length * 16 < 3_000;
  });
  for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
  t.ok((bench.journal.reads.at(-1) ?? 0) < 2_900, 'reading stopped long before the newest entry');
  reading.response.on('data', () => {});
  await until('the rest, once it reads', () => bench.journal.reads.at(-1) === 3_000);
});

void t.test('waiting for edges counts those connected now, and ends in time', async (t) => {
  const bench = await openOrigin(t);
  t.same(await bench.stream.confirmed(1, 5_000), { confirmed: 0, known: 0 }, 'no edge to wait for');
  await follow(t, bench, { edge: 'a', from: '0' });
  await follow(t, bench, { edge: 'b', from: '0' });
  fill(bench.journal, 1);

  const both = bench.stream.confirmed(1, 5_000);
  await confirm(bench, 1, 'a');
  await follow(t, bench, { edge: 'late' });
  await confirm(bench, 1, 'b');
  t.same(await both, { confirmed: 2, known: 2 }, 'an edge that connects during the wait is not counted');
  t.same(await bench.stream.confirmed(1, 0), { confirmed: 2, known: 3 });

  fill(bench.journal, 1);
  const one = bench.stream.confirmed(2, 5_000);
  await confirm(bench, 2, 'a');
  const limit = new AbortController();
  const cancelled = bench.stream.confirmed(2, 5_000, limit.signal);
  limit.abort();
  t.same(await cancelled, { confirmed: 1, known: 3 });
  bench.clock.advance(5_000);
  t.same(await one, { confirmed: 1, known: 3 });

  const left = await follow(t, bench, { edge: 'leaving', from: '0' });
  fill(bench.journal, 1);
  const waiting = bench.stream.confirmed(3, 1_000);
  left.leave();
  await until('it has left', () => connectedEdges(bench.stream).length === 3);
  for (const edge of ['a', 'b', 'late']) await confirm(bench, 3, edge);
  bench.clock.advance(1_000);
  t.same(
    await waiting,
    { confirmed: 3, known: 4 },
    'an edge that leaves without confirming may still be serving, so it counts',
  );
});

void t.test(
  'an edge that left lately is counted and not waited for, until it is back or the time is over',
  async (t) => {
    const bench = await openOrigin(t, { awayMs: 60_000 });
    const away = await follow(t, bench, { edge: 'away', from: '0' });
    await follow(t, bench, { edge: 'here', from: '0' });
    away.leave();
    await until('it has left', () => connectedEdges(bench.stream).length === 1);
    fill(bench.journal, 1);
    await confirm(bench, 1, 'here');
    t.same(await bench.stream.confirmed(1, 5_000), { confirmed: 1, known: 2 }, 'at once: nobody is waited for');

    bench.clock.advance(59_999);
    t.same(await bench.stream.confirmed(1, 0), { confirmed: 1, known: 2 });
    bench.clock.advance(1);
    t.same(await bench.stream.confirmed(1, 0), { confirmed: 1, known: 1 }, 'its copies may not be used any more');
    await follow(t, bench, { edge: 'away', from: '1' });
    t.same(await bench.stream.confirmed(1, 0), { confirmed: 2, known: 2 });
  },
);

void t.test('an edge that is started again counts once, and one that says that it stops does not count', async (t) => {
  const clock = new ManualClock();
  const confirmations = createConfirmations({
    goneMax: 9,
    awayMs: 60_000,
    known: [{ edge: 'a', instance: 'before', behind: 2 }],
    clock,
    onChange: () => undefined,
  });
  t.same(await confirmations.wait(4, 0, undefined), { confirmed: 0, known: 3 }, 'known from before the restart');
  confirmations.connect('a', 'now', 4);
  t.same(await confirmations.wait(4, 0, undefined), { confirmed: 1, known: 1 });

  const link = confirmations.connect('b', 'i', 4);
  t.ok(confirmations.confirm({ edge: 'b', instance: 'i', seq: 4, behind: NOBODY_BEHIND, leaves: true }));
  link.disconnect();
  t.same(await confirmations.wait(4, 0, undefined), { confirmed: 1, known: 1 });
});

void t.test('what an edge confirmed in another history of the journal counts for nothing in this one', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'edges.json');
  // As a process wrote it whose metadata were set back to an earlier state before this one was started.
  const edges = [{ edge: 'a', instance: 'i', confirmed: 9, behind: 0 }];
  await writeFile(path, JSON.stringify({ v: 1, edges }));
  const { known } = await openKnownEdges(path, testDeps().log);
  const clock = new ManualClock();
  const confirmations = createConfirmations({ goneMax: 9, awayMs: 60_000, known, clock, onChange: () => undefined });
  t.same(await confirmations.wait(7, 0, undefined), { confirmed: 0, known: 1 }, 'it is away and has confirmed nothing');
  confirmations.connect('a', 'i', 'gap');
  t.same(await confirmations.wait(7, 0, undefined), { confirmed: 0, known: 1 }, 'it is told of a gap');
  const say = (seq: number): boolean =>
    confirmations.confirm({ edge: 'a', instance: 'i', seq, behind: NOBODY_BEHIND, leaves: false });
  say(7);
  t.same(await confirmations.wait(7, 0, undefined), { confirmed: 1, known: 1 });
  confirmations.connect('a', 'i', 'gap');
  t.same(await confirmations.wait(7, 0, undefined), { confirmed: 0, known: 1 }, 'and again, while this process runs');
});

void t.test('a confirmation that comes again or late changes nothing', async (t) => {
  const clock = new ManualClock();
  const changes: string[] = [];
  const confirmations = createConfirmations({
    goneMax: 9,
    awayMs: 60_000,
    known: [],
    clock,
    onChange: (which) => changes.push(which),
  });
  const say = (seq: number, instance = 'i'): boolean =>
    confirmations.confirm({ edge: 'a', instance, seq, behind: NOBODY_BEHIND, leaves: false });
  t.equal(say(4), false, 'nobody is connected');
  const link = confirmations.connect('a', 'i', 3);
  t.equal(say(4, 'another'), false);
  t.same([say(5), say(5), say(4)], [true, true, true]);
  t.same(changes, ['edges', 'counts']);
  t.same(await confirmations.wait(5, 0, undefined), { confirmed: 1, known: 1 }, 'what is confirmed stays so');
  clock.advance(1_000);
  t.equal(link.silentMs(), 1_000);
  say(5);
  t.equal(link.silentMs(), 0, 'but it was heard');

  const newer = confirmations.connect('a', 'i', null);
  t.match(confirmations.positions(), [{ edge: 'a', connected: true, confirmed: 5 }], 'a new stream forgets nothing');
  link.disconnect();
  t.match(confirmations.positions(), [{ connected: true }], 'the end of the old stream is not that of the new one');
  newer.disconnect();
  newer.disconnect();
  t.same(changes, ['edges', 'counts', 'edges', 'edges', 'edges']);
  t.equal(say(6), false);

  const again = confirmations.connect('a', 'i', 5);
  const leaving = new AbortController();
  const waits = [confirmations.wait(9, 5_000, leaving.signal), confirmations.wait(9, 5_000, undefined)];
  leaving.abort();
  t.same(await waits[0], { confirmed: 0, known: 1 }, 'a caller that leaves waits no longer');
  clock.advance(5_000);
  t.same(await waits[1], { confirmed: 0, known: 1 });
  t.equal(clock.pending, 0, 'no timer is left');
  again.disconnect();
});

void t.test('an edge confirms for all that are behind it', async (t) => {
  const clock = new ManualClock();
  const confirmations = createConfirmations({
    goneMax: 9,
    awayMs: 60_000,
    known: [],
    clock,
    onChange: () => undefined,
  });
  const link = confirmations.connect('outer', 'i', 4);
  const say = (seq: number, behind: EdgesBehind): boolean =>
    confirmations.confirm({ edge: 'outer', instance: 'i', seq, behind, leaves: false });
  say(4, { connected: [{ seq: 4, edges: 2 }], away: [{ seq: 4, edges: 1 }] });
  const waiting = confirmations.wait(5, 5_000, undefined);
  say(5, {
    connected: [
      { seq: 5, edges: 1 },
      { seq: 4, edges: 1 },
    ],
    away: [{ seq: 4, edges: 1 }],
  });
  t.same(await confirmations.wait(5, 0, undefined), { confirmed: 2, known: 4 });
  say(5, { connected: [{ seq: 5, edges: 2 }], away: [{ seq: 4, edges: 1 }] });
  t.same(await waiting, { confirmed: 3, known: 4 }, 'the wait is over once all that are connected have confirmed');
  t.same(confirmations.counts(), { connected: [{ seq: 5, edges: 3 }], away: [{ seq: 4, edges: 1 }] });
  link.disconnect();
  t.same(await confirmations.wait(6, 0, undefined), { confirmed: 0, known: 4 }, 'those behind are away with it');
});

void t.test('the edges are remembered over a restart of the process', async (t) => {
  const path = join(t.testdir(), 'deep', 'edges.json');
  const { log, lines } = testDeps();
  const one: KnownEdge = { edge: 'a', instance: 'i', behind: 0 };
  const file = await openKnownEdges(path, log);
  t.same(file.known, []);
  for (let behind = 0; behind < 5; behind += 1) file.save(() => [{ ...one, behind }]);
  await file.close();
  t.same((await openKnownEdges(path, log)).known, [{ ...one, behind: 4 }]);
  t.same(lines, []);
  for (const damaged of ['', '{"v":2,"edges":[]}', '{"v":1}']) {
    await writeFile(path, damaged);
    t.same((await openKnownEdges(path, log)).known, [], damaged);
  }
  t.equal(lines.length, 3, 'damage is logged');
});

void t.test('edges that have left are remembered, up to a limit', async (t) => {
  const clock = new ManualClock();
  const confirmations = createConfirmations({
    goneMax: 2,
    awayMs: 60_000,
    known: [],
    clock,
    onChange: () => undefined,
  });
  for (const edge of ['a', 'b', 'c', 'd']) {
    const link = confirmations.connect(edge, 'i', 1);
    clock.advance(1_000);
    confirmations.confirm({ edge, instance: 'i', seq: 5, behind: NOBODY_BEHIND, leaves: false });
    if (edge !== 'd') link.disconnect();
  }
  t.same(
    confirmations
      .positions()
      .map(({ edge, connected, confirmed, heardAt }) => [edge, connected, confirmed, heardAt - clock.now()]),
    [
      ['b', false, 5, -2_000],
      ['c', false, 5, -1_000],
      ['d', true, 5, 0],
    ],
  );
  confirmations.connect('b', 'i', 3);
  t.equal(
    confirmations.positions().find(({ edge }) => edge === 'b')?.confirmed,
    5,
    'a confirmed number never decreases',
  );
});

void t.test('closing ends every stream cleanly', async (t) => {
  const bench = await openOrigin(t);
  const reading = await follow(t, bench, { from: '0' });
  await bench.stream.close();
  await until('its end', () => reading.over());
  t.ok(reading.response.complete, 'the response is complete');
  t.equal(bench.clock.pending, 0, 'no timer is left');
});
