import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { codedIn, heifOf } from '../../kit/heif.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { type HttpResponse, json, member } from '../../kit/http/request.js';
import { gif, largePng, pdf, png, text, wav } from '../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../kit/origin/origin.js';
import { safariMp4 } from '../../kit/recordings.js';

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
const digestOf = (bytes: Uint8Array): string => `sha-256=:${sha256(bytes).toString('base64')}:`;
const outcome = (answer: HttpResponse): string => {
  const document = json(answer);
  return answer.status < 300
    ? `${answer.status} ${String(document['mime'])}`
    : `${answer.status} ${String(document['code'])}`;
};
/** The staged files of uploads. Thumbnail jobs have folders of their own there. */
const staged = async (origin: TestOrigin): Promise<string[]> =>
  (await readdir(join(origin.folder, 'stage'))).filter((name) => name.startsWith('upload-'));

/** The longest silence of a sender. No other timer has this delay. */
const IDLE_MS = 5_432;
/** No thumbnails; they have tests of their own. */
const STILL = { thumbs: { enabled: false, video: { enabled: false } } };

/** A form as browsers send it. */
function form(parts: readonly (readonly [disposition: string, body: Uint8Array | string, type?: string])[]): {
  readonly body: Buffer;
  readonly headers: Readonly<Record<string, string>>;
} {
  const boundary = 'boundary-of-the-test';
  const sections = parts.flatMap(([disposition, body, type]) => [
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n`),
    Buffer.from(type === undefined ? '\r\n' : `Content-Type: ${type}\r\n\r\n`),
    Buffer.from(body),
    Buffer.from('\r\n'),
  ]);
  return {
    body: Buffer.concat([...sections, Buffer.from(`--${boundary}--\r\n`)]),
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
  };
}

void t.test('uploads', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    upload: { size_max: '1MB', idle: `${IDLE_MS}ms`, grace: '10s' },
    ...STILL,
  });
  t.teardown(() => origin.close());

  await t.test('the answer to an upload describes the media', async (t) => {
    const bytes = png(1, 40, 30);
    const answer = await origin.upload(
      bytes,
      '?public=true&expires_in=3600&filename=..%2Fsecret%2Fgr%C3%BC%C3%9Fe.png',
    );
    const hash = sha256(bytes).toString('hex');
    const id = member(answer, 'id');
    t.equal(answer.status, 201);
    t.match(id, /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
    t.strictSame(json(answer), {
      id,
      url: `http://127.0.0.1:8080/v1/media/${id}`,
      thumb_url: `http://127.0.0.1:8080/v1/media/${id}/thumb`,
      etag: `"sha256:${hash}"`,
      sha256: hash,
      size: bytes.length,
      mime: 'image/png',
      public: true,
      width: 40,
      height: 30,
      duration: null,
      thumbhash: null,
      filename: 'grüße.png',
      created_at: '2026-01-01T00:00:00.000Z',
      expires_at: '2026-01-01T01:00:00.000Z',
      duplicate: false,
    });
    t.match(answer.headers, {
      'content-type': /^application\/json/,
      location: `/v1/media/${id}`,
      etag: `"sha256:${hash}"`,
      'cache-control': 'no-store',
    });
  });

  await t.test('the bytes decide the type, and the declared type must agree', async (t) => {
    const cases: readonly [bytes: Buffer, declared: string | undefined, expected: string][] = [
      [png(10), undefined, '201 image/png'],
      [png(11), 'application/octet-stream', '201 image/png'],
      [png(12), 'IMAGE/PNG; charset=binary', '201 image/png'],
      [png(13), 'image/jpeg', '415 type_mismatch'],
      [png(14), 'text/plain', '415 type_mismatch'],
      [png(15), 'nonsense', '400 malformed'],
      [gif(16), 'image/gif', '201 image/gif'],
      [pdf(17), 'application/x-pdf', '201 application/pdf'],
      [wav(18), 'audio/x-wav', '201 audio/wav'],
      [text(19), undefined, '201 text/plain'],
      [text(20), 'text/csv; charset=utf-8', '201 text/csv'],
      [text(21), 'image/png', '415 type_mismatch'],
      [Buffer.from('BM is how some sentences begin.'), 'text/plain', '201 text/plain'],
      [Buffer.from('<!doctype html><script>alert(1)</script>'), undefined, '415 type_refused'],
      [Buffer.from('<html>'), 'text/html', '415 type_refused'],
      [Buffer.from('<html>'), 'image/png', '415 type_mismatch'],
      [Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'), undefined, '415 type_refused'],
      [
        Buffer.from('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
        'image/svg+xml',
        '415 type_mismatch',
      ],
      [Buffer.from('MZ\x90\x00\x03\x00\x00\x00', 'latin1'), undefined, '415 type_refused'],
      [Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]), undefined, '415 type_refused'],
      [Buffer.from('caf\xe9', 'latin1'), 'text/plain', '415 type_mismatch'],
      [Buffer.concat([text(22), Buffer.from([0])]), 'text/plain', '415 type_mismatch'],
    ];
    for (const [bytes, declared, expected] of cases) {
      const answer = await origin.upload(bytes, '', declared === undefined ? {} : { 'content-type': declared });
      t.equal(outcome(answer), expected, `${bytes.toString('latin1', 0, 12)} as ${declared}`);
    }
    t.strictSame(await staged(origin), [], 'refused uploads leave nothing');
  });

  await t.test('a voice message is served as audio, and source code as an attachment', async (t) => {
    const voice = await origin.upload(safariMp4(['sound']), '?public=true', { 'content-type': 'audio/mp4' });
    const log = await origin.upload(text(90), '?public=true', { 'content-type': 'text/x-log' });
    const headers = async (made: HttpResponse) => (await origin.send(`/v1/media/${member(made, 'id')}`)).headers;
    t.match(await headers(voice), { 'content-type': 'audio/mp4', 'content-disposition': /^inline/ });
    t.match(await headers(log), {
      'content-type': 'text/plain; charset=utf-8',
      'content-disposition': /^attachment/,
      'x-content-type-options': 'nosniff',
    });
  });

  await t.test('a text must be UTF-8 to its last byte, also across reads', async (t) => {
    const long = Buffer.from('é'.repeat(300_000));
    t.equal(outcome(await origin.upload(long, '', { 'content-type': 'text/plain' })), '201 text/plain');
    const odd = Buffer.concat([Buffer.from('x'), long]);
    t.equal(outcome(await origin.upload(odd, '', { 'content-type': 'text/plain' })), '201 text/plain');
    const cut = long.subarray(0, long.length - 1);
    t.equal(outcome(await origin.upload(cut, '', { 'content-type': 'text/plain' })), '415 type_mismatch');
    const invalid = Buffer.from(odd);
    invalid[450_001] = 0xff;
    t.equal(outcome(await origin.upload(invalid, '', { 'content-type': 'text/plain' })), '415 type_mismatch');
  });

  await t.test('a type mismatch says whether text is not UTF-8, or else what the bytes are', async (t) => {
    const detail = async (bytes: Buffer, declared: string): Promise<string> =>
      member(await origin.upload(bytes, '', { 'content-type': declared }), 'detail');
    t.equal(
      await detail(Buffer.from('caf\xe9', 'latin1'), 'text/plain'),
      'The declared type is text/plain, but the bytes are not valid UTF-8 text.',
    );
    t.match(
      await detail(Buffer.from('a,b\0'), 'text/csv; charset=utf-8'),
      /^The declared type is text\/csv, but the bytes are not valid UTF-8/,
    );
    t.equal(await detail(png(23), 'text/plain'), 'The declared type is text/plain, but the bytes are image/png.');
    t.equal(
      await detail(Buffer.from([1, 2, 3]), 'image/png'),
      'The declared type is image/png, but the bytes are application/octet-stream.',
    );
  });

  await t.test('a stated digest must match the bytes', async (t) => {
    const bytes = png(30);
    const other = digestOf(png(31));
    const cases: readonly [headers: Record<string, string>, expected: string][] = [
      [{ 'repr-digest': digestOf(bytes) }, '201 image/png'],
      [{ 'content-digest': digestOf(bytes) }, '200 image/png'],
      [{ 'content-digest': `sha-512=:AAAA:, ${digestOf(bytes)}` }, '200 image/png'],
      [{ 'repr-digest': 'md5=:AAAA:' }, '200 image/png'],
      [{ 'repr-digest': other }, '400 digest_mismatch'],
      [{ 'repr-digest': digestOf(bytes), 'content-digest': other }, '400 digest_mismatch'],
      [{ 'repr-digest': 'sha-256=nonsense:' }, '400 malformed'],
      [{ 'repr-digest': 'sha-256=:AAAA:' }, '400 malformed'],
      [{ 'content-digest': 'sha-256' }, '400 malformed'],
    ];
    for (const [headers, expected] of cases) {
      t.equal(outcome(await origin.upload(bytes, '', headers)), expected, JSON.stringify(headers));
    }
  });

  await t.test('malformed options are refused', async (t) => {
    for (const query of ['public=yes', 'expires_in=0', 'expires_in=-5', 'expires_in=1e3', 'expires_in=soon']) {
      t.equal(outcome(await origin.upload(png(40), `?${query}`)), '400 malformed', query);
    }
    t.equal(outcome(await origin.upload(png(40), '', { 'content-encoding': 'gzip' })), '415 type_refused');
  });

  await t.test('a form has one file, with options before or after it', async (t) => {
    const bytes = png(50);
    const file = ['name="file"; filename="a \\"b\\" c.png"', bytes, 'image/png'] as const;
    const send = (parts: Parameters<typeof form>[0], headers: Record<string, string> = {}): Promise<HttpResponse> => {
      const { body, headers: own } = form(parts);
      return origin.upload(body, '', { ...own, ...headers });
    };
    const created = await send([['name="public"', 'true'], file, ['name="expires_in"', '60']]);
    t.match(json(created), {
      sha256: sha256(bytes).toString('hex'),
      public: true,
      expires_at: '2026-01-01T00:01:00.000Z',
      filename: 'a "b" c.png',
      mime: 'image/png',
    });
    t.equal(member(await send([file, ['name="filename"', 'mine.png']]), 'filename'), 'mine.png');
    t.equal(outcome(await send([['name="file"; filename="x"', png(51)]])), '201 image/png', 'without a type');

    const refusals: readonly [parts: Parameters<typeof form>[0], expected: string][] = [
      [[['name="public"', 'true']], '400 malformed'],
      [[file, file], '400 malformed'],
      [[['name="other"; filename="x.png"', bytes]], '400 malformed'],
      [[['filename="x.png"', bytes]], '400 malformed'],
      [[file, ['name="public"', 'perhaps']], '400 malformed'],
      [[file, ['name="public"', 'true'], ['name="public"', 'false']], '400 malformed'],
      [[file, ['name="filename"', 'x'.repeat(5_000)]], '400 malformed'],
      [[file, ...Array.from({ length: 9 }, (_, at) => [`name="f${at}"`, 'x'] as const)], '400 malformed'],
      [[['name="file"; filename="x"', '']], '400 empty'],
      [[['name="file"; filename="x"', png(52), 'image/jpeg']], '415 type_mismatch'],
    ];
    for (const [parts, expected] of refusals) {
      t.equal(outcome(await send(parts)), expected, JSON.stringify(parts.map(([disposition]) => disposition)));
    }
    const { body, headers } = form([file]);
    t.equal(
      outcome(await origin.upload(body.subarray(0, body.length - 20), '', headers)),
      '400 malformed',
      'cut short',
    );
    t.equal(outcome(await origin.upload(body, '', { 'content-type': 'multipart/form-data' })), '400 malformed');
    t.equal(outcome(await origin.upload(Buffer.from('none of that'), '', headers)), '400 malformed');

    // As .NET, older clients and Python send names beyond ASCII.
    let seed = 500;
    const named = async (disposition: string): Promise<string> => {
      seed += 1;
      return member(await send([[`name="file"; ${disposition}`, png(seed)]]), 'filename');
    };
    const word = '=?utf-8?B?R3LDvMOfZS5wbmc=?=';
    t.equal(await named(`filename="${word}"; filename*=utf-8''Gr%C3%BC%C3%9Fe.png`), 'Grüße.png');
    t.equal(await named(`filename="${word}"`), 'Grüße.png');
    t.equal(await named("filename*=utf-8''..%2FGr%C3%BC%C3%9Fe.png"), 'Grüße.png');
    const latin1 = form([['name="file"; filename="Grusse.png"', png(55)]]);
    const name = latin1.body.indexOf('Grusse');
    latin1.body.set([0xfc, 0xdf], name + 2);
    t.match(json(await origin.upload(latin1.body, '', latin1.headers)), { filename: 'Grüßse.png' });
    const labelled = await send([['name="file"; filename="a.csv"', 'a,b\r\n1,2\r\n', 'application/vnd.ms-excel']]);
    t.equal(outcome(labelled), '201 text/csv');
    t.equal(outcome(await send([['name="file"; filename="a.png"', png(56), 'image/*']])), '201 image/png');

    const whole = form([['name="file"; filename="x"', png(53)]]);
    t.equal(
      outcome(await origin.upload(whole.body, '', { ...whole.headers, 'content-digest': digestOf(whole.body) })),
      '201 image/png',
    );
    t.equal(
      outcome(await origin.upload(whole.body, '', { ...whole.headers, 'repr-digest': digestOf(png(53)) })),
      '200 image/png',
    );
    t.equal(
      outcome(await origin.upload(whole.body, '', { ...whole.headers, 'repr-digest': digestOf(png(54)) })),
      '400 digest_mismatch',
    );
    t.strictSame(await staged(origin), []);
  });

  await t.test('what a form has beside its file is limited, and nothing of it is cut off', async (t) => {
    const boundary = 'boundary-of-the-test';
    const head = 'Content-Disposition: form-data; name="file"; filename="x.png"';
    const send = async (lines: readonly string[], bytes: Buffer, before = '', after = ''): Promise<string> => {
      const body = Buffer.concat([
        Buffer.from(`${before}--${boundary}\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`),
        bytes,
        Buffer.from(`\r\n--${boundary}--\r\n${after}`),
      ]);
      const headers = { 'content-type': `multipart/form-data; boundary=${boundary}` };
      const [sized, chunked] = [headers, { ...headers, 'transfer-encoding': 'chunked' }];
      const answers = [await origin.upload(body, '', sized), await origin.upload(body, '', chunked)];
      const [first, second] = answers.map((answer) => outcome(answer).replace(/^200/, '201'));
      return first === second ? String(first) : `${first}, but chunked ${second}`;
    };
    const small = png(54);
    const large = largePng(55, 900_000);
    const fixed = `--${boundary}\r\n${head}\r\n\r\n\r\n--${boundary}--\r\n`.length;
    const room = 65_536 - fixed;
    const x = (count: number): string => 'x'.repeat(count);
    const pairs = (count: number): string[] => Array.from({ length: count }, (_, at) => `X-${at}: y`);
    for (const [what, lines, bytes, before, after, expected] of [
      ['a header as long as one may be', [head, `X: ${x(8_192 - head.length - 7)}`], small, '', '', '201 image/png'],
      ['a longer one', [head, `X: ${x(8_192 - head.length - 6)}`], small, '', '', '400 malformed'],
      ['a long name of the file behind it', [`X: ${x(10_000)}`, head], small, '', '', '400 malformed'],
      ['a header of blanks', [head, `X: ${' '.repeat(70_000)}y`], small, '', '', '400 malformed'],
      ['sixteen header fields', [head, ...pairs(15)], small, '', '', '201 image/png'],
      ['seventeen', [...pairs(16), head], small, '', '', '400 malformed'],
      ['thirty', [...pairs(29), head], small, '', '', '400 malformed'],
      ['a preamble that fits', [head], small, `${x(room - 2)}\r\n`, '', '201 image/png'],
      ['one that does not', [head], small, `${x(room - 1)}\r\n`, '', '413 too_large'],
      ['an epilogue that fits', [head], small, '', x(room), '201 image/png'],
      ['one that does not', [head], small, '', x(room + 1), '413 too_large'],
      ['an epilogue behind a large file', [head], large, '', x(room), '201 image/png'],
      ['one that does not fit', [head], large, '', x(room + 1), '413 too_large'],
      ['a preamble as large as a file', [head], small, `${x(900_000)}\r\n`, '', '413 too_large'],
    ] as const) {
      t.equal(await send(lines, bytes, before, after), expected, what);
    }
    t.strictSame(await staged(origin), []);
  });

  await t.test('an empty or too large upload is refused, and the client can read the refusal', async (t) => {
    t.equal(outcome(await origin.upload(Buffer.alloc(0))), '400 empty');
    const limit = largePng(60, 1_000_000);
    t.equal(limit.length, 1_000_000);
    t.equal(outcome(await origin.upload(limit)), '201 image/png', 'the largest allowed size');
    const large = largePng(61, 1_000_001);
    t.equal(outcome(await origin.upload(large)), '413 too_large');
    t.equal(
      outcome(await origin.upload(large, '', { 'transfer-encoding': 'chunked' })),
      '413 too_large',
      'of unknown length',
    );
    const { body, headers } = form([['name="file"; filename="x"', large]]);
    t.equal(outcome(await origin.upload(body, '', headers)), '413 too_large', 'in a form');
    t.equal(outcome(await origin.upload(body, '', { ...headers, 'transfer-encoding': 'chunked' })), '413 too_large');
    t.equal(
      outcome(await origin.upload(randomBytes(8_000_000))),
      '413 too_large',
      'a client that continues to send gets the answer',
    );
    t.strictSame(await staged(origin), []);
  });

  await t.test('an upload without a token that allows it is refused', async (t) => {
    t.match(await origin.send('/v1/media', { method: 'POST', body: png(70) }), {
      status: 401,
      headers: { 'www-authenticate': /^Bearer / },
    });
    const reader = origin.auth.token({ scope: 'media:read' });
    const limited = await origin.send('/v1/media', {
      method: 'POST',
      body: png(70),
      headers: { authorization: `Bearer ${reader}` },
    });
    t.equal(outcome(limited), '403 forbidden');
  });

  await t.test('a client that waits for 100 Continue need not send a body that is refused', async (t) => {
    const token = `Bearer ${origin.auth.token()}`;
    const refusals: readonly [headers: Record<string, string | number>, status: RegExp][] = [
      [{ 'content-length': 100 }, /^HTTP\/1\.1 401 /],
      [{ 'content-length': 1_000_001, authorization: token }, /^HTTP\/1\.1 413 /],
      [{ 'content-length': 100, authorization: token, 'content-encoding': 'br' }, /^HTTP\/1\.1 415 /],
    ];
    for (const [headers, status] of refusals) {
      const wire = await connectRaw(origin.port);
      wire.write(requestHead('POST', '/v1/media', { ...headers, expect: '100-continue' }));
      const answer = await wire.whole();
      wire.socket.destroy();
      t.match(answer, status);
      t.match(answer, /connection: close/i);
    }
    const bytes = png(71);
    const wire = await connectRaw(origin.port);
    wire.write(
      requestHead('POST', '/v1/media', {
        'content-length': bytes.length,
        authorization: token,
        expect: '100-continue',
      }),
    );
    await wire.until(/^HTTP\/1\.1 100 Continue\r\n\r\n/);
    wire.write(bytes);
    t.match(await wire.until(/"duplicate":false\}$/), /HTTP\/1\.1 201 /);
    wire.socket.destroy();
  });

  await t.test('a body that breaks off leaves nothing behind', async (t) => {
    const wire = await connectRaw(origin.port);
    const headers = { authorization: `Bearer ${origin.auth.token()}`, 'content-length': 900_000 };
    wire.write(requestHead('POST', '/v1/media', headers));
    // Enough bytes that some are written before the rest arrives.
    wire.write(largePng(80, 800_000));
    while ((await staged(origin)).length === 0) await new Promise(setImmediate);
    wire.reset();
    while ((await staged(origin)).length > 0) await new Promise(setImmediate);
    t.pass('the staged file is gone');
  });

  await t.test('a sender that stops sending gets a 408', async (t) => {
    const wire = await connectRaw(origin.port);
    wire.write(
      requestHead('POST', '/v1/media', { authorization: `Bearer ${origin.auth.token()}`, 'content-length': 1_000 }),
    );
    wire.write('half');
    await origin.clock.timerSet(IDLE_MS);
    origin.clock.advance(IDLE_MS);
    t.match(await wire.until(/request_timeout/), /^HTTP\/1\.1 408 /);
    wire.socket.destroy();
    t.same(await staged(origin), []);
  });

  await t.test('no upload leaves a staged file, whatever its outcome', async (t) => {
    const bytes = png(91);
    const outcomeWith = async (query: string): Promise<string> => outcome(await origin.upload(bytes, query));
    t.equal(await outcomeWith(''), '201 image/png', 'new');
    t.equal(await outcomeWith(''), '200 image/png', 'a duplicate');
    t.equal(await outcomeWith('?public=true'), '201 image/png', 'a new id for stored bytes');
    t.equal(outcome(await origin.upload(randomBytes(5_000))), '415 type_refused');
    t.same(await staged(origin), []);
  });

  await t.test('the same bytes have one id for each visibility, with the later expiry', async (t) => {
    const bytes = png(90);
    const first = await origin.upload(bytes, '?expires_in=100');
    const later = await origin.upload(bytes, '?expires_in=200');
    const sooner = await origin.upload(bytes, '?expires_in=50');
    t.strictSame([first.status, later.status, sooner.status], [201, 200, 200]);
    t.equal(member(later, 'id'), member(first, 'id'));
    t.match(json(sooner), { duplicate: true, expires_at: json(later)['expires_at'] });
    const open = await origin.upload(bytes, '?public=true');
    t.equal(open.status, 201);
    t.not(member(open, 'id'), member(first, 'id'));
    t.equal(json(await origin.upload(bytes))['expires_at'], null, 'no expiry is later than any');
  });

  await t.test('simultaneous uploads of the same bytes become one record', async (t) => {
    const bytes = largePng(91, 300_000);
    const answers = await Promise.all(Array.from({ length: 8 }, () => origin.upload(bytes)));
    t.equal(new Set(answers.map((answer) => member(answer, 'id'))).size, 1);
    t.strictSame(
      answers.map(({ status }) => status).sort((one, other) => one - other),
      [200, 200, 200, 200, 200, 200, 200, 201],
    );
  });

  await t.test('uploads of quarantined bytes are refused until the bytes are restored', async (t) => {
    const bytes = png(92);
    const id = await origin.uploaded(bytes);
    t.equal((await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'POST' })).status, 204);
    t.equal(outcome(await origin.upload(bytes)), '403 quarantined');
    t.equal(outcome(await origin.upload(bytes, '?public=true')), '403 quarantined');
    t.equal((await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'DELETE' })).status, 204);
    t.equal(outcome(await origin.upload(bytes)), '200 image/png');
  });

  await t.test('an upload that was answered is there after a restart', async (t) => {
    const bytes = png(93);
    const id = await origin.uploaded(bytes);
    await origin.restart();
    const answer = await origin.as('bob', `/v1/media/${id}`);
    t.ok(answer.bytes.equals(bytes));
  });

  await t.test('a body that ends before its length, or without its last chunk, is told so', async (t) => {
    const authorization = `Bearer ${origin.auth.token()}`;
    for (const [framing, body] of [
      [{ 'content-length': 100 }, 'only this'],
      [{ 'transfer-encoding': 'chunked' }, '9\r\nonly this\r\n'],
    ] as const) {
      const wire = await connectRaw(origin.port);
      wire.write(requestHead('POST', '/v1/media', { authorization, ...framing }) + body);
      wire.end();
      const answer = await wire.whole();
      t.match(answer, /^HTTP\/1\.1 400 /);
      t.match(answer, /"detail":"The (?:request|body) ended before it was complete\."/);
    }
  });

  await t.test('the OpenAPI document describes every answer', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('limits on uploads', async (t) => {
  await t.test('simultaneous uploads are limited in number and in bytes', async (t) => {
    const origin = await startOrigin(t.testdir(), {
      upload: { uploads_max: 2, in_hand_max: '1MB', size_max: '1MB' },
      ...STILL,
    });
    t.teardown(() => origin.close());
    const token = `Bearer ${origin.auth.token()}`;
    const begin = async (length: number) => {
      const wire = await connectRaw(origin.port);
      wire.write(
        requestHead('POST', '/v1/media', { authorization: token, 'content-length': length, expect: '100-continue' }),
      );
      return wire;
    };
    const large = await begin(900_000);
    await large.until(/100 Continue/);
    const more = await begin(200_000);
    t.match(await more.whole(), /^HTTP\/1\.1 503 [\s\S]*retry-after: \d+[\s\S]*overloaded/i, 'too many bytes');
    const small = await begin(50_000);
    await small.until(/100 Continue/);
    const third = await begin(10);
    t.match(await third.whole(), /^HTTP\/1\.1 503 /, 'too many uploads');
    for (const wire of [large, small, more, third]) wire.socket.destroy();
    let answer = await origin.upload(png(1));
    while (answer.status === 503) answer = await origin.upload(png(1));
    t.equal(answer.status, 201, 'their room is released when they end');
  });

  await t.test('uploads are refused before the disk is full', async (t) => {
    const origin = await startOrigin(t.testdir(), { upload: { free_min: '900TB' }, ...STILL });
    t.teardown(() => origin.close());
    t.equal(outcome(await origin.upload(png(1))), '507 storage_full');
    t.match(json(await origin.send('/readyz')), { failed: ['disk'] });
  });

  await t.test('a quota counts stored uploads', async (t) => {
    const origin = await startOrigin(t.testdir(), { quota: { files_max: 2, period: '1h' }, ...STILL });
    t.teardown(() => origin.close());
    t.equal((await origin.upload(png(1))).status, 201);
    t.equal((await origin.upload(png(1))).status, 200, 'a duplicate is free');
    t.equal((await origin.upload(png(2))).status, 201);
    const refused = await origin.upload(png(3));
    t.equal(outcome(refused), '429 quota_exceeded');
    t.equal(refused.headers['retry-after'], '3600');
    origin.clock.advance(3_600_000);
    t.equal((await origin.as('alice', '/v1/media', { method: 'POST', body: png(3) })).status, 201);
  });
});

void t.test('uploads are scanned if configured', async (t) => {
  const folder = t.testdir({ 'scanner.sh': SCANNER });
  const scan = { by: 'command', command: ['/bin/sh', join(folder, 'scanner.sh'), '{file}'] };
  const origin = await startOrigin(join(folder, 'data'), { upload: { scan }, ...STILL });
  t.teardown(() => origin.close());
  t.equal(outcome(await origin.upload(text(1))), '201 text/plain');
  const infected = Buffer.from('this is INFECTED, they say');
  t.equal(outcome(await origin.upload(infected)), '403 quarantined');
  const items = json(await origin.asAdmin('/v1/admin/media?state=quarantined'))['items'] as { id: string }[];
  t.equal(items.length, 1, 'it is stored for admins to examine');
  const id = items[0]?.id ?? '';
  t.match(json(await origin.asAdmin(`/v1/admin/media/${id}`)), {
    content: { quarantine: { by: 'scanner', reason: 'Test.Words' } },
  });
  t.equal((await origin.as('alice', `/v1/media/${id}`)).status, 403);
  t.strictSame(await staged(origin), []);
});

void t.test('uploads while the scanner does not answer are stored, and withheld until they are scanned', async (t) => {
  // The clock is moved while scans run, so their time limit must not end them.
  const folder = t.testdir({ 'scanner.sh': `test -e "$(dirname "$0")/away" && exit 3\n${SCANNER}`, away: '' });
  const scan = { by: 'command', command: ['/bin/sh', join(folder, 'scanner.sh'), '{file}'], time_limit: '365d' };
  const origin = await startOrigin(join(folder, 'data'), { upload: { scan }, ...STILL });
  t.teardown(() => origin.close());
  const unscanned = await origin.upload(text(1), '?public=true');
  t.equal(outcome(unscanned), '201 text/plain');
  const id = member(unscanned, 'id');
  t.match(outcome(await origin.upload(text(1), '?public=true')), '200 text/plain', 'the same bytes are a duplicate');
  const infected = Buffer.from('this is INFECTED, they say');
  const bad = member(await origin.upload(infected), 'id');
  const broken = member(await origin.upload(Buffer.from('the scanner BREAKS at this')), 'id');
  const states = async () => {
    const items = json(await origin.asAdmin('/v1/admin/media'))['items'] as { id: string; state: string }[];
    return Object.fromEntries(items.map((item) => [item.id, item.state]));
  };
  t.strictSame(await states(), { [id]: 'held', [bad]: 'held', [broken]: 'held' });
  await origin.restart();
  for (const path of [`/v1/media/${id}`, `/v1/media/${id}/thumb`]) {
    t.equal(outcome(await origin.send(path)), '403 quarantined', path);
  }
  t.equal(
    (await origin.send(`/v1/media/${bad}`)).status,
    401,
    'without a token it looks like media that does not exist',
  );

  await rm(join(folder, 'away'));
  const wanted = { [id]: 'live', [bad]: 'quarantined', [broken]: 'held' };
  while (JSON.stringify(await states()) !== JSON.stringify(wanted)) origin.clock.advance(60_000);
  t.ok((await origin.send(`/v1/media/${id}`)).bytes.equals(text(1)));
  t.match(json(await origin.asAdmin(`/v1/admin/media/${bad}`)), { content: { quarantine: { reason: 'Test.Words' } } });
  t.equal(outcome(await origin.upload(infected)), '403 quarantined');
  t.equal(outcome(await origin.upload(text(1))), '201 text/plain', 'a scanned upload is like any other');
  t.strictSame(await staged(origin), []);
});

/** A scanner whose answer is in the file. */
const SCANNER = `
  grep -q BREAKS "$1" && exit 3
  grep -q INFECTED "$1" || exit 0
  echo "$1: Test.Words FOUND"
  exit 1
`;

void t.test('metadata with the location is removed from pictures if configured', async (t) => {
  const origin = await startOrigin(t.testdir(), { upload: { strip_originals: { enabled: true } }, ...STILL });
  t.teardown(() => origin.close());
  const sent = largePng(1, 10_000);
  const stored = await origin.upload(sent, '', { 'repr-digest': digestOf(sent) });
  t.equal(outcome(stored), '201 image/png');
  const got = await origin.as('bob', `/v1/media/${member(stored, 'id')}`);
  t.ok(got.bytes.equals(png(1)), 'only the comment is removed');
  t.equal(member(stored, 'sha256'), sha256(got.bytes).toString('hex'), 'the answer has the hash of the stored bytes');
  t.equal(member(await origin.upload(sent), 'id'), member(stored, 'id'), 'the same file is still a duplicate');
  const alone = await origin.upload(png(1));
  t.equal(alone.status, 201, 'the stored bytes, sent as they are, are another upload');
  t.equal(member(alone, 'etag'), member(stored, 'etag'), 'with the same blob');
  t.equal(outcome(await origin.upload(sent, '', { 'repr-digest': digestOf(png(1)) })), '400 digest_mismatch');
  const shared = await origin.upload(sent, '?public=true');
  t.equal(shared.status, 201);
  t.equal(member(shared, 'etag'), member(stored, 'etag'), 'public and private are two ids with one blob');

  t.equal((await origin.asAdmin(`/v1/media/${member(stored, 'id')}/quarantine`, { method: 'POST' })).status, 204);
  for (const bytes of [sent, png(1)]) t.equal(outcome(await origin.upload(bytes)), '403 quarantined');
  for (const made of [stored, alone, shared]) {
    t.equal((await origin.asAdmin(`/v1/media/${member(made, 'id')}`, { method: 'DELETE' })).status, 204);
  }
  for (const bytes of [sent, png(1)])
    t.equal(outcome(await origin.upload(bytes)), '403 quarantined', 'also when deleted');
  // The hash of the sent bytes names the blob that stores them.
  const named = `/v1/admin/blobs/${sha256(sent).toString('hex')}/quarantine`;
  t.equal((await origin.asAdmin(named, { method: 'DELETE' })).status, 204);
  const again = await origin.upload(sent);
  t.equal(again.status, 201);
  t.equal(member(again, 'etag'), member(stored, 'etag'));

  t.equal(outcome(await origin.upload(png(2).subarray(0, 50))), '415 type_refused', 'a damaged picture is refused');
  t.equal(outcome(await origin.upload(text(1))), '201 text/plain');
  t.strictSame(await staged(origin), []);

  await t.test('known pictures keep their stored form when the option is switched off or on', async (t) => {
    await origin.stop();
    const off = await startOrigin(origin.folder, STILL);
    t.equal(member(await off.upload(sent), 'id'), member(again, 'id'), 'stripped pictures stay stripped');
    const whole = largePng(2, 10_000);
    const plain = await off.upload(whole);
    t.equal(member(plain, 'sha256'), sha256(whole).toString('hex'));
    await off.stop();
    await off.auth.close();
    const on = await startOrigin(origin.folder, { upload: { strip_originals: { enabled: true } }, ...STILL });
    t.equal(member(await on.upload(whole), 'id'), member(plain, 'id'));
    const open = await on.upload(whole, '?public=true');
    t.equal(member(open, 'etag'), member(plain, 'etag'), 'one blob for both ids');
    t.equal((await on.asAdmin(`/v1/media/${member(again, 'id')}/quarantine`, { method: 'POST' })).status, 204);
    await on.stop();
    await on.auth.close();
    const last = await startOrigin(origin.folder, STILL);
    t.teardown(() => last.close());
    t.equal(outcome(await last.upload(sent)), '403 quarantined', 'refused also in the form that is not stored');
  });
});

void t.test('no picture and no film is stored with metadata unless the configuration says so', async (t) => {
  const coded = codedIn(
    await sharp({ create: { width: 9, height: 9, channels: 3, background: 'teal' } })
      .avif()
      .toBuffer(),
  );
  const gps = [{ type: 'Exif', data: Buffer.from('\0\0\0\0MM\0*, the location') }] as const;
  const heic = heifOf([{ coded: { ...coded, type: 'hvc1' } }], { described: gps });
  const unknown = heifOf([{ coded: { ...coded, type: 'abcd' } }], { brands: ['mif1'], described: gps });
  const tiff = await sharp({ create: { width: 4, height: 4, channels: 3, background: 'teal' } })
    .tiff()
    .toBuffer();
  const types = ['image/heic', 'image/heif', 'image/tiff', 'audio/wav', 'application/pdf'];
  const start = (options: Readonly<Record<string, unknown>>): Promise<TestOrigin> =>
    startOrigin(t.testdir(), { upload: { types, strip_originals: options }, ...STILL });
  const stored = async (origin: TestOrigin, bytes: Buffer): Promise<string> => {
    const answer = await origin.upload(bytes, '?public=true');
    if (answer.status !== 201) return outcome(answer);
    const got = await origin.send(`/v1/media/${member(answer, 'id')}`);
    return `${outcome(answer)} ${got.bytes.equals(bytes) ? 'as sent' : got.bytes.includes('location') ? 'with' : 'without'}`;
  };
  const strippedTypes = async (origin: TestOrigin): Promise<unknown> =>
    (json(await origin.send('/.well-known'))['capabilities'] as Record<string, unknown>)['stripped_types'];

  const refusing = await start({ enabled: true });
  t.teardown(() => refusing.close());
  t.equal(await stored(refusing, heic), '201 image/heic without');
  t.equal(await stored(refusing, unknown), '415 type_refused', 'a picture that is not known');
  t.equal(await stored(refusing, tiff), '415 type_refused', 'a format that cannot be stripped');
  t.equal(await stored(refusing, wav(1)), '201 audio/wav as sent');
  t.equal(await stored(refusing, pdf(1)), '201 application/pdf as sent');
  t.same(await strippedTypes(refusing), ['image/heic', 'image/heif']);

  const keeping = await start({ enabled: true, otherwise: 'keep' });
  t.teardown(() => keeping.close());
  t.equal(await stored(keeping, heic), '201 image/heic without');
  t.equal(await stored(keeping, unknown), '201 image/heif as sent');
  t.equal(await stored(keeping, tiff), '201 image/tiff as sent');
  t.equal(await stored(keeping, heic.subarray(0, 28)), '415 type_refused', 'a damaged picture is refused in any case');

  const off = await start({ enabled: false });
  t.teardown(() => off.close());
  t.equal(await stored(off, heic), '201 image/heic as sent');
  t.equal(await strippedTypes(off), null);
});

const CORPUS = join('..', 'shared', 'corpus');

void t.test(
  'real files are accepted or refused as their manifest says',
  { skip: existsSync(CORPUS) ? false : 'there is no corpus beside this checkout' },
  async (t) => {
    const origin = await startOrigin(t.testdir(), STILL);
    t.teardown(() => origin.close());
    const rows = (await readFile(join(CORPUS, 'valid', 'manifest.csv'), 'utf8')).trim().split('\n').slice(1);
    const unknown: string[] = [];
    for (const row of rows) {
      const [name = ''] = row.split(',');
      const mime = /,((?:image|video|audio|application)\/[a-z0-9.+-]+)/.exec(row)?.[1] ?? '';
      const [, width, height] = /,(?:image|video)\/[a-z0-9.+-]+,(\d+),(\d+),/.exec(row) ?? [];
      const bytes = await readFile(join(CORPUS, 'valid', name));
      const answer = await origin.upload(bytes, '', { 'content-type': mime });
      if (answer.status === 415 && row.includes('accept or 415')) continue;
      t.equal(outcome(answer), `201 ${mime}`, name);
      if (json(answer)['width'] === null) unknown.push(name);
      else
        t.strictSame(
          new Set([json(answer)['width'], json(answer)['height']].map(String)),
          new Set([width, height]),
          name,
        );
    }
    t.comment(`size not known at once: ${unknown.join(' ')}`);

    await t.test('and hostile files are never accepted as another type', async (t) => {
      const declared: Readonly<Record<string, string>> = { jpg: 'image/jpeg', tif: 'image/tiff', svg: 'image/svg+xml' };
      for (const name of await readdir(join(CORPUS, 'hostile'))) {
        if (name === 'manifest.csv') continue;
        const extension = name.split('.').at(-1) ?? '';
        const bytes = await readFile(join(CORPUS, 'hostile', name));
        for (const type of [declared[extension] ?? `image/${extension}`, 'application/octet-stream']) {
          const answer = await origin.upload(bytes, '', { 'content-type': type });
          t.ok([200, 201, 400, 415].includes(answer.status), `${name} as ${type}: ${outcome(answer)}`);
          if (answer.status >= 400) continue;
          t.notMatch(json(answer)['mime'], /html|svg|xml|javascript|msdownload/, name);
        }
      }
      for (const name of ['g-html-as.png', 'g-mz-as.jpg', 'imagetragik1_payload_url_touch.jpg']) {
        const type = name.endsWith('png') ? 'image/png' : 'image/jpeg';
        const answer = await origin.upload(await readFile(join(CORPUS, 'hostile', name)), '', { 'content-type': type });
        t.equal(outcome(answer), '415 type_mismatch', name);
      }
    });
  },
);
