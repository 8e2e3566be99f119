/** How an edge tells the origin, and the edge before it, what it knows already, and what it takes from them. */
import { Readable } from 'node:stream';
import t from 'tap';
import { fenceEdge } from '../../../edge/journal/fence.js';
import { fenceUpstream } from '../../../edge/upstream/fenced.js';
import type { Answered, UpstreamRequest } from '../../../edge/upstream/request.js';
import type { Upstream } from '../../../edge/upstream/upstream.js';
import type { HeaderList } from '../../../src/http/reply.js';
import type { JournalPosition } from '../../../src/journal/entry.js';
import { writePosition } from '../../../src/journal/position-field.js';
import { ManualClock } from '../../kit/clock.js';
import { MemoryJournal, mediaId } from '../../kit/origin/journal.js';

const never = new AbortController().signal;
const POSITION: JournalPosition = { journal: 'j', seq: 5, mark: 'm' };
const at = (seq: number, journal = 'j'): string => writePosition({ journal, seq, mark: null });

function setUp(answer: HeaderList, position: JournalPosition | undefined = POSITION) {
  const sent: UpstreamRequest[] = [];
  const bodies: Readable[] = [];
  const upstream = {
    fetch: async (request: UpstreamRequest) => {
      sent.push(request);
      const body = Readable.from(['bytes']);
      bodies.push(body);
      return { kind: 'answered', status: 200, headers: answer, body } as unknown as Answered;
    },
    tlsTrouble: 'none',
  } as unknown as Upstream;
  const fenced = fenceUpstream(upstream, () => position);
  const ask = (headers: HeaderList) => fenced.fetch({ method: 'GET', target: '/', headers }, never);
  return { ask, sent, bodies, fenced };
}

const OWN: HeaderList = [['edge-authorization', 'secret']];

void t.test('the position goes with what the edge asks for itself, and with nothing else', async (t) => {
  const { ask, sent, fenced } = setUp([['etag', '"a"']]);
  t.match(await ask(OWN), { kind: 'answered', headers: [['etag', '"a"']] });
  t.same(sent[0]?.headers, [...OWN, ['media-position', 'j/5/m']]);
  await ask([['accept', '*/*']]);
  t.same(sent[1]?.headers, [['accept', '*/*']], 'a request for one client');
  t.equal(fenced.tlsTrouble, 'none');
  const lost = setUp([]);
  await fenceUpstream(
    { fetch: async (request: UpstreamRequest) => void lost.sent.push(request) } as never,
    () => undefined,
  ).fetch({ method: 'GET', target: '/', headers: OWN }, never);
  t.same(lost.sent[0]?.headers, OWN, 'an edge that does not know how far it is');
});

void t.test('an answer of an earlier state is no answer, and no other field of it is changed', async (t) => {
  const old = setUp([['media-position', at(4)]]);
  t.same(await old.ask(OWN), { kind: 'failed', failure: 'outdated' });
  t.ok(old.bodies[0]?.destroyed);
  for (const told of [at(5), at(6), at(1, 'another'), 'nonsense']) {
    const { ask } = setUp([
      ['etag', '"a"'],
      ['media-position', told],
    ]);
    t.match(await ask(OWN), { kind: 'answered', headers: [['etag', '"a"']] }, told);
  }
});

void t.test('an edge answers the edges behind it once it has applied what they have', async (t) => {
  const applied = new MemoryJournal('j');
  const clock = new ManualClock();
  const ask = (field: string | undefined) => fenceEdge(applied, { header: () => field }, clock, () => never);
  t.equal(ask(undefined), undefined);
  t.equal(ask(at(0)), undefined);
  const waiting = ask(at(1));
  applied.add('delete', [mediaId(1)]);
  await waiting;
  t.equal(ask(at(1)), undefined);
  const refusal = { code: 'overloaded' };
  await t.rejects(ask(at(1, 'another')) ?? Promise.resolve(), refusal);
  const late = ask(at(2)) ?? Promise.resolve();
  clock.advance(500);
  await t.rejects(late, refusal);
  t.equal(clock.pending, 0);
});
