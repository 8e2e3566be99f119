/** The line of each request: its fields, what is left out of them, and both formats. */
import t from 'tap';
import { subjectMark } from '../../../src/access/subject-mark.js';
import { loggable } from '../../../src/log.js';
import {
  createRequestLog,
  type LoggedEnding,
  type LoggedRequest,
  type RequestLogDeps,
  requestFields,
} from '../../../src/logs/request-line.js';
import { newTrace } from '../../../src/tracing/context.js';
import { ManualClock } from '../../kit/clock.js';

const CALLER = { subject: 'ada', issuer: 'https://auth.example' } as NonNullable<LoggedRequest['caller']>;

interface Asked extends Partial<Omit<LoggedRequest, 'header'>> {
  readonly fields?: Readonly<Record<string, string>>;
  readonly address?: string;
}

function asked({ fields = {}, address = '192.0.2.1', ...over }: Asked = {}): LoggedRequest {
  const target = over.target ?? '/v1/media/X?w=1';
  const path = target.split('?')[0] ?? '';
  const own = { header: (name: string) => fields[name], sender: () => ({ address }) };
  return { requestId: 'r-12345678', method: 'GET', target, path, protocol: 'HTTP/1.1', ...own, ...over };
}

const ENDED: LoggedEnding = {
  status: 200,
  sentBytes: 12,
  firstByteMs: 0.44,
  totalMs: 1.55,
  outcome: 'hit_memory',
  complete: true,
};

