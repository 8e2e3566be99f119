/** What both processes share: ids, sizes, configuration, logs, replies. */
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import t from 'tap';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/bytes.js';
import { sleep, steadyClock } from '../../src/clock.js';
import {
  choice,
  duration,
  flag,
  integer,
  type LoadContext,
  list,
  optionalDuration,
  origin,
  secret,
  section,
  size,
  text,
} from '../../src/config/field.js';
import { formatFaults, loadConfig, parseConfig } from '../../src/config/load.js';
import { renderConfig } from '../../src/config/render.js';
import { FAULTS, Fault, type FaultCode, faultOf } from '../../src/errors.js';
import { problemReply } from '../../src/http/problem.js';
import { jsonReply, type Reply } from '../../src/http/reply.js';
import { createIdSource, parseMediaId, parseSha256 } from '../../src/ids.js';
import { edgesIn, formatConfirmation, parseConfirmation, summed } from '../../src/journal/confirmation.js';
import { formatLine, type JournalLine, parseLine } from '../../src/journal/entry.js';
import { createLog, errorFields, loggable } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { send } from '../../src/server/send.js';
import { ManualClock } from '../kit/clock.js';

void t.test('sizes are read in decimal and binary units only', async (t) => {
  t.equal(parseSize('10MB'), 10_000_000);
  t.equal(parseSize('64 KiB'), 65_536);
  t.equal(parseSize('1500'), 1_500);
  for (const wrong of ['', 'MB', '-1', '1e9', '1PB', '10 M B', '9999999TB'])
    t.equal(parseSize(wrong), undefined, wrong);
});

void t.test('durations are read with a unit only', async (t) => {
  t.equal(parseDuration('250ms'), 250);
  t.equal(parseDuration('1.5h'), 5_400_000);
  for (const wrong of ['', '10', '-1s', '1w', 's']) t.equal(parseDuration(wrong), undefined, wrong);
});

void t.test('a size or duration that was written is read back as the same', async () => {
  fc.assert(
    fc.property(
      fc.nat(),
      (value) => parseSize(formatSize(value)) === value && parseDuration(formatDuration(value)) === value,
    ),
  );
});

void t.test('a media id is a ULID in either case and is printed in upper case', async (t) => {
  t.equal(parseMediaId('01arz3ndektsv4rrffq69g5fav'), '01ARZ3NDEKTSV4RRFFQ69G5FAV');
  for (const wrong of [
    '',
    '81ARZ3NDEKTSV4RRFFQ69G5FAV',
    '01ARZ3NDEKTSV4RRFFQ69G5FA',
    '01ARZ3NDEKTSV4RRFFQ69G5FAU',
    '../../etc/passwd-26-letters',
    '01ARZ3NDEKTSV4RRFFQ69G5FIL',
  ]) {
    t.equal(parseMediaId(wrong), undefined, wrong);
  }
});

void t.test('ids sort in the order in which they were made, also when the clock steps back', async (t) => {
  let now = 1_800_000_000_000;
  const next = createIdSource({ now: () => now });
  const made = Array.from({ length: 2_000 }, (_, index) => {
    if (index % 500 === 499) now -= 10_000;
    return next();
  });
  t.same(made, made.toSorted());
  t.equal(new Set(made).size, made.length);
  t.ok(made.every((id) => parseMediaId(id) === id));
});

void t.test('the random part of an id uses every character in every place, and differs between sources', async (t) => {
  let now = 1_800_000_000_000;
  const [one, other] = [createIdSource({ now: () => now }), createIdSource({ now: () => now })];
  const made = Array.from({ length: 1_000 }, () => {
    now += 1;
    return [one(), other()].map((id) => id.slice(10));
  }).flat();
  t.equal(new Set(made).size, made.length);
  for (let place = 0; place < 16; place += 1) {
    t.equal(new Set(made.map((random) => random[place])).size, 32, `place ${place}`);
  }
});

