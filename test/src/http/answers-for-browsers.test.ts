/** What every answer carries for browsers, and how a failure becomes an answer. */
import t from 'tap';
import { FAULTS, Fault, type FaultCode } from '../../../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS, MEDIA_CORS_HEADERS, preflightReply } from '../../../src/http/browser.js';
import { clientProblem, problemReply } from '../../../src/http/problem.js';
import { type HeaderList, headerOf, type Reply } from '../../../src/http/reply.js';

function membersOf(headers: HeaderList, name: string): readonly string[] {
  return (headerOf(headers, name) ?? '').split(', ');
}

void t.test('a browser runs nothing of what strangers uploaded', async (t) => {
  t.strictSame(Object.fromEntries(GUARD_HEADERS), {
    'x-content-type-options': 'nosniff',
    'content-security-policy':
      "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
    'cross-origin-resource-policy': 'cross-origin',
    'referrer-policy': 'no-referrer',
  });
});

void t.test('scripts of other sites read the fields that the answers have', async (t) => {
  for (const headers of [MEDIA_CORS_HEADERS, CORS_HEADERS]) {
    t.equal(headerOf(headers, 'access-control-allow-origin'), '*');
    t.equal(headerOf(headers, 'access-control-allow-credentials'), undefined);
  }
  t.strictSame(membersOf(MEDIA_CORS_HEADERS, 'access-control-expose-headers'), [
    'Accept-Ranges',
    'Age',
    'Cache-Status',
    'Content-Disposition',
    'Content-Length',
    'Content-Range',
    'ETag',
    'Last-Modified',
    'Media-Duration',
    'Media-Height',
    'Media-Thumbhash',
    'Media-Width',
    'Repr-Digest',
    'Sunset',
    'X-Request-Id',
  ]);
  t.strictSame(membersOf(CORS_HEADERS, 'access-control-expose-headers'), [
    'Age',
    'Cache-Status',
    'ETag',
    'Location',
    'Media-Location',
    'Media-Placeholder',
    'RateLimit',
    'RateLimit-Policy',
    'Retry-After',
    'Takedown-Confirmed',
    'Tus-Checksum-Algorithm',
    'Tus-Extension',
    'Tus-Max-Size',
    'Tus-Resumable',
    'Tus-Version',
    'Upload-Defer-Length',
    'Upload-Expires',
    'Upload-Length',
    'Upload-Metadata',
    'Upload-Offset',
    'WWW-Authenticate',
    'X-Request-Id',
  ]);
});

void t.test('a preflight names methods and fields, for a day, and is not stored', async (t) => {
  const { status, headers } = preflightReply(['GET', 'HEAD']);
  t.equal(status, 204);
  t.equal(headerOf(headers, 'allow'), 'GET, HEAD');
  t.equal(headerOf(headers, 'access-control-allow-methods'), 'GET, HEAD');
  t.equal(headerOf(headers, 'access-control-max-age'), '86400');
  t.equal(headerOf(headers, 'cache-control'), 'no-store');
  t.strictSame(membersOf(headers, 'access-control-allow-headers'), [
    'Authorization',
    'Cache-Control',
    'Content-Digest',
    'Content-Disposition',
    'Content-Type',
    'If-Match',
    'If-Modified-Since',
    'If-None-Match',
    'If-Range',
    'If-Unmodified-Since',
    'Range',
    'Repr-Digest',
    'Tus-Resumable',
    'Upload-Checksum',
    'Upload-Concat',
    'Upload-Defer-Length',
    'Upload-Length',
    'Upload-Metadata',
    'Upload-Offset',
    'X-HTTP-Method-Override',
    'X-Request-Id',
    'X-Requested-With',
  ]);
});

function documentOf({ body }: Reply): unknown {
  return body.kind === 'bytes' ? JSON.parse(body.bytes.toString()) : undefined;
}

void t.test('a failure is a problem document with its public texts alone (RFC 9457)', async (t) => {
  for (const code of Object.keys(FAULTS) as FaultCode[]) {
    const { status, title } = FAULTS[code];
    const reply = problemReply(new Fault(code, 'in words', { cause: new Error('internal') }));
    t.equal(reply.status, status);
    t.strictSame(documentOf(reply), {
      type: `urn:media-service:problem:${code}`,
      title,
      status,
      detail: 'in words',
      code,
    });
    const headers = Object.fromEntries(reply.headers);
    t.strictSame(headers, {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      ...(status === 401 && { 'www-authenticate': 'Bearer realm="media"' }),
      ...(status === 503 && { 'retry-after': '1' }),
      ...(status === 507 && { 'retry-after': '60' }),
    });
  }
});

void t.test('what a fault says itself counts before the usual', async (t) => {
  const cases: readonly (readonly [FaultCode, string, string])[] = [
    ['unauthorized', 'www-authenticate', 'Bearer error="invalid_token"'],
    ['overloaded', 'retry-after', '7'],
    ['storage_full', 'retry-after', '8'],
  ];
  for (const [code, name, value] of cases) {
    const { headers } = problemReply(new Fault(code, '', { headers: { [name]: value } }));
    t.strictSame(
      headers.filter(([each]) => each === name),
      [[name, value]],
    );
  }
  const reply = problemReply(new Fault('conflict', 'd', { members: { offset: 5 } }));
  t.match(documentOf(reply), { offset: 5, code: 'conflict' });
});

void t.test('a script of any site may read a failure', async (t) => {
  const { headers } = clientProblem(new Fault('not_found', ''));
  for (const [name, value] of [...GUARD_HEADERS, ...CORS_HEADERS]) t.equal(headerOf(headers, name), value, name);
});
