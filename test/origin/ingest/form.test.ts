/** Forms, read without a socket: what they give, what is refused, their limits to the byte, and the pace of their reader. */
import * as fc from 'fast-check';
import t from 'tap';
import { uploadSection } from '../../../origin/ingest/config.js';
import { type FormFile, readForm } from '../../../origin/ingest/form.js';
import { configured } from '../../kit/deps.js';
import { chunkSource, drained, piecesOf } from '../../kit/origin/chunks.js';

const BOUNDARY = 'b0undary';
const { form: DEFAULTS } = configured(uploadSection);
type Bounds = typeof DEFAULTS;

interface Part {
  /** The lines of its header; null for a part without one. */
  readonly header: readonly string[] | null;
  readonly body?: string | Buffer;
}

const field = (name: string, body: string | Buffer = ''): Part => ({
  header: [`Content-Disposition: form-data; name="${name}"`],
  body,
});
const file = (body: string | Buffer = 'bytes', header: readonly string[] = []): Part => ({
  header: ['Content-Disposition: form-data; name="file"; filename="a.txt"', ...header],
  body,
});

/** `ends`: whether the last boundary says that no part follows. */
function bytesOf(parts: readonly Part[], { ends = true, after = '' } = {}): Buffer {
  const pieces = parts.flatMap(({ header, body = '' }) => [
    `--${BOUNDARY}\r\n`,
    header === null ? '' : `${header.join('\r\n')}\r\n\r\n`,
    body,
    '\r\n',
  ]);
  const end = ends ? [`--${BOUNDARY}--\r\n`, after] : [];
  return Buffer.concat([...pieces, ...end].map((piece) => Buffer.from(piece)));
}

interface Taken {
  readonly filename: string | undefined;
  readonly contentType: string | undefined;
  readonly text: string;
}

const take = async ({ filename, contentType, chunks }: FormFile): Promise<Taken> => ({
  filename,
  contentType,
  text: (await drained(chunks)).toString('latin1'),
});

async function read(form: Buffer, bounds: Partial<Bounds> = {}, pieceBytes = 65_536) {
  const source = chunkSource(piecesOf(form, pieceBytes));
  const { fields, file: taken } = await readForm(source, BOUNDARY, { ...DEFAULTS, ...bounds }, take);
  return { fields: [...fields], file: taken };
}

void t.test('a form gives its file and its fields, in any order and however it is cut into pieces', async (t) => {
  const typed = file('the file', ['Content-Type: text/x-own; charset=utf-8']);
  const expected = {
    fields: [
      ['public', 'true'],
      ['empty', ''],
      ['name', 'grüße'],
    ],
    file: { filename: 'a.txt', contentType: 'text/x-own; charset=utf-8', text: 'the file' },
  };
  const fields = [field('public', 'true'), field('empty'), field('name', 'grüße')];
  for (const parts of [
    [typed, ...fields],
    [...fields, typed],
  ]) {
    t.same(await read(bytesOf(parts)), expected);
    t.same(await read(bytesOf(parts), {}, 1), expected, 'byte by byte');
    t.same(await read(bytesOf(parts, { after: 'an epilogue' })), expected, 'what follows the form is dropped');
  }
  const bare = { header: ['content-disposition: form-data; name=file'], body: 'x' };
  t.same((await read(bytesOf([bare]))).file, { filename: undefined, contentType: undefined, text: 'x' });
});

void t.test('any bytes come out of a form as they went in', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 300 }),
      fc.uint8Array({ maxLength: 40 }),
      fc.integer({ min: 1, max: 400 }),
      async (bytes, small, pieceBytes) => {
        const body = Buffer.from(bytes);
        const ascii = Buffer.from(small.map((byte) => byte & 0x7f));
        const got = await read(bytesOf([field('f', ascii), file(body)]), {}, pieceBytes);
        return got.file.text === body.toString('latin1') && got.fields[0]?.[1] === ascii.toString('latin1');
      },
    ),
    { numRuns: 60 },
  );
});

