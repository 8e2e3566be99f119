/** Unfinished uploads on disk: what a call leaves there, what it waits for, and what a start makes of what it finds. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Checksum } from '../../../../origin/ingest/resumable/checksum.js';
import type { UnfinishedUpload } from '../../../../origin/ingest/resumable/upload-record.js';
import { Fault } from '../../../../src/errors.js';
import { chunkSource, NO_LIMITS, piecesOf } from '../../../kit/origin/chunks.js';
import { until } from '../../../kit/until.js';

const { watchSyncs } = await import('../../../kit/syncs.js');
const { openUploadsInFolder } = await import('../../../../origin/ingest/resumable/uploads-in-folder.js');
const { readMark, writeMark } = await import('../../../../origin/ingest/resumable/end-mark.js');

const linux = { skip: existsSync('/proc/self/fd') ? false : 'names of open files are known on Linux alone' };
const HEAD_BYTES = 262_144;
const id = (digit: string): string => digit.repeat(32);
const [A, B, C] = [id('a'), id('b'), id('c')];

const begun = (name: string, more: Partial<UnfinishedUpload> = {}): UnfinishedUpload => ({
  id: name,
  owner: 'ann',
  sizeBytes: 100,
  metadata: '',
  role: { kind: 'whole' },
  expiresAt: 1_000,
  mediaId: null,
  ...more,
});

async function setUp(t: Test) {
  const folder = join(t.testdir({}), 'resumable');
  const uploads = await openUploadsInFolder(folder);
  const path = (name: string): string => join(folder, name);
  return {
    folder,
    uploads,
    path,
    reopened: () => openUploadsInFolder(folder),
    names: async () => (await readdir(folder)).sort(),
    text: (name: string) => readFile(path(name), 'latin1'),
    mark: (name: string) => readMark(path(`${name}.end`)),
  };
}

interface Sending {
  readonly offset?: number;
  readonly sizeMaxBytes?: number;
  readonly checksum?: Checksum;
  readonly before?: (index: number) => Promise<void> | void;
}

const BEYOND = new Fault('too_large', 'It is longer than announced.');

const bodyOf = (pieces: readonly string[], { offset = 0, sizeMaxBytes = 100, checksum, before }: Sending = {}) => ({
  source: chunkSource(
    pieces.map((piece) => Buffer.from(piece)),
    before,
  ),
  offset,
  sizeMaxBytes,
  beyond: () => BEYOND,
  checksum,
});

const checksumOf = (text: string): Checksum => ({
  algorithm: 'sha256',
  digest: createHash('sha256').update(text).digest(),
});

const breakingOff = (at: number) => (index: number) => {
  if (index === at) throw new Error('the sender left');
};

void t.test('an upload that begins counts for its owner, and is there after a restart', async (t) => {
  const { uploads, names, text, mark, reopened } = await setUp(t);
  t.equal(await uploads.find(A), undefined);
  await uploads.create(begun(A), NO_LIMITS);
  await uploads.create(begun(B, { owner: 'bob' }), NO_LIMITS);
  t.same(await names(), [A, `${A}.end`, `${A}.json`, B, `${B}.end`, `${B}.json`]);
  t.same([await text(A), await mark(A), await uploads.offset(begun(A))], ['', 0, 0]);
  t.equal(uploads.unfinished(), 2);
  await uploads.change(begun(A, { sizeBytes: 7 }));
  t.equal((await uploads.find(A))?.sizeBytes, 7);
  const later = await reopened();
  t.same(await later.expired(Number.POSITIVE_INFINITY, 10), [begun(A, { sizeBytes: 7 }), begun(B, { owner: 'bob' })]);
});

void t.test('an upload that could not be begun counts until it is dropped', async (t) => {
  const { uploads, path, names } = await setUp(t);
  await writeFile(path(A), 'of another');
  await t.rejects(uploads.create(begun(A), NO_LIMITS), { code: 'EEXIST' });
  t.equal(uploads.unfinished(), 1);
  await uploads.drop(A);
  t.equal(uploads.unfinished(), 0);
  await uploads.drop(A);
  t.same(await names(), []);
});

void t.test('bodies are appended at their offset, and marked as certain', async (t) => {
  const { uploads, text, mark, names } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  t.equal(await uploads.append(A, bodyOf(['abc', 'de'])), 5);
  t.same([await text(A), await mark(A)], ['abcde', 5]);
  t.equal(await uploads.append(A, bodyOf(['fg'], { offset: 5, sizeMaxBytes: 2 })), 7, 'as much as is allowed');
  t.same([await text(A), await mark(A), await uploads.offset(begun(A))], ['abcdefg', 7, 7]);
  t.equal(await uploads.append(A, bodyOf([], { offset: 7 })), 7, 'no bytes change nothing');
  t.equal(await uploads.append(A, bodyOf(['hi'], { offset: 7, checksum: checksumOf('hi') })), 9);
  t.same([await text(A), await mark(A)], ['abcdefghi', 9]);
  t.same(await names(), [A, `${A}.end`, `${A}.json`], 'nothing is left beside it');
});

void t.test('of a body that breaks off what has arrived is kept, unless it has a checksum', async (t) => {
  const { uploads, text, mark, names } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  await uploads.append(A, bodyOf(['abc']));
  const broken = { offset: 3, before: breakingOff(1) };
  await t.rejects(uploads.append(A, bodyOf(['de', 'f'], broken)), { message: 'the sender left' });
  t.same([await text(A), await mark(A)], ['abcde', 5]);
  const checked = { offset: 5, before: breakingOff(1), checksum: checksumOf('fg') };
  await t.rejects(uploads.append(A, bodyOf(['f', 'g'], checked)), { message: 'the sender left' });
  t.same([await text(A), await mark(A)], ['abcde', 5]);
  t.same(await names(), [A, `${A}.end`, `${A}.json`]);
});

void t.test('a body that is too long or does not match its checksum is dropped as a whole', async (t) => {
  const { uploads, text, mark, names } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  await uploads.append(A, bodyOf(['abc']));
  for (const pieces of [['defg'], ['d', 'efg'], ['def', 'g']]) {
    for (const checksum of [undefined, checksumOf('defg')]) {
      const long = bodyOf(pieces, { offset: 3, sizeMaxBytes: 3, ...(checksum !== undefined && { checksum }) });
      await t.rejects(uploads.append(A, long), BEYOND);
      t.same([await text(A), await mark(A)], ['abc', 3], pieces.join());
    }
  }
  const other = bodyOf(['def'], { offset: 3, checksum: checksumOf('deg') });
  await t.rejects(uploads.append(A, other), { code: 'checksum_mismatch' });
  t.same([await text(A), await mark(A)], ['abc', 3]);
  t.same(await names(), [A, `${A}.end`, `${A}.json`]);
});

void t.test('bytes are certain only once they are synced', linux, async (t) => {
  const { uploads, mark, folder } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  const syncs = await watchSyncs(t, folder);
  const held = syncs.hold(0);
  let told = false;
  const appended = uploads.append(A, bodyOf(['abc'])).then(() => {
    told = true;
  });
  await until('the sync', () => held.isReached());
  t.equal(await mark(A), 0, 'the mark waits for the sync');
  t.notOk(told, 'and so does the client');
  held.letGo();
  await appended;
  t.same([await mark(A), syncs.paths], [3, [A]]);

  syncs.forget();
  syncs.fail(0);
  await t.rejects(uploads.append(A, bodyOf(['de'], { offset: 3 })), { code: 'EIO' });
  t.equal(await mark(A), 3, 'what could not be synced is not certain');
});

void t.test('a long body is marked on its way', linux, async (t) => {
  const { uploads, folder, mark } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  const MIB = 1_048_576;
  const marks: (number | undefined)[] = [];
  const source = chunkSource(piecesOf(Buffer.alloc(10 * MIB), MIB), async () => void marks.push(await mark(A)));
  const syncs = await watchSyncs(t, folder);
  const body = { ...bodyOf([]), source, sizeMaxBytes: 10 * MIB };
  t.equal(await uploads.append(A, body), 10 * MIB);
  t.same(marks, [0, 0, 0, 0, 0, 0, 0, 0, 8 * MIB, 8 * MIB, 8 * MIB]);
  t.same(syncs.paths, [A, A]);
});

void t.test('an upload whose bytes were removed does not exist', async (t) => {
  const { uploads, path } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  await rm(path(A));
  await t.rejects(uploads.offset(begun(A)), { code: 'not_found', message: 'There is no such upload.' });
  t.equal(await uploads.find(A), undefined);
});

void t.test('the bytes of one upload are staged beside it, those of several in their order', async (t) => {
  const { uploads, text, names, folder } = await setUp(t);
  const staging = { sizeMaxBytes: 1_000_000, sync: false, signal: new AbortController().signal };
  const large = 'x'.repeat(HEAD_BYTES + 7);
  for (const [name, content] of [
    [A, 'abc'],
    [B, large],
    [C, ''],
  ] as const) {
    await uploads.create(begun(name), NO_LIMITS);
    await uploads.append(name, bodyOf(content === '' ? [] : [content], { sizeMaxBytes: 1_000_000 }));
  }
  const before = await names();
  for (const [ids, content] of [
    [[A], 'abc'],
    [[B], large],
    [[B, A], `${large}abc`],
    [[A, C, A], 'abcabc'],
  ] as const) {
    const staged = await uploads.stage(ids, staging);
    t.ok(staged.path.startsWith(folder) && staged.path.endsWith('.stage'));
    t.same(staged, {
      path: staged.path,
      sizeBytes: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
      head: Buffer.from(content.slice(0, HEAD_BYTES)),
      synced: false,
    });
    t.equal(await readFile(staged.path, 'latin1'), content);
    await rm(staged.path);
  }
  t.equal(await text(A), 'abc', 'the upload itself stays');
  t.ok((await uploads.stage([A, A], { ...staging, sync: true })).synced);
  for (const name of await names()) if (name.endsWith('.stage')) await rm(join(folder, name));

  await t.rejects(uploads.stage([C], staging), { code: 'empty' });
  await t.rejects(uploads.stage([C, C], staging), { code: 'empty' });
  await t.rejects(uploads.stage([A, A], { ...staging, sizeMaxBytes: 5 }), { code: 'too_large' });
  const reason = new Error('the client has left');
  await t.rejects(uploads.stage([A, A], { ...staging, signal: AbortSignal.abort(reason) }), reason);
  await t.rejects(uploads.stage([id('d')], staging), { code: 'ENOENT' });
  t.same(await names(), before, 'a failure leaves nothing');
});

void t.test('a finished upload keeps its record, and loses its bytes', async (t) => {
  const { uploads, names, reopened } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  await uploads.append(A, bodyOf(['abc']));
  const done = { ...begun(A), mediaId: 'media', sizeBytes: 3 };
  await uploads.finish([done]);
  t.same(await names(), [`${A}.json`]);
  t.same([await uploads.find(A), uploads.unfinished()], [done, 0]);
  t.equal(await uploads.offset(done), 3, 'it has all its bytes');
  t.equal(await uploads.offset({ ...done, sizeBytes: null }), 0);
  t.same(await (await reopened()).expired(Number.POSITIVE_INFINITY, 10), [done]);
});

void t.test('a removal is confirmed once it is durable', linux, async (t) => {
  const { uploads, names, folder } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  const syncs = await watchSyncs(t, folder);
  const held = syncs.hold(0);
  let confirmed = false;
  const dropped = uploads.drop(A).then(() => {
    confirmed = true;
  });
  await until('the sync', () => held.isReached());
  t.same(await names(), [], 'all of it is removed before');
  t.notOk(confirmed);
  held.letGo();
  await dropped;
  t.same(syncs.paths, ['']);
});

void t.test('a record is synced, and then its name, before the upload is told of', linux, async (t) => {
  const { uploads, folder, path } = await setUp(t);
  const syncs = await watchSyncs(t, folder);
  await uploads.create(begun(A), NO_LIMITS);
  t.same(syncs.paths, [`${A}.json.new`, '']);
  syncs.forget();
  syncs.fail(0);
  await t.rejects(uploads.change(begun(A, { sizeBytes: 7 })), { code: 'EIO' });
  t.equal((await uploads.find(A))?.sizeBytes, 100, 'the record before still holds');
  t.match(await readFile(path(`${A}.json`), 'utf8'), /"sizeBytes":100/);
  syncs.forget();
  const held = syncs.hold(1);
  const changed = uploads.change(begun(A, { sizeBytes: 7 }));
  await until('the sync of the folder', () => held.isReached());
  t.equal((await uploads.find(A))?.sizeBytes, 100);
  held.letGo();
  await changed;
  t.equal((await uploads.find(A))?.sizeBytes, 7);
});

/** The files below a folder that this process has open. */
function openBelow(folder: string): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      const path = readlinkSync(join('/proc/self/fd', descriptor));
      return path.startsWith(folder) ? [path] : [];
    } catch {
      return [];
    }
  });
}