void t.test('a SHA-256 is 64 lower-case digits and nothing else', async (t) => {
  t.ok(parseSha256('a'.repeat(64)));
  for (const wrong of ['A'.repeat(64), 'a'.repeat(63), `${'a'.repeat(63)}g`]) t.equal(parseSha256(wrong), undefined);
});

const sections = {
  edge: section('The edge.', {
    listenHost: text({ default: '127.0.0.1', help: 'Host.' }),
    maxSizeBytes: size({ default: '10MB', min: 1, max: 1e9, help: 'Largest.' }),
    ttlMs: duration({ default: '30s', min: 1_000, help: 'Lifetime.' }),
    graceMs: optionalDuration({ default: null, help: 'Grace.' }),
    workers: integer({ default: 1, min: 1, max: 8, help: 'Processes.' }),
    warm: choice({ default: 'off', of: ['off', 'mark', 'now'], help: 'Warming.' }),
    strict: flag({ default: true, help: 'Strict.' }),
    upstream: origin({ default: 'http://127.0.0.1:9000', help: 'Origin.' }),
    names: list({ default: ['a'], of: text({ default: '', help: '' }), help: 'Names.' }),
    keys: section('Keys.', { edgeSecret: secret({ default: 'env:EDGE_SECRET', help: 'Secret.' }) }),
  }),
};
const context: LoadContext = {
  env: (name) => (name === 'EDGE_SECRET' ? 'a secret of some length\n' : undefined),
  file: (path) => (path === 'there' ? 'another secret of some length' : undefined),
};

void t.test('an empty file has every default, in base units, under camelCase names', async (t) => {
  const outcome = parseConfig('', sections, context);
  t.match(outcome, {
    kind: 'loaded',
    config: {
      edge: {
        listenHost: '127.0.0.1',
        maxSizeBytes: 10_000_000,
        ttlMs: 30_000,
        graceMs: null,
        keys: { edgeSecret: 'a secret of some length' },
      },
    },
  });
});

void t.test('a file may state part of a section and leave out the rest', async (t) => {
  const outcome = parseConfig('edge:\n  max_size: 64KiB\n  keys:\n    edge_secret: file:there\n', sections, context);
  t.match(outcome, {
    kind: 'loaded',
    config: { edge: { maxSizeBytes: 65_536, ttlMs: 30_000, keys: { edgeSecret: 'another secret of some length' } } },
  });
});

void t.test('all faults of a file are reported at once, with their paths', async (t) => {
  const faulty = `
edge:
  max_size: huge
  ttl: 1ms
  workers: 99
  warm: later
  strict: maybe
  upstream: http://host/path
  names: nobody
  surprise: 1
  keys:
    edge_secret: hunter2
elsewhere: {}
`;
  const outcome = parseConfig(faulty, sections, context);
  t.equal(outcome.kind, 'faulty');
  const report = outcome.kind === 'faulty' ? formatFaults(outcome.faults) : '';
  for (const path of [
    'edge.max_size',
    'edge.ttl',
    'edge.workers',
    'edge.warm',
    'edge.strict',
    'edge.upstream',
    'edge.names',
    'edge.keys.edge_secret',
    'elsewhere',
  ]) {
    t.match(report, new RegExp(`^${path}: `, 'm'), path);
  }
  t.match(report, /`surprise` is not a key of this section/);
  t.notMatch(report, /hunter2/, 'a secret in the file is not repeated');
});

void t.test('a file that is missing or not YAML is a fault, without a stack', async (t) => {
  t.match(parseConfig('edge: [', sections, context), { kind: 'faulty' });
  t.match(parseConfig('- a\n- b\n', sections, context), { kind: 'faulty', faults: [{ message: /keys and values/ }] });
  t.match(loadConfig('no/such/file.yaml', sections, context), {
    kind: 'faulty',
    faults: [{ message: /no such file/ }],
  });
});