void t.test('a form that could be read in two ways, or has no file, is refused', async (t) => {
  for (const [why, form, message] of [
    ['no file', bytesOf([field('a', 'b')]), 'The form has no part called `file`.'],
    ['no part', bytesOf([]), 'The form has no part called `file`.'],
    ['two files', bytesOf([file(), file()]), 'The form has more than one file.'],
    ['a field twice', bytesOf([field('a', '1'), field('a', '2'), file()]), 'The form has the field a twice.'],
    ['the same name in the meantime', bytesOf([file(), field('a'), field('a')]), 'The form has the field a twice.'],
    ['no name', bytesOf([file(), { header: ['Content-Disposition: form-data'] }]), 'A part of the form has no name.'],
    ['no disposition', bytesOf([file(), { header: ['Content-Type: a/b'] }]), 'A part of the form has no name.'],
    [
      'a file of another name',
      bytesOf([{ header: ['Content-Disposition: form-data; name="photo"; filename="a"'] }]),
      'The file of the form must be called `file`.',
    ],
    ['no header', bytesOf([file(), { header: null, body: 'bare' }]), 'A part of the form has no header.'],
    ['no last boundary', bytesOf([file()], { ends: false }), 'The form ends before its last boundary.'],
    ['cut in the file', bytesOf([file('the file')]).subarray(0, -20), 'The form ends before its last boundary.'],
    ['nothing', Buffer.alloc(0), 'The form ends before its last boundary.'],
  ] as const) {
    await t.rejects(read(form), { code: 'malformed', message }, why);
  }
});

void t.test('every limit of a form holds to the byte', async (t) => {
  const fieldsOf = (count: number) => [...Array(count).keys()].map((index) => field(`f${index}`, 'v'));
  t.equal((await read(bytesOf([...fieldsOf(3), file()]), { fieldsMax: 3 })).fields.length, 3);
  await t.rejects(read(bytesOf([...fieldsOf(4), file()]), { fieldsMax: 3 }), {
    message: 'The form has more than 3 fields.',
  });

  const sized = (bytes: number) => bytesOf([field('f', 'v'.repeat(bytes)), file()]);
  t.equal((await read(sized(64), { fieldMaxBytes: 64 }, 7)).fields[0]?.[1].length, 64);
  await t.rejects(read(sized(65), { fieldMaxBytes: 64 }, 7), { message: 'A field of the form is too long.' });

  // Each line of a header counts with its name, the colon, a space and its end.
  const [disposition = ''] = file().header ?? [];
  const headed = (bytes: number) => {
    const others = disposition.length + 2 + 'x-a: '.length + 2;
    return bytesOf([file('bytes', [`x-a: ${'v'.repeat(bytes - others)}`])]);
  };
  t.equal((await read(headed(256), { headerMaxBytes: 256 })).file.text, 'bytes');
  await t.rejects(read(headed(257), { headerMaxBytes: 256 }), {
    message: 'A part of the form has a header of more than 256 bytes.',
  });

  const lines = (count: number) =>
    bytesOf([
      file(
        'bytes',
        [...Array(count - 1).keys()].map((at) => `x-${at}: v`),
      ),
    ]);
  t.equal((await read(lines(16))).file.text, 'bytes');
  await t.rejects(read(lines(17)), { message: 'A part of the form has too many header fields.' });
  await t.rejects(read(lines(40)), { message: 'A part of the form has too many header fields.' });
});

void t.test('all but the file counts against the overhead of a form, to the byte', async (t) => {
  for (const fileBytes of [1, 400_000]) {
    for (const parts of [
      [field('f', 'v'), file('x'.repeat(fileBytes))],
      [file('x'.repeat(fileBytes)), field('f', 'v')],
    ]) {
      const form = bytesOf(parts);
      const overhead = form.length - fileBytes;
      t.equal((await read(form, { overheadMaxBytes: overhead })).file.text.length, fileBytes);
      await t.rejects(
        read(form, { overheadMaxBytes: overhead - 1 }),
        { code: 'too_large', message: `A form has at most ${overhead - 1} bytes beside its file.` },
        `${fileBytes} bytes of file`,
      );
    }
  }
});

