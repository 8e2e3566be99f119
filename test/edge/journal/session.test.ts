/** One connection to the journal by itself: the order of what it does, and each way in which it ends. */
import { PassThrough } from 'node:stream';
import t from 'tap';
import { type JournalConfig, journalSection, type OpenOrigin } from '../../../edge/journal/config.js';
import { createLease } from '../../../edge/journal/lease.js';
import { type Progress, runSession, type SessionDeps } from '../../../edge/journal/session.js';
import { NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import type { JournalPosition } from '../../../src/journal/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { mediaIdOf } from '../../kit/edge/cache.js';
import { until } from '../../kit/until.js';

const BEAT_MS = 1_000;
const at = (seq: number, mark: string | null = `m${seq}`, journal = 'j'): JournalPosition => ({ journal, seq, mark });

interface Options {
  readonly position?: JournalPosition | undefined;
  readonly config?: Partial<JournalConfig>;
  /** The status of every confirmation. */
  readonly confirmed?: number;
}

function opened({ position = at(3), config, confirmed = 204 }: Options = {}) {
  const { log, metrics, lines } = testDeps();
  const clock = new ManualClock();
  const body = new PassThrough();
  const events: string[] = [];
  const confirmations: number[] = [];
  const held: { takeDown: Promise<void>; purge: Promise<void> } = {
    takeDown: Promise.resolve(),
    purge: Promise.resolve(),
  };
  const journal = configured(journalSection, {
    lease: { ttlMs: 5_000, mode: 'refuse', serveMaxMs: 0 },
    connectTimeoutMs: 700,
    silentBeatsMax: 3,
    batchMax: 100,
    ...config,
  });
  const open: OpenOrigin = async (request) => {
    if (request.method === 'GET') return { status: 200, body };
    confirmations.push((JSON.parse(String(request.body)) as { seq: number }).seq);
    return { status: confirmed, body: new PassThrough().end() };
  };
  const progress: Progress = {
    position,
    newest: null,
    link: 'connecting',
    connects: 0,
    purges: 0,
    confirmer: undefined,
  };
  const lease = createLease(journal.lease, clock);
  const deps: SessionDeps = {
    config: journal,
    edgeName: 'edge',
    instance: 'i',
    open,
    proof: () => 'p',
    cache: {
      async takeDown(id) {
        events.push(`take down ${Number(id.slice(-4))}`);
        await held.takeDown;
        events.push(`taken down ${Number(id.slice(-4))}`);
        return 1;
      },
      async purge() {
        events.push('purge');
        await held.purge;
        return 0;
      },
      appliedBefore: { kind: 'nothing_stored' },
      noteApplied: ({ seq }) => void events.push(`note ${seq}`),
    },
    onTakedown: (id) => void events.push(`end fetches ${Number(id.slice(-4))}`),
    onPurgeAll: () => void events.push('end all fetches'),
    onUseReportsWanted: (everyMs) => void events.push(`reports ${everyMs}`),
    behind: () => NOBODY_BEHIND,
    applied: {
      begin: () => undefined,
      lost: () => void events.push('lost'),
      positioned: ({ seq }) => void events.push(`positioned ${seq}`),
      applied: (entries, { seq }) => void events.push(`applied ${entries.length} to ${seq}`),
      marked: ({ mark }) => void events.push(`marked ${mark}`),
      renewed: () => void events.push('renewed'),
    },
    file: {
      read: async () => ({ kind: 'absent' }),
      save: ({ seq, mark }) => void events.push(`save ${seq} ${mark}`),
      flush: async () => undefined,
    },
    folder: '',
    clock,
    random: () => 0,
    log,
    metrics,
    progress,
    lease,
    onCurrent: () => void events.push('current'),
  };
  const closing = new AbortController();
  const outcome = runSession(deps, closing.signal);
  const say = (...said: readonly object[]): void =>
    void body.write(said.map((line) => `${JSON.stringify(line)}\n`).join(''));
  return {
    clock,
    body,
    events,
    confirmations,
    held,
    progress,
    lease,
    lines,
    closing,
    outcome,
    say,
    hello: (more: object = {}) =>
      say({ t: 'hello', journal: 'j', oldest: 1, newest: 9, mark: 'm9', beatMs: BEAT_MS, ...more }),
    entry: (seq: number, ...ids: readonly number[]) => ({
      t: 'entry',
      seq,
      mark: `m${seq}`,
      at: 0,
      cause: 'delete',
      ids: ids.map(mediaIdOf),
    }),
    beat: (newest: number, more: object = {}) => ({
      t: 'beat',
      newest,
      mark: `m${newest}`,
      at: clock.now(),
      ageMs: 0,
      ...more,
    }),
    /** Waits for an event; resolves with all events since the last call. */
    async saw(event: string): Promise<readonly string[]> {
      await until(event, () => events.includes(event));
      return events.splice(0);
    },
    async ended(): Promise<readonly [reason: string, wasCurrent: boolean]> {
      const { reason, wasCurrent } = await outcome;
      return [reason, wasCurrent];
    },
  };
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
};

void t.test('without a position everything is removed before the edge continues at the newest entry', async (t) => {
  const session = opened({ position: undefined });
  session.progress.position = undefined;
  let go = (): void => undefined;
  session.held.purge = new Promise((resolve) => (go = resolve));
  session.hello({ usesEveryMs: 50 });
  t.same(await session.saw('purge'), ['reports 50', 'lost', 'end all fetches', 'purge']);
  await turns();
  t.same([session.events, session.progress.position, session.progress.purges], [[], undefined, 0]);
  go();
  t.same(await session.saw('positioned 9'), ['note 9', 'save 9 m9', 'positioned 9']);
  t.same(
    [session.progress.position, session.progress.purges, session.progress.newest, session.progress.link],
    [at(9), 1, 9, 'replaying'],
  );
  t.equal(session.lease.state().kind, 'new', 'a greeting proves nothing');
  session.say(session.beat(9));
  t.same(await session.saw('current'), ['renewed', 'current']);
  t.same([session.progress.link, session.lease.mayServe()], ['current', 'yes']);
  await until('its confirmation', () => session.confirmations.length === 1);
  t.same(session.confirmations, [9]);
  session.body.end();
  t.same(await session.ended(), ['closed_by_origin', true]);
  t.equal(session.progress.confirmer, undefined);
});

void t.test('entries are applied in their order, and nothing is written down before it is applied', async (t) => {
  const session = opened();
  session.hello();
  let go = (): void => undefined;
  session.held.takeDown = new Promise((resolve) => (go = resolve));
  session.say(session.entry(4, 1, 2), session.entry(5, 2));
  t.same(
    await session.saw('take down 2'),
    ['reports undefined', 'end fetches 1', 'end fetches 2', 'take down 1', 'take down 2'],
    'each id once, and its fetches first',
  );
  await turns();
  t.same([session.events, session.progress.position, session.confirmations], [[], at(3), []]);
  go();
  t.same(await session.saw('applied 2 to 5'), [
    'taken down 1',
    'taken down 2',
    'note 5',
    'save 5 m5',
    'applied 2 to 5',
  ]);
  t.same(session.progress.position, at(5));
  await until('its confirmation', () => session.confirmations.length === 1);
  t.same(session.confirmations, [5]);
  t.same([session.progress.link, session.lease.state().kind], ['replaying', 'new'], 'no beat has come');
  session.closing.abort();
  t.same(await session.ended(), ['closing', false]);
});

void t.test('many entries are applied in batches', async (t) => {
  const session = opened({ config: { batchMax: 2 } });
  session.hello();
  session.say(...[4, 5, 6, 7, 8].map((seq) => session.entry(seq, seq)), session.beat(8), session.entry(9, 1, 2, 3));
  const seen = await session.saw('applied 1 to 9');
  t.same(
    seen.filter((event) => /^(applied|current|end fetches [123]$|taken down [123]$)/.test(event)),
    [
      'applied 2 to 5',
      'applied 2 to 7',
      'applied 1 to 8',
      'current',
      'end fetches 1',
      'end fetches 2',
      'taken down 1',
      'taken down 2',
      'end fetches 3',
      'taken down 3',
      'applied 1 to 9',
      'current',
    ],
  );
  session.closing.abort();
  t.same(await session.ended(), ['closing', true]);
});

void t.test('a beat renews the lease once everything before it is applied, from the time that it proves', async (t) => {
  const session = opened();
  session.hello();
  session.clock.advance(600);
  session.say(session.beat(5, { ageMs: 200 }));
  await until('it is read', () => session.progress.newest === 5);
  t.same([session.lease.state().kind, session.progress.link], ['new', 'replaying'], 'two entries are missing');
  session.clock.advance(100);
  session.say(session.entry(4, 1));
  await session.saw('applied 1 to 4');
  t.equal(session.lease.state().kind, 'new');
  session.say(session.entry(5, 2));
  await session.saw('renewed');
  t.same(session.lease.state(), { kind: 'held', currentMsAgo: 300 });
  session.say(session.entry(6, 3));
  await session.saw('applied 1 to 6');
  t.same([session.progress.newest, session.progress.link], [6, 'current'], 'what is applied is known to be there');
  session.say(session.beat(7));
  await until('it is read', () => session.progress.newest === 7);
  t.equal(session.progress.link, 'replaying');
  session.closing.abort();
  t.same(await session.ended(), ['closing', true]);
});

void t.test('a beat that was on its way for longer than the lease ends the stream', async (t) => {
  for (const [lateMs, ends] of [
    [5_000, false],
    [5_001, true],
  ] as const) {
    const session = opened();
    session.hello();
    session.say(session.beat(3));
    await session.saw('current');
    session.say(session.beat(3, { at: session.clock.now() - lateMs }));
    if (!ends) await session.saw('current');
    else t.same(await session.ended(), ['delayed', true]);
    session.closing.abort();
    await session.outcome;
  }
});

void t.test('the mark of the newest entry is compared, and learnt where it was unknown', async (t) => {
  const other = opened();
  other.hello();
  other.say(other.beat(3, { mark: 'another' }));
  t.same(await other.ended(), ['other_history', false]);
  const unknown = opened({ position: at(3, null) });
  unknown.hello();
  unknown.say(unknown.beat(3, { mark: null }), unknown.beat(4, { mark: 'm4' }), unknown.beat(3, { mark: 'm3' }));
  t.same(
    (await unknown.saw('marked m3')).filter((event) => /^(note|save|marked)/.test(event)),
    ['note 3', 'save 3 m3', 'marked m3'],
  );
  t.same(unknown.progress.position, at(3));
  unknown.say(unknown.beat(3));
  await unknown.saw('current');
  t.notOk(
    unknown.events.some((event) => event.startsWith('save')),
    'once',
  );
  unknown.closing.abort();
  await unknown.outcome;
});

void t.test('after a gap everything is removed, and the edge continues behind it', async (t) => {
  const session = opened();
  session.hello();
  session.say({ t: 'gap', newest: 12, mark: 'm12' });
  t.same((await session.saw('positioned 12')).slice(1), [
    'lost',
    'end all fetches',
    'purge',
    'note 12',
    'save 12 m12',
    'positioned 12',
  ]);
  t.same([session.progress.position, session.progress.purges], [at(12), 1]);
  session.closing.abort();
  await session.outcome;
});

void t.test('what is out of order, or of another journal, is not applied and ends the stream', async (t) => {
  const cases: readonly (readonly [
    what: string,
    position: JournalPosition,
    say: (session: ReturnType<typeof opened>) => void,
  ])[] = [
    [
      'a second hello',
      at(3),
      (s) => {
        s.hello();
        s.hello();
      },
    ],
    ['a gap before hello', at(3), (s) => s.say({ t: 'gap', newest: 1, mark: null })],
    ['an entry before hello', at(3), (s) => s.say(s.entry(4, 1))],
    ['a beat before hello', at(3), (s) => s.say(s.beat(3))],
    [
      'an entry that is missing',
      at(3),
      (s) => {
        s.hello();
        s.say(s.entry(5, 1));
      },
    ],
    [
      'an entry again',
      at(3),
      (s) => {
        s.hello();
        s.say(s.entry(3, 1));
      },
    ],
    [
      'a hole within a batch',
      at(3),
      (s) => {
        s.hello();
        s.say(s.entry(4, 1), s.entry(6, 1));
      },
    ],
    [
      'an entry of another journal',
      at(3, 'm3', 'k'),
      (s) => {
        s.hello();
        s.say(s.entry(4, 1));
      },
    ],
    [
      'a beat of another journal',
      at(3, 'm3', 'k'),
      (s) => {
        s.hello();
        s.say(s.beat(3));
      },
    ],
    ['no line', at(3), (s) => s.say([])],
  ];
  for (const [what, position, say] of cases) {
    const session = opened({ position });
    say(session);
    t.same(await session.ended(), ['garbled', false], what);
    t.same([session.progress.position, session.confirmations, session.lease.state().kind], [position, [], 'new'], what);
    t.notOk(
      session.events.some((event) => /take down|save|purge/.test(event)),
      what,
    );
    t.ok(session.body.destroyed, what);
  }
});

void t.test('what the cache cannot apply is not written down', async (t) => {
  const session = opened();
  session.held.takeDown = Promise.reject(new Error('disk'));
  session.held.takeDown.catch(() => undefined);
  session.hello();
  session.say(session.entry(4, 1));
  t.same(await session.ended(), ['not_applied', false]);
  t.match((await session.outcome).cause, { error: 'disk' });
  t.same(session.progress.position, at(3));
  const purging = opened();
  purging.held.purge = Promise.reject(new Error('disk'));
  purging.held.purge.catch(() => undefined);
  purging.hello();
  purging.say({ t: 'gap', newest: 12, mark: 'm12' });
  t.same(await purging.ended(), ['not_applied', false]);
  t.same([purging.progress.position, purging.progress.purges], [undefined, 0], 'it is emptied the next time');
});

void t.test(
  'a stream that is silent is given up: before its greeting soon, after it when beats are missing',
  async (t) => {
    const early = opened();
    // The stream is open by then: until it is, another timer has the same delay.
    await turns();
    await early.clock.timerSet(700);
    early.clock.advance(700);
    t.same(await early.ended(), ['silent', false]);
    const late = opened();
    late.hello();
    await late.saw('reports undefined');
    await late.clock.timerSet(3 * BEAT_MS);
    late.clock.advance(3 * BEAT_MS - 1);
    late.say(late.beat(3));
    await late.saw('current');
    await late.clock.timerSet(3 * BEAT_MS);
    late.clock.advance(3 * BEAT_MS);
    t.same(await late.ended(), ['silent', true]);
  },
);

void t.test('an origin that does not count this edge ends the stream', async (t) => {
  const session = opened({ confirmed: 409 });
  session.hello();
  session.say(session.beat(3));
  t.same(await session.ended(), ['not_counted', true]);
});

void t.test('a lease that is shorter than two beats is warned of', async (t) => {
  for (const [beatMs, warned] of [
    [2_500, false],
    [2_501, true],
  ] as const) {
    const session = opened();
    session.hello({ beatMs });
    await session.saw('reports undefined');
    session.closing.abort();
    await session.outcome;
    t.equal(
      session.lines.some(({ msg }) => /shorter than two beats/.test(String(msg))),
      warned,
      `${beatMs}`,
    );
  }
});

void t.test('a session that is to end before it begins opens nothing', async (t) => {
  const session = opened();
  session.closing.abort();
  t.same(await session.ended(), ['closing', false]);
  t.same(session.events, []);
  session.body.emit('error', new Error('nobody waits for it'));
});
