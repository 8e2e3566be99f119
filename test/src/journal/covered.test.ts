/** When an edge may follow: with the secret as it is now, and once this journal is known to cover what the edge has applied. */
import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import t from 'tap';
import { journalSection } from '../../../origin/edges/origin-journal.js';
import { createJournalStream } from '../../../src/journal/journal-stream.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { MemoryJournal } from '../../kit/origin/journal.js';

class Response extends EventEmitter {
  writableNeedDrain = false;
  destroyed = false;
  readonly lines: string[] = [];
  writeHead(): void {
    this.lines.push('head');
  }
  write(text: string): boolean {
    this.lines.push(text);
    return true;
  }
  end(): void {
    this.lines.push('end');
  }
  destroy(): void {
    this.destroyed = true;
  }
}

function bench({ isOwn = false, ageMs = 0 }: { isOwn?: boolean; ageMs?: number | null } = {}) {
  const clock = new ManualClock();
  const deps = testDeps();
  const state = { ageMs, secrets: new Set(['one', 'two']), renewals: new Set<() => void>() };
  const journal = new MemoryJournal();
  const stream = createJournalStream({
    journal,
    proof: {
      isOwn,
      ageMs: () => state.ageMs,
      onRenewal: (listener) => {
        state.renewals.add(listener);
        return () => void state.renewals.delete(listener);
      },
    },
    usesEveryMs: () => undefined,
    config: configured(journalSection, { beatMs: 1_000 }),
    isEdge: (proof) => proof !== undefined && state.secrets.has(proof),
    clock,
    log: deps.log,
    metrics: deps.metrics,
  });
  return {
    ...deps,
    clock,
    state,
    journal,
    recheckSecrets: () => stream.recheckSecrets(),
    close: () => stream.close(),
    settled: () => new Promise(setImmediate),
    follow: (query: string, { proof = 'one', signal = new AbortController().signal } = {}) => {
      const response = new Response();
      const request = { url: `/internal/v1/journal?${query}`, headers: { 'edge-authorization': proof } };
      const ended: unknown[] = [];
      stream.follow(request as unknown as IncomingMessage, response as unknown as ServerResponse, signal).then(
        () => ended.push('ended'),
        (thrown: unknown) => ended.push((thrown as { code?: string }).code),
      );
      return { response, ended };
    },
  };
}

void t.test('an edge whose secret was withdrawn is disconnected, and no other is', async (t) => {
  const { follow, recheckSecrets, state, settled, sample, close } = bench({ isOwn: true });
  const [one, two] = [follow('edge=a&instance=i'), follow('edge=b&instance=i', { proof: 'two' })];
  await settled();
  recheckSecrets();
  await settled();
  t.strictSame([one.ended, two.ended], [[], []]);
  state.secrets.delete('two');
  recheckSecrets();
  await settled();
  t.strictSame([one.ended, two.ended], [[], ['ended']]);
  t.ok(two.response.destroyed);
  t.equal(await sample('journal_streams_ended_total{reason="secret_withdrawn"}'), 1);
  t.strictSame(follow('edge=b&instance=i', { proof: 'two' }).response.lines, []);
  let closed = false;
  const closing = close().then(() => {
    closed = true;
  });
  t.notOk(closed);
  await closing;
  await settled();
  t.strictSame(one.ended, ['ended']);
  t.equal(one.response.lines.at(-1), 'end');
});

void t.test('an edge that is ahead waits until this journal has caught up or is known to be whole', async (t) => {
  const began = ({ response }: { readonly response: Response }): boolean => response.lines.length > 0;
  const waiting = async (query: string, options = {}) => {
    const here = bench({ ageMs: 500, ...options });
    const followed = here.follow(query);
    await here.settled();
    return { ...here, followed };
  };
  for (const query of ['edge=a&instance=i', 'edge=a&instance=i&from=0', 'edge=a&instance=i&from=7&journal=another']) {
    t.ok(began((await waiting(query)).followed), query);
  }
  t.ok(began((await waiting('edge=a&instance=i&from=7', { isOwn: true })).followed), 'the origin knows it all');

  const poll = bench({ ageMs: 500 });
  poll.journal.elsewhere = () => {
    while (poll.journal.newest() < 7) poll.journal.add('delete', []);
  };
  const found = poll.follow('edge=a&instance=i&from=7');
  await poll.settled();
  t.ok(began(found), 'others had added what this journal lacked');

  const { followed, state, clock, settled } = await waiting('edge=a&instance=i&from=7');
  t.notOk(began(followed));
  t.equal(state.renewals.size, 1);
  clock.advance(500);
  for (const renew of state.renewals) renew();
  await settled();
  t.notOk(began(followed), 'a proof as old as the question says nothing');
  clock.advance(1);
  for (const renew of state.renewals) renew();
  await settled();
  t.ok(began(followed));
  t.equal(state.renewals.size, 1, 'of the stream alone');

  const late = await waiting('edge=a&instance=i&from=7');
  late.clock.advance(2_999);
  await late.settled();
  t.strictSame(late.followed.ended, []);
  late.clock.advance(1);
  await late.settled();
  t.strictSame(late.followed.ended, ['overloaded']);
  t.strictSame([late.state.renewals.size, late.clock.pending], [0, 0]);

  const unproven = await waiting('edge=a&instance=i', { ageMs: null });
  t.strictSame(unproven.followed.ended, ['overloaded']);
  const wrong = await waiting('edge=a&instance=i&from=x');
  t.strictSame(wrong.followed.ended, ['malformed']);
});

void t.test('an edge that has left while it waited is not followed', async (t) => {
  const { follow, clock, settled, state } = bench({ ageMs: 0 });
  const leaving = new AbortController();
  const { response, ended } = follow('edge=a&instance=i&from=0', { signal: leaving.signal });
  leaving.abort(new Error('left'));
  await settled();
  t.strictSame(response.lines, []);
  t.strictSame(ended, ['ended']);
  t.strictSame([state.renewals.size, clock.pending], [0, 0]);
});
