/** The watch over request lines: it follows requests however they are framed and cut, and tells those with other spaces. */
import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import t from 'tap';
import { type BodyFraming, RequestLines } from '../../../src/server/request-lines.js';

interface Sent {
  readonly line: string;
  readonly regular: boolean;
  readonly framing: BodyFraming;
  readonly body: string;
}

const NONE: BodyFraming = { kind: 'none' };

/** What a parser would tell, for each head as its last byte comes. */
function watched(requests: readonly Sent[], pieceBytes: readonly number[]): readonly boolean[] {
  const lines = new RequestLines();
  const told: boolean[] = [];
  const heads = requests.map(({ line }) => `${line}\r\nHost: a\r\nX: GET  / HTTP/1.1\r\n\r\n`);
  const text = requests.map(({ body }, at) => `${heads[at]}${body}`).join('');
  let end = 0;
  const headEnds = requests.map(({ body }, at) => {
    const headEnd = end + (heads[at] ?? '').length;
    end = headEnd + body.length;
    return headEnd;
  });
  for (let from = 0, turn = 0; from < text.length; turn += 1) {
    const to = Math.min(text.length, from + (pieceBytes[turn % pieceBytes.length] ?? 1));
    lines.push(Buffer.from(text.slice(from, to), 'latin1'));
    for (const [at, headEnd] of headEnds.entries()) {
      if (headEnd > from && headEnd <= to) told.push(lines.next(requests[at]?.framing ?? NONE));
    }
    from = to;
  }
  return told;
}

void t.test('each request line is found, whatever body stands before it and wherever the bytes are cut', async (t) => {
  const line = fc.constantFrom<readonly [string, boolean]>(
    ['GET / HTTP/1.1', true],
    ['POST /a?b HTTP/1.0', true],
    ['\r\n\r\nGET / HTTP/1.1', true],
    ['GET  / HTTP/1.1', false],
    ['GET /  HTTP/1.1', false],
    ['GET / HTTP/1.1 ', false],
    ['GET\t/ HTTP/1.1', false],
  );
  const content = fc.constantFrom('', 'x', 'GET  / HTTP/1.1\r\n\r\n', '\r\n\r\n', '0\r\n\r\n');
  const chunked = fc
    .tuple(fc.array(content), fc.constantFrom('', ';a="b"'), fc.constantFrom('', 'X: y\r\n'))
    .map(([chunks, extension, trailer]) => ({
      framing: { kind: 'chunked' } as BodyFraming,
      body: `${chunks
        .filter((chunk) => chunk !== '')
        .map((chunk) => `${chunk.length.toString(16)}${extension}\r\n${chunk}\r\n`)
        .join('')}0\r\n${trailer}\r\n`,
    }));
  const sized = content.map((body) => ({
    framing: { kind: 'length', sizeBytes: body.length } as BodyFraming,
    body,
  }));
  const bodies = fc.oneof(fc.constant({ framing: NONE, body: '' }), sized, chunked);
  const request = fc.tuple(line, bodies).map(([[text, regular], body]) => ({ line: text, regular, ...body }));
  fc.assert(
    fc.property(
      fc.array(request, { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 5 }),
      (requests, pieceBytes) => {
        assert.deepEqual(
          watched(requests, pieceBytes),
          requests.map(({ regular }) => regular),
        );
      },
    ),
    { numRuns: 500 },
  );
  t.pass();
});

void t.test('where the parser reads otherwise, its reading stands', async (t) => {
  const early = new RequestLines();
  t.equal(early.next(NONE), true, 'a request of which nothing was seen');
  const late = new RequestLines();
  late.push(Buffer.from('GET  / HTTP/1.1\r\n\r\n'));
  late.push(Buffer.from('GET  / HTTP/1.1\r\n\r\n'));
  t.equal(late.next(NONE), true, 'a head that was never told of');
  const broken = new RequestLines();
  broken.push(Buffer.from('POST / HTTP/1.1\r\n\r\n'));
  t.equal(broken.next({ kind: 'chunked' }), true);
  broken.push(Buffer.from('no size\r\n'));
  t.equal(broken.next(NONE), true, 'a chunk without a size');
  const endless = new RequestLines();
  endless.push(Buffer.alloc(400_000, 'x'));
  t.equal(endless.next(NONE), true, 'a line without an end');
});

void t.test('a head is being received from its first byte until it is complete, empty lines included', async (t) => {
  const lines = new RequestLines();
  const states: (readonly [string, boolean, number])[] = [];
  const push = (text: string): void => {
    lines.push(Buffer.from(text, 'latin1'));
    states.push([text, lines.inHead, lines.lineBytes]);
  };
  t.strictSame([lines.inHead, lines.lineBytes], [false, 0]);
  for (const text of ['\r', '\n', 'GET', ' / HTTP/1.1\r\n', 'Host: a\r\n', '\r\n']) push(text);
  t.strictSame(states, [
    ['\r', true, 1],
    ['\n', true, 0],
    ['GET', true, 3],
    [' / HTTP/1.1\r\n', true, 16],
    ['Host: a\r\n', true, 16],
    ['\r\n', false, 16],
  ]);
  t.equal(lines.next({ kind: 'length', sizeBytes: 3 }), true);
  t.notOk(lines.inHead);
  push('ab');
  t.notOk(lines.inHead, 'a body is no head');
  push('cG');
  t.ok(lines.inHead, 'and what follows it is');
  push('ET /\r\n\r\n');
  t.equal(lines.next(NONE), false);
  push('G');
  t.ok(lines.inHead);
});
