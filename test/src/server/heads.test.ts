/** The limits on heads at their bounds: exactly as much as is allowed passes, and one more of anything does not. */
import t from 'tap';
import {
  type Inspection,
  type InspectionLimits,
  inspect,
  inspectHttp2,
  parserFault,
} from '../../../src/server/hygiene.js';

const LIMITS: InspectionLimits = { targetMaxBytes: 10, headersMaxCount: 3, headersMaxBytes: 1_000 };
const told = (inspection: Inspection): readonly string[] =>
  inspection.kind === 'ok' ? ['ok'] : [inspection.reason, inspection.code];

function overHttp1(target: string, rawHeaders: readonly string[], more: object = {}): readonly string[] {
  return told(inspect({ method: 'GET', target, httpVersion: '1.1', rawHeaders, ...more }, LIMITS));
}

function overHttp2(
  target: string,
  rawHeaders: readonly string[],
  limits: Partial<InspectionLimits> = {},
  method = 'GET',
) {
  return told(inspectHttp2({ method, target, rawHeaders }, { ...LIMITS, ...limits }));
}

const HOST = ['host', 'h'];

void t.test('a target and the number of fields have limits, over both protocols', async (t) => {
  for (const over of [overHttp1, overHttp2]) {
    t.strictSame(over('/123456789', HOST), ['ok']);
    t.strictSame(over('/1234567890', HOST), ['target_too_long', 'uri_too_long']);
    t.strictSame(over('/', [...HOST, 'x-a', '', 'x-b', '']), ['ok']);
    t.strictSame(over('/', [...HOST, 'x-a', '', 'x-b', '', 'x-c', '']), ['fields_too_many', 'headers_too_large']);
    t.strictSame(over('/', []), ['host_missing', 'malformed']);
    t.strictSame(over('/', [...HOST, ...HOST]), ['host_repeated', 'malformed']);
    t.strictSame(over('/', ['host', 'a b']), ['host_malformed', 'malformed']);
  }
});

void t.test('a head over HTTP/2 is as large as RFC 9113 6.5.2 counts it', async (t) => {
  // GET and /, and for each field its name, its value and 32.
  const one = 3 + 1 + (4 + 1 + 32);
  t.strictSame(overHttp2('/', HOST, { headersMaxBytes: one }), ['ok']);
  t.strictSame(overHttp2('/', HOST, { headersMaxBytes: one - 1 }), ['fields_too_large', 'headers_too_large']);
  const two = one + (3 + 5 + 32);
  t.strictSame(overHttp2('/', [...HOST, 'x-a', '12345'], { headersMaxBytes: two }), ['ok']);
  t.strictSame(overHttp2('/', [...HOST, 'x-a', '12345'], { headersMaxBytes: two - 1 }), [
    'fields_too_large',
    'headers_too_large',
  ]);
});

void t.test('over HTTP/2 a target is a path, and a method one that is known', async (t) => {
  t.strictSame(overHttp2('http://h/', HOST), ['target', 'malformed']);
  t.strictSame(overHttp2('*', HOST), ['target', 'malformed']);
  t.strictSame(overHttp2('*', HOST, {}, 'OPTIONS'), ['ok']);
  for (const method of ['get', '', 'GET ', 'NEW'])
    t.strictSame(overHttp2('/', HOST, {}, method), ['method', 'malformed']);
});

void t.test('over HTTP/1 a version and a request line are what they must be', async (t) => {
  t.strictSame(overHttp1('/', [], { httpVersion: '1.0' }), ['ok']);
  for (const httpVersion of ['0.9', '2.0', '1.2']) {
    t.strictSame(overHttp1('/', HOST, { httpVersion }), ['version', 'http_version']);
  }
  t.strictSame(overHttp1('/', HOST, { regularLine: false }), ['request_line', 'malformed']);
  t.strictSame(overHttp1('/', HOST, { regularLine: true }), ['ok']);
  t.strictSame(overHttp1('/', [...HOST, 'Expect', '100-Continue']), ['ok']);
  t.strictSame(overHttp1('/', [...HOST, 'Expect', '']), ['ok']);
  t.strictSame(overHttp1('/', [...HOST, 'Expect', 'more']), ['expectation', 'expectation_failed']);
  t.strictSame(overHttp1('/', ['Expect', 'more'], { httpVersion: '1.0' }), ['ok']);
});

void t.test('what the parser refuses is told by its code', async (t) => {
  for (const [code, lineTooLong, expected] of [
    ['HPE_HEADER_OVERFLOW', true, 'uri_too_long'],
    ['HPE_HEADER_OVERFLOW', false, 'headers_too_large'],
    ['HPE_CHUNK_EXTENSIONS_OVERFLOW', false, 'too_large'],
    ['HPE_INVALID_EOF_STATE', false, 'malformed'],
    ['ERR_HTTP_REQUEST_TIMEOUT', false, 'request_timeout'],
    ['HPE_INVALID_METHOD', true, 'malformed'],
    [undefined, false, 'malformed'],
  ] as const) {
    t.equal(parserFault(code, lineTooLong).code, expected, String(code));
  }
});