void t.test('the rendered file shows every key and reads back as the defaults', async (t) => {
  const texts = {
    preamble: ['Preamble.'],
    firstHelp: 'Most files need only these:',
    firstKeys: ['edge.keys.edge_secret'],
  };
  const rendered = renderConfig(sections, texts);
  for (const key of ['listen_host', 'max_size: 10MB', 'ttl: 30s', 'edge_secret: env:EDGE_SECRET'])
    t.match(rendered, key);
  t.same(parseConfig(rendered, sections, context), parseConfig('', sections, context));
  t.match(
    rendered,
    /^# Preamble\.\n#\n# Most files need only these:\n#\n# {3}edge:\n# {5}keys:\n# {7}edge_secret: env:EDGE_SECRET\n\n/,
  );
  t.throws(() => renderConfig(sections, { ...texts, firstKeys: ['edge.keys.none'] }), /edge\.keys\.none/);
});

void t.test('the rendered file explains a shared declaration once', async (t) => {
  const limits = section('Limits.', { idleMs: duration({ default: '5s', help: 'How long.' }) });
  const listener = section('A listener.', { limits });
  const name = text({ default: 'a', help: 'A name.' });
  const both = {
    one: section('One.', { listener, name }),
    two: section('Two.', { listener: section('B.', { limits }), name }),
  };
  t.equal(
    renderConfig(both, { preamble: ['P.'], firstHelp: 'F.', firstKeys: ['one.name'] }),
    `# P.
#
# F.
#
#   one:
#     name: a

# One.
one:
  # A listener.
  listener:
    # Limits.
    limits:
      # How long. (a duration)
      idle: 5s

  # A name. (text)
  name: a

# Two.
two:
  # B.
  listener:
    # As one.listener.limits.
    limits:
      idle: 5s

  # As one.name.
  name: a
`,
  );
});

void t.test('a log line contains no token, and no signature of a target', async (t) => {
  const lines: string[] = [];
  const log = createLog('test', { level: 'debug' }, { write: (line) => void lines.push(line) });
  log.info(
    {
      authorization: 'Bearer abc.def.ghi',
      nested: { token: 'abc.def.ghi' },
      target: loggable('/v1/media/X?w=1&sig=abcdef&exp=5'),
    },
    'request',
  );
  t.notMatch(lines.join(''), /abc\.def|abcdef/);
  t.match(lines.join(''), /"target":"\/v1\/media\/X\?w=1&sig=\[redacted\]&exp=5"/);
});

void t.test('a fault becomes a problem document without its cause', async (t) => {
  const reply = problemReply(faultOf(new Error('cannot open /srv/secret/file')));
  t.equal(reply.status, 500);
  const text = reply.body.kind === 'bytes' ? Buffer.from(reply.body.bytes).toString() : '';
  t.match(JSON.parse(text), { code: 'internal', status: 500 });
  t.notMatch(text, /secret/);
  t.match(faultOf(Object.assign(new Error('x'), { code: 'ENOSPC' })), { code: 'storage_full', status: 507 });
  t.match(problemReply(new Fault('unauthorized', 'No.')).headers, [
    ['content-type', 'application/problem+json'],
    ['cache-control', 'no-store'],
    ['www-authenticate', /^Bearer /],
  ]);
  t.match(errorFields(new Error('outer', { cause: new Error('inner') })), { causes: ['Error: inner'] });
});

void t.test('every 503 and 507 says when to try again', (t) => {
  for (const [code, { status }] of Object.entries(FAULTS)) {
    const fields = problemReply(new Fault(code as FaultCode, 'No.')).headers.filter(([name]) => name === 'retry-after');
    t.equal(fields.length, status === 503 || status === 507 ? 1 : 0, code);
  }
  const own = problemReply(new Fault('overloaded', 'No.', { headers: { 'retry-after': '7' } }));
  t.same(
    own.headers.filter(([name]) => name === 'retry-after'),
    [['retry-after', '7']],
    'what the fault says counts',
  );
  t.end();
});