function openLog(config: Partial<RequestLogDeps['config']> = {}, name = 'edge') {
  const lines: string[] = [];
  const clock = new ManualClock();
  const log = createRequestLog({
    name,
    config: { level: 'info', requests: 'all', format: 'json', ...config },
    clock,
    write: (line) => void lines.push(line),
  });
  const write = (request: LoggedRequest, ended: LoggedEnding): void => log.write(request, ended);
  return { write, lines, clock, parsed: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

void t.test('a request is one line of JSON with the fields that apply', async (t) => {
  const { write, lines, clock, parsed } = openLog({}, 'edge "1"');
  write(asked(), ENDED);
  clock.advance(1);
  const fields = { range: 'bytes=0-1', 'user-agent': 'a "browser" é' };
  const more = { media: 'X' };
  const full: LoggedEnding = { ...ENDED, tier: 'disk', reason: 'disk', rule: 2, totalMs: 123.46, more };
  write(asked({ caller: CALLER, fields, target: '/\u0001é"\\', method: 'X"' }), full);
  t.match(lines, [/^[^\n]*\n$/, /^[^\n]*\n$/]);
  t.strictSame(parsed()[0], {
    level: 'info',
    time: '2026-01-01T00:00:00.000Z',
    name: 'edge "1"',
    pid: process.pid,
    request_id: 'r-12345678',
    address: '192.0.2.1',
    method: 'GET',
    route: 'original',
    target: '/v1/media/X?w=1',
    status: 200,
    bytes: 12,
    first_byte_ms: 0.4,
    total_ms: 1.6,
    outcome: 'hit_memory',
    complete: true,
    msg: 'request',
  });
  t.match(parsed()[1], {
    time: '2026-01-01T00:00:00.001Z',
    subject: subjectMark(CALLER),
    range: 'bytes=0-1',
    user_agent: 'a "browser" é',
    method: 'X"',
    target: '/\u0001é"\\',
    tier: 'disk',
    reason: 'disk',
    rule: 2,
    total_ms: 123.5,
    media: 'X',
  });
  t.match(subjectMark(CALLER), /^[0-9a-f]{12}$/);
  t.not(subjectMark(CALLER), subjectMark({ ...CALLER, issuer: 'https://other.example' }));
});

void t.test('operators who watch see the same fields by the same names', async (t) => {
  const { write, parsed } = openLog();
  const request = asked({ caller: CALLER, fields: { range: 'bytes=0-1', 'user-agent': 'a' }, target: '/a?sig=b' });
  const ended: LoggedEnding = { ...ENDED, tier: 'memory', reason: 'memory', rule: 1 };
  for (const [one, end] of [
    [request, ended],
    [asked({ trace: newTrace(true) }), ended],
    [asked(), ENDED],
  ] as const) {
    write(one, end);
    const { level, time, name, pid, msg, ...fields } = parsed().at(-1) ?? {};
    t.strictSame(requestFields(one, end), fields);
    t.ok([level, time, name, pid, msg].every((each) => each !== undefined));
  }
});

void t.test('no line holds what grants access, a name, or more of a field than is useful', async (t) => {
  for (const format of ['json', 'combined'] as const) {
    const { write, lines } = openLog({ format });
    const fields = {
      authorization: 'Bearer secret1',
      cookie: 'secret2',
      referer: 'https://chat.example/?token=secret3',
      'user-agent': `agent?sig=secret4 ${'x'.repeat(400)}`,
      range: 'bytes=0-1&sig=secret5',
    };
    write(asked({ fields, caller: CALLER, target: '/v1/media/X?exp=1&sig=secret6&%73ig=secret7' }), ENDED);
    const line = lines.join('');
    t.notMatch(line, /secret|ada|x{300}/);
    t.match(line, /exp=1/);
  }
});

void t.test('every target is shown as one that is looked at as a whole', async (t) => {
  const { write, parsed } = openLog();
  const token = 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln';
  const targets = [
    '/',
    '/v1/media/X/thumb?w=1&h=2',
    '/v1/media/X/thumb?w=1&h=2',
    '/v1/media/X?sig=secret',
    '/v1/media/X?sig=secret',
    `/${token}`,
    `/a?x=${token}`,
    '/a=sig=secret?x',
    '/a%3Fsig%3Dsecret?w=1',
    '/bearer%20secret?w=1',
    '/a?"\\&w=\u0001',
    '/a"?w=1',
    `/${'x'.repeat(600)}?w=1`,
    `/a?${'x'.repeat(3_000)}`,
    ...Array.from({ length: 600 }, (_, count) => `/a?w=${count}`),
  ];
  for (const target of targets) write(asked({ target }), ENDED);
  t.strictSame(
    parsed().map(({ target }) => target),
    targets.map(loggable),
  );
  t.notMatch(JSON.stringify(parsed()), /secret|c2ln/);
});

void t.test('what a client repeats on its connection is written once, as long as it is the same caller', async (t) => {
  const { write, parsed } = openLog();
  const carrier = {};
  let read = 0;
  const sender = () => {
    read += 1;
    return { address: `192.0.2.${read}` };
  };
  write(asked({ carrier, sender }), ENDED);
  write(asked({ carrier, sender }), ENDED);
  write(asked({ carrier, sender, caller: CALLER }), ENDED);
  write(asked({ carrier: {}, sender }), ENDED);
  t.same(
    parsed().map(({ address, subject }) => [address, subject]),
    [
      ['192.0.2.1', undefined],
      ['192.0.2.1', undefined],
      ['192.0.2.2', subjectMark(CALLER)],
      ['192.0.2.3', undefined],
    ],
  );
});

void t.test('the configuration says which requests are logged', async (t) => {
  const statuses = (config: Partial<RequestLogDeps['config']>): readonly unknown[] => {
    const { write, parsed } = openLog(config);
    for (const status of [200, 499, 500, 503, 0]) write(asked(), { ...ENDED, status });
    return parsed().map(({ status }) => status);
  };
  t.strictSame(statuses({ requests: 'all' }), [200, 499, 500, 503, 0]);
  t.strictSame(statuses({ requests: 'failed' }), [500, 503, 0]);
  t.strictSame(statuses({ requests: 'none' }), []);
  for (const level of ['trace', 'debug', 'info'] as const) t.equal(statuses({ level }).length, 5, level);
  for (const level of ['warn', 'error', 'silent'] as const) t.equal(statuses({ level }).length, 0, level);
});

void t.test('the combined format is that of Apache, and no field ends it', async (t) => {
  const { write, lines } = openLog({ format: 'combined' });
  write(asked(), ENDED);
  const fields = { referer: 'https://chat.example/"\\', 'user-agent': 'agent\n"é' };
  write(asked({ caller: CALLER, fields, target: '/"\u0001', protocol: 'HTTP/2.0', address: '2001:db8::1' }), {
    ...ENDED,
    status: 0,
  });
  t.strictSame(lines, [
    '192.0.2.1 - - [01/Jan/2026:00:00:00 +0000] "GET /v1/media/X?w=1 HTTP/1.1" 200 12 "-" "-"\n',
    `2001:db8::1 - ${subjectMark(CALLER)} [01/Jan/2026:00:00:00 +0000] "GET /\\"\\x01 HTTP/2.0" 0 12 ` +
      '"https://chat.example/\\"\\\\" "agent\\x0a\\"\\xc3\\xa9"\n',
  ]);
});