void t.test('a form whose overhead never ends is refused before all of it is read', async (t) => {
  let pulled = 0;
  const endless = {
    async next() {
      pulled += 65_536;
      return Buffer.alloc(65_536, 'x');
    },
  };
  const bounds = { ...DEFAULTS, overheadMaxBytes: 1_024 };
  await t.rejects(readForm(endless, BOUNDARY, bounds, take), { code: 'too_large' });
  t.ok(pulled > 262_144 && pulled <= 262_144 + 2 * 65_536, `${pulled} bytes were read`);
});

void t.test('a form is read no faster than its file', async (t) => {
  const body = Buffer.alloc(2_000_000, 'x');
  let pulled = 0;
  let consumed = 0;
  let aheadMax = 0;
  const pieces = piecesOf(bytesOf([file(body)]), 16_384);
  const source = chunkSource(pieces, (index) => {
    pulled += pieces[index]?.length ?? 0;
    aheadMax = Math.max(aheadMax, pulled - consumed);
  });
  const slowly = async ({ chunks }: FormFile): Promise<number> => {
    for (let chunk = await chunks.next(); chunk !== undefined; chunk = await chunks.next()) {
      for (let turn = 0; turn < 3; turn += 1) await new Promise(setImmediate);
      consumed += chunk.length;
    }
    return consumed;
  };
  t.equal((await readForm(source, BOUNDARY, DEFAULTS, slowly)).file, body.length);
  t.ok(aheadMax < 300_000, `${aheadMax} bytes were read ahead`);
});

void t.test('whoever takes the file ends the form with a failure, and nothing of it goes on', async (t) => {
  const failing = async (): Promise<never> => {
    throw new Error('the disk is full');
  };
  const large = bytesOf([file(Buffer.alloc(500_000, 'x'))]);
  const never = chunkSource(piecesOf(large, 65_536), (index) => (index < 2 ? undefined : new Promise(() => undefined)));
  await t.rejects(readForm(never, BOUNDARY, DEFAULTS, failing), { message: 'the disk is full' });

  const atItsEnd = async ({ chunks }: FormFile): Promise<never> => {
    await drained(chunks);
    await new Promise(setImmediate);
    return await failing();
  };
  const source = chunkSource([bytesOf([file()])]);
  await t.rejects(readForm(source, BOUNDARY, DEFAULTS, atItsEnd), { message: 'the disk is full' });

  // The source fails while the file is being taken: the form ends only when whoever takes it has ended.
  const order: string[] = [];
  const broken = chunkSource(piecesOf(large, 65_536), (index) => {
    if (index === 3) throw new Error('the sender left');
  });
  const reading = async ({ chunks }: FormFile): Promise<void> => {
    await drained(chunks).catch(() => order.push('its chunks end'));
    await new Promise(setImmediate);
    order.push('it has ended');
  };
  await readForm(broken, BOUNDARY, DEFAULTS, reading).catch(({ message }: Error) => order.push(message));
  t.same(order, ['its chunks end', 'it has ended', 'the sender left']);
});

void t.test('what follows the form counts, however late it comes after the file was taken', async (t) => {
  const form = bytesOf([file()]);
  const late = async (afterBytes: number): Promise<unknown> => {
    const chunks = [form, Buffer.alloc(afterBytes, 'x')];
    const source = {
      async next() {
        if (chunks.length === 1) for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
        return chunks.shift();
      },
    };
    return await readForm(source, BOUNDARY, DEFAULTS, take);
  };
  await t.resolves(late(1_000));
  await t.rejects(late(DEFAULTS.overheadMaxBytes), { code: 'too_large' });
});