void t.test('a steady clock goes on where the wall clock is set back', (t) => {
  const manual = new ManualClock(1_000_000);
  let skewMs = 0;
  const steady = steadyClock({
    now: () => manual.now() + skewMs,
    monotonicMs: () => manual.monotonicMs() + 0.25,
    after: (delayMs, run) => manual.after(delayMs, run),
  });
  const steps: readonly (readonly [skewMs: number, advanceMs: number, at: number])[] = [
    [0, 0, 1_000_000],
    [0, 500, 1_000_500],
    [-3_600_000, 500, 1_001_000],
    [-3_600_000, 3_600_000, 4_601_000],
    [0, 10, 4_601_010],
    [60_000, 10, 4_661_020],
    [0, 10, 4_661_030],
  ];
  for (const [skew, advanceMs, at] of steps) {
    skewMs = skew;
    manual.advance(advanceMs);
    t.equal(steady.now(), at, `${skew} ${advanceMs}`);
  }
  t.end();
});

void t.test('sleep ends after its time, or at once when its signal aborts', async (t) => {
  const clock = new ManualClock();
  let ended = false;
  const waiting = sleep(clock, 1_000).then(() => {
    ended = true;
  });
  await clock.advanceAsync(999);
  t.equal(ended, false);
  await clock.advanceAsync(1);
  await waiting;
  const stop = new AbortController();
  const cancelled = sleep(clock, 1_000, stop.signal);
  stop.abort(new Error('enough'));
  await t.rejects(cancelled, { message: 'enough' });
  t.equal(clock.pending, 0);
});

void t.test('journal lines are read back as written, and anything else is refused', async (t) => {
  const id = parseMediaId('01ARZ3NDEKTSV4RRFFQ69G5FAV');
  t.ok(id);
  const lines: JournalLine[] = [
    { t: 'hello', journal: 'j', oldest: 1, newest: 9, mark: 'm', beatMs: 1_000 },
    { t: 'entry', seq: 3, mark: 'l', at: 5, cause: 'delete', ids: id === undefined ? [] : [id] },
    { t: 'beat', newest: 9, mark: 'm', at: 7, ageMs: 40 },
    { t: 'gap', newest: 9, mark: null },
  ];
  for (const line of lines) t.same(parseLine(formatLine(line)), line);
  t.match(parseLine('{"t":"beat","newest":9,"at":7}'), { ageMs: 0 }, 'an origin that does not say its age');
  t.same(parseLine('{"t":"gap","newest":9}'), { t: 'gap', newest: 9, mark: null }, 'an origin without marks');
  for (const wrong of [
    '',
    '{"t":"gap","newest":9,"mark":7}',
    `{"t":"gap","newest":9,"mark":"${'m'.repeat(65)}"}`,
    '{}',
    'null',
    '[]',
    '{"t":"beat"}',
    '{"t":"entry","seq":-1,"at":1,"cause":"delete","ids":[]}',
    '{"t":"entry","seq":1,"at":1,"cause":"explode","ids":[]}',
    '{"t":"entry","seq":1,"at":1,"cause":"delete","ids":["x"]}',
  ]) {
    t.equal(parseLine(wrong), undefined, wrong);
  }
  fc.assert(fc.property(fc.string(), (text) => parseLine(text) === undefined || true));
});

