/** The body of an upload, raw and as a form: what is staged, which digests match, and how much may come. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import { uploadSection } from '../../../origin/ingest/config.js';
import { bodyShape, receive } from '../../../origin/ingest/receive.js';
import type { OriginRequest } from '../../../origin/server/request.js';
import { ManualClock } from '../../kit/clock.js';
import { configured } from '../../kit/deps.js';
import { requestOf } from '../../kit/origin/doubles/request.js';

const config = configured(uploadSection, { sizeMaxBytes: 1_000 });
const OVERHEAD_BYTES = config.form.overheadMaxBytes;

function upload(body: Buffer, fields: Readonly<Record<string, string>> = {}): OriginRequest {
  return {
    ...requestOf({ method: 'POST', fields }).request,
    body: { sizeBytes: null, open: () => Readable.from([body], { objectMode: false }) },
  };
}

function digestOf(bytes: Buffer): string {
  return `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`;
}

const hexOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** `sizeBytes`: of the whole form. */
function formOf(file: Buffer, sizeBytes = 0): Buffer {
  const around = (filler: number): Buffer =>
    Buffer.concat([
      Buffer.from(`--b\r\nContent-Disposition: form-data; name="public"\r\n\r\ntrue\r\n`),
      Buffer.from(
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n',
      ),
      file,
      Buffer.from(`\r\n--b--\r\n${'x'.repeat(filler)}`),
    ]);
  return around(Math.max(0, sizeBytes - around(0).length));
}

const FORM = { 'content-type': 'multipart/form-data; boundary=b' };

function setUp(t: Test, sync = false) {
  const path = join(t.testdir({}), 'staged');
  const held: number[] = [];
  const hold = (bytes: number): undefined => void held.push(bytes);
  const deps = { config, clock: new ManualClock(), sync, admission: { hold } };
  return { path, held, take: (request: OriginRequest) => receive(deps, request, bodyShape(request), path) };
}

void t.test('the head of an upload says how its body is read', async (t) => {
  const shape = (fields: Readonly<Record<string, string>>) => bodyShape(requestOf({ fields }).request);
  t.same(shape({}), { kind: 'raw', declaredType: undefined });
  t.same(shape({ 'content-type': 'image/png' }), { kind: 'raw', declaredType: 'image/png' });
  t.same(shape({ 'content-type': 'multipart/mixed; boundary=b' }), {
    kind: 'raw',
    declaredType: 'multipart/mixed; boundary=b',
  });
  t.same(shape(FORM), { kind: 'form', boundary: 'b' });
  t.same(shape({ 'content-type': 'Multipart/Form-Data;boundary=b' }), { kind: 'form', boundary: 'b' });
  for (const coding of ['identity', ' Identity ']) t.equal(shape({ 'content-encoding': coding }).kind, 'raw', coding);
  const refused = { code: 'type_refused', headers: { 'accept-encoding': 'identity' } };
  for (const coding of ['gzip', '', 'identity, gzip'])
    t.throws(() => shape({ 'content-encoding': coding }), refused, coding);
  t.throws(() => shape({ 'content-type': 'multipart/form-data' }), { code: 'malformed' });
});

void t.test('a raw body is staged as it is', async (t) => {
  for (const sync of [false, true]) {
    const { path, held, take } = setUp(t, sync);
    const bytes = Buffer.from('some bytes');
    const received = await take(upload(bytes, { 'content-type': 'text/plain' }));
    t.same(received, {
      staged: { path, sizeBytes: 10, sha256: hexOf(bytes), head: bytes, synced: sync },
      declaredType: 'text/plain',
      filename: undefined,
      fields: new Map(),
    });
    t.same(await readFile(path), bytes);
    t.same([...new Set(held)], [10], 'room was reserved for it');
  }
});

void t.test('a form gives its file, its fields, and the type and name of the file', async (t) => {
  const { path, held, take } = setUp(t);
  const bytes = Buffer.from('some bytes');
  const received = await take(upload(formOf(bytes), FORM));
  t.same(received, {
    staged: { path, sizeBytes: 10, sha256: hexOf(bytes), head: bytes, synced: false },
    declaredType: 'text/plain',
    filename: 'a.txt',
    fields: new Map([['public', 'true']]),
  });
  t.same(await readFile(path), bytes);
  t.same([...new Set(held)], [formOf(bytes).length], 'all of the form needs room');
});

void t.test('every digest that is stated has to match: of the body, of the form or of the file in it', async (t) => {
  const bytes = Buffer.from('some bytes');
  const form = formOf(bytes);
  const [ofFile, ofForm, other] = [digestOf(bytes), digestOf(form), digestOf(Buffer.from('other'))];
  const MISMATCH = { code: 'digest_mismatch', message: 'The bytes do not match the stated SHA-256.' };
  for (const [body, head, accepted, refused] of [
    [bytes, {}, [ofFile], [ofForm, other]],
    [form, FORM, [ofFile, ofForm], [other]],
  ] as const) {
    for (const name of ['repr-digest', 'content-digest']) {
      for (const digest of refused) {
        await t.rejects(setUp(t).take(upload(body, { ...head, [name]: digest })), MISMATCH);
      }
    }
    for (const digest of accepted) {
      const taken = setUp(t).take(upload(body, { ...head, 'repr-digest': digest, 'content-digest': ofFile }));
      t.equal((await taken).staged.sha256, hexOf(bytes));
      const half = { ...head, 'repr-digest': digest, 'content-digest': other };
      await t.rejects(setUp(t).take(upload(body, half)), MISMATCH, 'both have to');
    }
    const unknown = { ...head, 'repr-digest': 'md5=:AAAA:' };
    t.equal((await setUp(t).take(upload(body, unknown))).staged.sizeBytes, 10, 'others are not checked');
  }
  const { path, take } = setUp(t);
  await t.rejects(take(upload(bytes, { 'content-digest': 'sha-256=nothing' })), {
    code: 'malformed',
    message: 'The content-digest field cannot be read.',
  });
  t.notOk(existsSync(path), 'which is said before anything is read');
});

void t.test('a body is at most as large as configured, a form by its overhead larger', async (t) => {
  const LARGE = { code: 'too_large', members: { max_size: 1_000 } };
  const size = async (request: OriginRequest) => (await setUp(t).take(request)).staged.sizeBytes;
  t.equal(await size(upload(Buffer.alloc(1_000))), 1_000);
  await t.rejects(size(upload(Buffer.alloc(1_001))), LARGE);
  t.equal(await size(upload(formOf(Buffer.alloc(1_000)), FORM)), 1_000);
  await t.rejects(size(upload(formOf(Buffer.alloc(1_001)), FORM)), LARGE);
  await t.rejects(size(upload(formOf(Buffer.alloc(1_000), 1_001 + OVERHEAD_BYTES), FORM)), LARGE);
  await t.rejects(size(upload(Buffer.alloc(0))), { code: 'empty' });
});
