/** What origins over one PostgreSQL database tell each other about the edges that follow them. */
import t, { type Test } from 'tap';
import type { RecordedEdge, SharedEdges } from '../../../origin/meta/origins/shared-edges.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { openStore } from '../../kit/postgres/stores.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());

async function openTwo(t: Test): Promise<readonly [SharedEdges, SharedEdges]> {
  const url = (await postgres?.database()) ?? '';
  const opened: SharedEdges[] = [];
  for (const name of ['a', 'b']) {
    const store = await openStore(url, { kind: 'origin', name });
    t.teardown(() => store.close());
    if (store.edges !== null) opened.push(store.edges);
  }
  const [a, b] = opened;
  if (a === undefined || b === undefined) throw new Error('origins over PostgreSQL share their edges');
  return [a, b];
}

const edgeOf = (edge: string, over: Partial<RecordedEdge> = {}): RecordedEdge => ({
  edge,
  instance: `${edge} started`,
  connected: true,
  connectedAgoMs: 1_000.4,
  heardAgoMs: 500.4,
  confirmed: 3,
  edges: 1,
  ...over,
});

void t.test('an origin sees the edges of the others, as they were recorded last', { skip }, async (t) => {
  const [a, b] = await openTwo(t);
  t.same(await a.record([edgeOf('one'), edgeOf('two', { edges: 4 })]), []);
  t.same(await a.elsewhere(), []);
  const [one, two] = (await b.elsewhere()).toSorted((x, y) => x.edge.localeCompare(y.edge));
  t.match(one, { edge: 'one', instance: 'one started', origin: 'a', connected: true, confirmed: 3, edges: 1 });
  t.match(two, { edge: 'two', edges: 4 });
  t.ok((one?.connectedAgoMs ?? 0) >= 1_000 && (one?.heardAgoMs ?? 0) >= 500);
  await a.record([edgeOf('two', { connected: false, confirmed: 9 })]);
  t.match(await b.elsewhere(), [{ edge: 'two', connected: false, confirmed: 9 }], 'one has said that it stops');
});

void t.test('an edge is where it has connected last', { skip }, async (t) => {
  const [a, b] = await openTwo(t);
  await a.record([edgeOf('one', { connectedAgoMs: 5_000 })]);
  t.same(await b.record([edgeOf('one', { connectedAgoMs: 10 })]), []);
  t.match(await a.elsewhere(), [{ edge: 'one', origin: 'b' }]);
  t.same(
    await a.record([edgeOf('one', { connectedAgoMs: 5_000 })]),
    [],
    'it is connected here too, as far as is known',
  );
  t.match(await a.elsewhere(), [{ origin: 'b' }], 'an earlier connection changes nothing');
  t.same(await a.record([edgeOf('one', { connectedAgoMs: 5_000, connected: false })]), ['one']);
  await a.record([]);
  t.equal((await a.elsewhere()).length, 1, 'what another has recorded stays');
});

void t.test('an edge that was started again elsewhere takes the place of its earlier start', { skip }, async (t) => {
  const [a, b] = await openTwo(t);
  await a.record([edgeOf('one', { connectedAgoMs: 9_000, connected: false })]);
  await b.record([edgeOf('one', { instance: 'again', connectedAgoMs: 10 })]);
  t.match(await a.elsewhere(), [{ edge: 'one', instance: 'again' }]);
  t.same(await b.elsewhere(), []);
});

void t.test('a question is answered by those that are asked, in parts and then for good', { skip }, async (t) => {
  const [a, b] = await openTwo(t);
  await a.ask('q', 7, ['b', 'c']);
  t.same(await a.questions(), []);
  t.same(await b.questions(), [{ id: 'q', seq: 7 }]);
  t.same(await a.answers('q'), []);
  await b.answer('q', { confirmed: 1, known: 2, isFinal: false });
  t.same(await a.answers('q'), [{ origin: 'b', confirmed: 1, known: 2, isFinal: false }]);
  t.equal((await b.questions()).length, 1);
  await b.answer('q', { confirmed: 2, known: 2, isFinal: true });
  t.same(await a.answers('q'), [{ origin: 'b', confirmed: 2, known: 2, isFinal: true }]);
  t.same(await b.questions(), []);
  await a.forget('q');
  t.same(await a.answers('q'), []);
});