void t.test('a confirmation counts the edges behind, and stays small', async (t) => {
  const alone = { edge: 'e', instance: 'i', seq: 4, behind: { connected: [], away: [] }, leaves: false };
  t.same(parseConfirmation('{"edge":"e","instance":"i","seq":4}'), alone, 'an edge that knows of none');
  const behind = {
    connected: [
      { seq: 4, edges: 2 },
      { seq: 1, edges: 1 },
    ],
    away: [{ seq: 3, edges: 1 }],
  };
  for (const said of [alone, { ...alone, behind }, { ...alone, leaves: true }]) {
    t.same(parseConfirmation(formatConfirmation(said)), said);
  }
  for (const wrong of [
    '{"edge":"","instance":"i","seq":4}',
    '{"edge":"e","instance":"i","seq":4,"behind":7}',
    '{"edge":"e","instance":"i","seq":4,"behind":{"connected":[[1]],"away":[]}}',
    '{"edge":"e","instance":"i","seq":4,"behind":{"connected":[[1,-1]],"away":[]}}',
    `{"edge":"e","instance":"i","seq":4,"behind":{"connected":[${'[1,1],'.repeat(32)}[1,1]],"away":[]}}`,
    '{"edge":"e","instance":"i","seq":4,"leaves":1}',
  ]) {
    t.equal(parseConfirmation(wrong), undefined, wrong.slice(0, 90));
  }
  const counts = fc.array(fc.record({ seq: fc.nat(200), edges: fc.nat(9) }), { maxLength: 100 });
  fc.assert(
    fc.property(counts, fc.nat(200), (list, seq) => {
      const few = summed(list);
      t.ok(few.length <= 32);
      t.equal(edgesIn(few), edgesIn(list), 'no edge is lost');
      t.ok(edgesIn(few, seq) <= edgesIn(list, seq), 'none is said to have confirmed more than it has');
    }),
  );
});

void t.test('metrics are rendered with their prefix, and gauges are read at that moment', async (t) => {
  const metrics = createMetrics('media_test_');
  metrics.counter('hits_total', 'Hits.', ['tier']).add(2, { tier: 'memory' });
  const bytes = metrics.gauge('held_bytes', 'Bytes.');
  metrics.onCollect(() => bytes.set(7));
  const { text } = await metrics.render();
  t.match(text, 'media_test_hits_total{tier="memory"} 2');
  t.match(text, 'media_test_held_bytes 7');
});

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
  readonly complete: boolean;
}

async function exchange(reply: Reply, method = 'GET'): Promise<Answer> {
  const server = createServer((request, response) => {
    send(reply, request, response, new AbortController().signal).catch(() => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await new Promise((resolve, reject) => {
      const request = httpRequest(
        { port: (server.address() as AddressInfo).port, method, agent: false },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', () => undefined);
          response.on('close', () =>
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers,
              body: Buffer.concat(chunks).toString(),
              complete: response.complete,
            }),
          );
        },
      );
      request.on('error', reject);
      request.end();
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

void t.test('HEAD has the same head as GET and opens no body', async (t) => {
  let opened = 0;
  const reply: Reply = {
    status: 200,
    headers: [['content-type', 'text/plain']],
    body: {
      kind: 'stream',
      sizeBytes: 5,
      open() {
        opened += 1;
        return Readable.from([Buffer.from('hello')]);
      },
    },
  };
  const [get, head] = [await exchange(reply), await exchange(reply, 'HEAD')];
  t.match(get, { status: 200, body: 'hello', headers: { 'content-length': '5' } });
  t.match(head, { status: 200, body: '', headers: { 'content-length': '5', 'content-type': 'text/plain' } });
  t.equal(opened, 1);
});

void t.test('a body that fails half way breaks the connection', async (t) => {
  const reply: Reply = {
    status: 200,
    headers: [],
    body: {
      kind: 'stream',
      sizeBytes: 100,
      open: () =>
        Readable.from(
          (async function* () {
            yield Buffer.from('half');
            throw new Error('disk');
          })(),
        ),
    },
  };
  const answer = await exchange(reply);
  t.equal(answer.complete, false);
});

void t.test('JSON replies are no-store unless they say otherwise', async (t) => {
  t.match(await exchange(jsonReply(200, { a: 1 })), { body: '{"a":1}', headers: { 'cache-control': 'no-store' } });
  t.match(await exchange(jsonReply(200, { a: 1 }, [['cache-control', 'max-age=60']])), {
    headers: { 'cache-control': 'max-age=60' },
  });
});
