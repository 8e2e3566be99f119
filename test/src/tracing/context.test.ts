/** Trace Context: the grammar of its fields, whose trace is continued, and what the origin and the log get of it. */
import t from 'tap';
import {
  newSpanId,
  newTrace,
  readTraceparent,
  readTracestate,
  traceFields,
  traceOf,
} from '../../../src/tracing/context.js';
import { openTestEdge, type TestEdge } from '../../kit/edge/edge.js';
import { mediaHead } from '../../kit/edge/scripted-origin.js';
import { sendRequest } from '../../kit/http/request.js';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const PARENT = `00-${TRACE}-${SPAN}-01`;

void t.test('a traceparent is taken by its grammar', async (t) => {
  const read = { traceId: TRACE, parentId: SPAN, sampled: true };
  for (const [text, expected] of [
    [PARENT, read],
    [`00-${TRACE}-${SPAN}-00`, { ...read, sampled: false }],
    [`00-${TRACE}-${SPAN}-03`, read],
    [`cc-${TRACE}-${SPAN}-01-what-comes-later`, read],
    [`cc-${TRACE}-${SPAN}-01`, read],
  ] as const) {
    t.strictSame(readTraceparent(text), expected, text);
  }
  for (const text of [
    '',
    'garbage',
    `ff-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01-more`,
    `00-${TRACE}-${SPAN}-01 `,
    ` 00-${TRACE}-${SPAN}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${'0'.repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE}0-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-1`,
    `00-${TRACE}-${SPAN}`,
    `cc-${TRACE}-${SPAN}-01.x`,
    `${PARENT}, ${PARENT}`,
    `00-${TRACE}-${SPAN}-01\r\nx: y`,
    `cc-${TRACE}-${SPAN}-01-${'x'.repeat(600)}`,
  ]) {
    t.equal(readTraceparent(text), undefined, text);
  }
});

void t.test('a tracestate is taken as a whole, or not at all', async (t) => {
  const many = (count: number): string => Array.from({ length: count }, (_, n) => `k${n}=v`).join(',');
  for (const [text, expected] of [
    ['a=1', 'a=1'],
    ['a=1, b=2\t,,', 'a=1,b=2'],
    ['0tenant@system=x y', '0tenant@system=x y'],
    [many(32), many(32)],
  ] as const) {
    t.equal(readTracestate(text), expected, text);
  }
  const wrong = ['', ',', 'a', '=1', 'a=', 'A=1', 'a=1=2', 'a=é', 'a=1,a=2', '0a=1', 'a@0b=1', `a=${'x'.repeat(257)}`];
  for (const text of [undefined, ...wrong, many(33), `a=${'x'.repeat(600)}`, 'a=1\r\nb: 2']) {
    t.equal(readTracestate(text), undefined, String(text));
  }
});

void t.test('a trace goes on with a span of its own, from those who may choose one', async (t) => {
  const fields: Readonly<Record<string, string>> = { traceparent: PARENT, tracestate: 'a=1' };
  const header = (name: string): string | undefined => fields[name];
  const trusted = traceOf(header, 'trusted', () => true);
  t.match(trusted, { traceId: TRACE, parentId: SPAN, sampled: true, state: 'a=1', spanId: /^[0-9a-f]{16}$/ });
  t.not(trusted?.spanId, SPAN);
  t.strictSame(traceFields(trusted), [
    ['traceparent', `00-${TRACE}-${trusted?.spanId}-01`],
    ['tracestate', 'a=1'],
  ]);
  t.match(
    traceOf(header, 'anyone', () => false),
    { traceId: TRACE },
  );
  t.equal(
    traceOf(header, 'nobody', () => true),
    undefined,
  );
  for (const replaced of [
    traceOf(header, 'trusted', () => false),
    traceOf(
      (name) => (name === 'traceparent' ? 'garbage' : 'a=1'),
      'trusted',
      () => true,
    ),
  ]) {
    t.match(replaced, { traceId: /^[0-9a-f]{32}$/, parentId: undefined, sampled: false, state: undefined });
    t.not(replaced?.traceId, TRACE);
    t.equal(traceFields(replaced).length, 1);
  }
  t.equal(
    traceOf(
      () => undefined,
      'anyone',
      () => true,
    ),
    undefined,
    'a request without a trace gets none',
  );
  t.same(traceFields(undefined), []);
  t.equal(new Set(Array.from({ length: 100 }, newSpanId)).size, 100);
  t.match(readTraceparent(traceFields(newTrace(true))[0]?.[1] ?? ''), { sampled: true });
});

const ID = '01J9ZC8GZ0000000000000000A';
const PATH = `/v1/media/${ID}`;

/** What the origin was sent, and what the log says, for a read, a read over again and a request that is passed on. */
async function tracesOf(edge: TestEdge, headers: Readonly<Record<string, string>>) {
  edge.watch.log(0, {});
  const bytes = Buffer.from('bytes');
  const seen: unknown[] = [];
  edge.origin.on(PATH, ({ method, headers: { traceparent, tracestate } }, answer) => {
    seen.push([traceparent, tracestate]);
    answer.head(
      method === 'DELETE' ? 204 : 200,
      method === 'DELETE' ? {} : mediaHead({ bytes, contentType: 'image/png' }),
    );
    answer.end(method === 'DELETE' ? undefined : bytes);
  });
  const asked = { headers: { authorization: 'Bearer reader', ...headers } };
  await sendRequest(edge.url + PATH, asked);
  await sendRequest(edge.url + PATH, asked);
  await sendRequest(edge.url + PATH, { ...asked, method: 'DELETE' });
  const logged = edge.watch.log(0, {}).requests.map(({ trace_id, span_id }) => [trace_id, span_id] as const);
  return { seen, logged };
}

void t.test('an edge passes a trace on to the origin, as its own span, and logs it', async (t) => {
  const hostile = { traceparent: `00-${'A'.repeat(32)}-x-01`, tracestate: 'a=1' };
  for (const [name, edge, headers, traceId] of [
    ['of a trusted proxy', [], { traceparent: PARENT, tracestate: 'a=1' }, TRACE],
    ['of a client', ['trusted_proxies: []'], { traceparent: PARENT, tracestate: 'a=1' }, null],
    ['malformed', [], hostile, null],
  ] as const) {
    const running = await openTestEdge(t.testdir(), { edge });
    try {
      const { seen, logged } = await tracesOf(running, headers);
      t.equal(logged.length, 3, name);
      t.equal(new Set(logged.map(([, span]) => span)).size, 3, 'each request has a span of its own');
      if (traceId === null)
        t.notOk(
          logged.some(([trace]) => trace === TRACE),
          name,
        );
      else
        t.ok(
          logged.every(([trace]) => trace === traceId),
          name,
        );
      const sampled = traceId === null ? '00' : '01';
      const sent = [logged[0], logged[2]].map((each) => [`00-${each?.[0]}-${each?.[1]}-${sampled}`]);
      t.same(
        seen,
        sent.map(([parent]) => [parent, traceId === null ? undefined : 'a=1']),
        name,
      );
    } finally {
      await running.close();
    }
  }
  const off = await openTestEdge(t.testdir(), { trace: 'nobody' });
  try {
    const none = [undefined, undefined];
    t.same(await tracesOf(off, { traceparent: PARENT, tracestate: 'a=1' }), {
      seen: [none, none],
      logged: [none, none, none],
    });
  } finally {
    await off.close();
  }
});