void t.test('every file is closed at the end of a call, whatever it came to', linux, async (t) => {
  const { uploads, folder } = await setUp(t);
  const syncs = await watchSyncs(t, folder);
  const staging = { sizeMaxBytes: 1_000, sync: true, signal: new AbortController().signal };
  const wrong = { offset: 3, checksum: checksumOf('other') };
  const steps: readonly (readonly [what: string, step: () => Promise<unknown>])[] = [
    ['create', () => uploads.create(begun(A), NO_LIMITS)],
    ['append', () => uploads.append(A, bodyOf(['abc']))],
    ['too long', () => uploads.append(A, bodyOf(['d'.repeat(200)], { offset: 3 }))],
    ['broken off', () => uploads.append(A, bodyOf([], { offset: 3, before: breakingOff(0) }))],
    ['checksum', () => uploads.append(A, bodyOf(['def'], wrong))],
    ['stage', () => uploads.stage([A, A], staging)],
    ['no room', () => uploads.stage([A, A], { ...staging, sizeMaxBytes: 1 })],
    ['change', () => uploads.change(begun(A))],
    ['finish', () => uploads.finish([{ ...begun(A), mediaId: 'media' }])],
    ['drop', () => uploads.drop(A)],
  ];
  for (const [what, step] of steps) {
    await step().catch(() => undefined);
    // A stream that was read is closed a little later.
    await until(`${what}: every file is closed`, () => openBelow(folder).length === 0);
  }
  syncs.forget();
  syncs.fail(0);
  await t.rejects(uploads.create(begun(B), NO_LIMITS), { code: 'EIO' });
  t.same(openBelow(folder), [], 'a record that could not be synced');
});

