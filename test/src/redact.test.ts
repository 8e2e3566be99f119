import t from 'tap';
import { createLog, errorFields } from '../../src/log.js';
import { redactText } from '../../src/redact.js';

/** What must not be in a log line, wherever it stands. */
const SECRET = 'qJd0-s3cr_t';
const JWT = `eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.${SECRET}`;
const enc = (text: string): string => Buffer.from(text).toString('hex').replace(/../g, '%$&');

const TEXTS: readonly string[] = [
  `/v1/media/X?sig=${SECRET}&exp=5`,
  `/v1/media/X?exp=5&SIG=${SECRET}`,
  `/v1/media/X?%73ig=${SECRET}`,
  `/v1/media/X?s%69%47=${SECRET}`,
  `/v1/media/X?${enc('sig')}=${enc(SECRET)}&w=1`,
  `/v1/media/X?%2573ig=${SECRET}`,
  `/v1/media/X?sig%3D${SECRET}`,
  `/v1/media/X?sig=1&sig=${SECRET}&sig=2`,
  `/v1/media/X?sig=1;sig=${SECRET}`,
  `/v1/media/X&sig=${SECRET}`,
  `/v1/media/X#sig=${SECRET}`,
  `/v1/media/X?+sig=${SECRET}`,
  `/v1/media/X?%20sig%20=${SECRET}`,
  `/v1/media/X?token=${JWT}`,
  `/v1/media/X?access_token=${SECRET}`,
  `/v1/media/X?note=${JWT}`,
  `/v1/media/${JWT}`,
  `/login?next=%2Fv1%2Fmedia%2FX%3Fsig%3D${SECRET}`,
  `/login?next=${encodeURIComponent(encodeURIComponent(`/v1/media/X?sig=${SECRET}`))}`,
  `https://a.example/v1/media/X?w=1&sig=${SECRET}`,
  `https://bucket.example/k?X-Amz-Algorithm=AWS4&X-Amz-Credential=AKIA&X-Amz-Signature=${SECRET}`,
  `https://bucket.example/k?x-amz-security-token=${SECRET}`,
  `https://bucket.example/k?AWSAccessKeyId=a&Signature=${SECRET}`,
  `fetch failed: GET "http://origin:9000/v1/media/X?exp=1&sig=${SECRET}" (ECONNRESET)`,
  `Authorization: Bearer ${SECRET}`,
  `authorization=Bearer%20${SECRET}`,
  `the header was 'basic ${SECRET}'`,
  `invalid token ${JWT}.`,
];

void t.test('what grants access is removed from a text, however it is spelt', (t) => {
  for (const text of TEXTS) t.notMatch(redactText(text), new RegExp(`${SECRET}|${enc(SECRET)}`), text);
  t.end();
});

void t.test('everything else stays as it is', (t) => {
  const texts = [
    '/v1/media/X?w=1&h=2&download=a%20b.png',
    '/v1/media/X?design=1&signal=2&keys=3&tokens=4',
    '/v1/media/X?q=%zz&%=1',
    'connect ECONNREFUSED 127.0.0.1:9000',
    'no bearer here, basic or not: ="',
    '',
  ];
  for (const text of texts.slice(0, 4)) t.equal(redactText(text), text);
  t.equal(redactText('/v1/media/X?w=1&sig=abc&exp=5'), '/v1/media/X?w=1&sig=[redacted]&exp=5');
  t.equal(redactText('/l?next=%2Fx%3Fsig%3Dabc&w=1'), '/l?next=[redacted]&w=1');
  t.equal(redactText(`say ${JWT} twice`), 'say [redacted] twice');
  t.end();
});

void t.test('no line of a log has one, in whatever field it is', (t) => {
  const lines: string[] = [];
  const log = createLog('test', { level: 'debug' }, { write: (line) => void lines.push(line) });
  for (const text of TEXTS) {
    log.info({ referer: text, target: text, nested: { deeper: [{ url: text }] } }, 'request');
    log.warn(errorFields(new Error(text, { cause: new Error(text) })), 'failed');
    log.child({ from: text }).error(errorFields(text), 'failed');
  }
  t.equal(lines.length, TEXTS.length * 3);
  for (const line of lines) t.notMatch(line, new RegExp(`${SECRET}|${enc(SECRET)}`));
  t.match(JSON.parse(lines[0] ?? ''), { referer: '/v1/media/X?sig=[redacted]&exp=5' });
  t.end();
});
