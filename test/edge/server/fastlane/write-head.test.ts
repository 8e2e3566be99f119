/** The head of an answer as bytes: which fields are added, how its body is framed, and what is never sent. */
import t from 'tap';
import { createHeadWriter, type WrittenHead } from '../../../../edge/server/fastlane/write-head.js';
import { emptyReply, type HeaderList, type Reply } from '../../../../src/http/reply.js';
import { ManualClock } from '../../../kit/clock.js';

const DATE = 'date: Thu, 01 Jan 2026 00:00:00 GMT\r\n';
const KEPT = 'connection: keep-alive\r\nkeep-alive: timeout=5\r\n';
const LEADING: HeaderList = [['x-shared', '1']];
const BYTES: Reply = { status: 200, headers: [['x-own', 'é']], body: { kind: 'bytes', bytes: Buffer.from('hello') } };
const sized = (sizeBytes: number | null): Reply => ({
  ...BYTES,
  body: {
    kind: 'stream',
    sizeBytes,
    open: () => {
      throw new Error('nobody opens it');
    },
  },
});

function writer() {
  const clock = new ManualClock();
  const heads = createHeadWriter(clock, 5_999);
  const textOf = (head: WrittenHead): string => {
    const text = Buffer.from(head.shared).toString('latin1') + head.own;
    if (text.length !== head.sizeBytes) throw new Error(`${text.length} characters and ${head.sizeBytes} bytes`);
    return text;
  };
  return {
    clock,
    heads,
    write: (reply: Reply, method = 'GET', last = false) => textOf(heads.write(reply, method, last)),
    framing: (reply: Reply, method = 'GET') => heads.write(reply, method, false).framing,
  };
}

void t.test(
  'an answer has its fields, the length of its body, a Date, and what becomes of the connection',
  async (t) => {
    const { write } = writer();
    t.equal(write(BYTES), `HTTP/1.1 200 OK\r\nx-own: é\r\ncontent-length: 5\r\n${DATE}${KEPT}\r\n`);
    t.equal(
      write(BYTES, 'GET', true),
      `HTTP/1.1 200 OK\r\nx-own: é\r\ncontent-length: 5\r\n${DATE}connection: close\r\n\r\n`,
    );
    const leading = { ...BYTES, leading: LEADING };
    t.equal(write(leading), `HTTP/1.1 200 OK\r\nx-shared: 1\r\n${KEPT}x-own: é\r\ncontent-length: 5\r\n${DATE}\r\n`);
    t.equal(
      write(leading, 'GET', true),
      `HTTP/1.1 200 OK\r\nx-shared: 1\r\nx-own: é\r\ncontent-length: 5\r\n${DATE}connection: close\r\n\r\n`,
    );
    t.equal(
      write({ ...leading, status: 404 }).slice(0, 24),
      'HTTP/1.1 404 Not Found\r\n',
      'another status with the same list',
    );
    t.equal(write({ ...leading, status: 299 }).slice(0, 22), 'HTTP/1.1 299 Unknown\r\n');
  },
);

void t.test('a length or a Date that is stated stays the only one', async (t) => {
  const { write } = writer();
  const stated: HeaderList = [
    ['content-length', '7'],
    ['date', 'then'],
  ];
  t.equal(
    write({ ...emptyReply(200), headers: stated }),
    `HTTP/1.1 200 OK\r\ncontent-length: 7\r\ndate: then\r\n${KEPT}\r\n`,
  );
  t.equal(
    write({ ...emptyReply(200), leading: stated }),
    `HTTP/1.1 200 OK\r\ncontent-length: 7\r\ndate: then\r\n${KEPT}\r\n`,
  );
});

void t.test('the Date is that of the second in which the answer is written', async (t) => {
  const { write, clock } = writer();
  const dateOf = (): string | undefined => /date: ([^\r]+)/.exec(write(BYTES))?.[1];
  const dates = [0, 999, 1].map((ms) => {
    clock.advance(ms);
    return dateOf();
  });
  t.strictSame(dates, [
    'Thu, 01 Jan 2026 00:00:00 GMT',
    'Thu, 01 Jan 2026 00:00:00 GMT',
    'Thu, 01 Jan 2026 00:00:01 GMT',
  ]);
});

void t.test(
  'a body is framed by its length where there is one, and a response without content by nothing',
  async (t) => {
    const { framing, write } = writer();
    t.strictSame(framing(BYTES), { kind: 'length', sizeBytes: 5 });
    t.strictSame(framing(sized(9)), { kind: 'length', sizeBytes: 9 });
    t.strictSame(framing({ ...sized(null), headers: [['content-length', '8']] }), { kind: 'length', sizeBytes: 8 });
    t.strictSame(framing({ ...sized(null), leading: [['content-length', '8']] }), { kind: 'length', sizeBytes: 8 });
    t.strictSame(framing(sized(null)), { kind: 'chunked' });
    t.match(write(sized(null)), 'transfer-encoding: chunked\r\n');
    t.notMatch(write(sized(null)), 'content-length');
    for (const [reply, method] of [
      [BYTES, 'HEAD'],
      [sized(null), 'HEAD'],
      [{ ...BYTES, status: 204 }, 'GET'],
      [{ ...sized(null), status: 304 }, 'GET'],
      [emptyReply(200), 'GET'],
    ] as const) {
      t.strictSame(framing(reply, method), { kind: 'none' }, `${reply.status} ${method}`);
      t.notMatch(write(reply, method), 'transfer-encoding');
    }
    t.match(write(sized(9), 'HEAD'), 'content-length: 9\r\n', 'HEAD tells what GET would have');
  },
);

void t.test('a value with a line break, or with what no byte can hold, is never sent', async (t) => {
  const { write, heads } = writer();
  for (const value of ['a\r\nx: y', 'a\nb', '\u0000', '\u007f', '\u0100', '☂']) {
    for (const reply of [
      { ...BYTES, headers: [['x', value]] },
      { ...BYTES, leading: [['x', value]] },
    ] as const) {
      t.throws(() => write(reply), /the field x has a value that cannot be sent/, JSON.stringify(value));
    }
    t.throws(() => heads.interim(103, [['link', value]]));
  }
  t.match(write({ ...BYTES, headers: [['x', '\t ~\u0080\u00ff']] }), 'x: \t ~\u0080\u00ff\r\n');
});

void t.test('an interim answer has its fields and nothing more', async (t) => {
  t.equal(
    writer().heads.interim(103, [
      ['link', '</a>'],
      ['link', '</b>'],
    ]),
    'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n',
  );
});