void t.test('a start removes what belongs to no upload', async (t) => {
  const { uploads, folder, path, names, reopened } = await setUp(t);
  await uploads.create(begun(A), NO_LIMITS);
  await uploads.append(A, bodyOf(['abc']));
  await uploads.create(begun(B), NO_LIMITS);
  const finished = { ...begun(B), mediaId: 'media' };
  await uploads.finish([finished]);
  // What a process leaves that is stopped between two steps.
  await writeFile(path(B), 'bytes of a finished upload');
  await writeFile(path(`${B}.end`), '');
  for (const name of [`${A}.part`, `${A}.json.new`, `${C}.end`, C, 'x.stage']) await writeFile(path(name), 'x');
  await writeFile(path(`${id('d')}.json`), JSON.stringify({ version: 2, ...begun(id('d')) }));
  await writeFile(path(`${id('e')}.json`), 'no record');
  await writeFile(path(id('e')), 'its bytes');
  await writeFile(path(`${C}.json`), JSON.stringify({ version: 2, ...begun(A, { owner: 'eve' }) }));
  await mkdir(join(folder, 'folder', 'in it'), { recursive: true });
  const later = await reopened();
  t.same(await later.expired(Number.POSITIVE_INFINITY, 10), [begun(A), finished]);
  t.same(await names(), [A, `${A}.end`, `${A}.json`, `${B}.json`]);
  t.equal(await later.offset(begun(A)), 3);
});

void t.test('a start cuts off what may not have reached the disk before a power cut', async (t) => {
  const { uploads, path, text, mark, reopened } = await setUp(t);
  for (const name of [A, B, C]) {
    await uploads.create(begun(name), NO_LIMITS);
    await writeFile(path(name), 'abcdef');
  }
  await writeMark(path(`${A}.end`), 4);
  await rm(path(`${B}.end`));
  await writeFile(path(`${C}.end`), 'damaged');
  await reopened();
  t.same([await text(A), await mark(A)], ['abcd', 4]);
  t.same([await text(B), await mark(B)], ['abcdef', 6], 'earlier releases had no marks');
  t.same([await text(C), await mark(C)], ['', 0], 'a damaged mark says that nothing is certain');
  await writeMark(path(`${A}.end`), 9);
  await reopened();
  t.equal(await text(A), 'abcd', 'a mark beyond the end adds nothing');
});
