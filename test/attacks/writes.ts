/** Uploads: forms, resumable uploads, names, types and sizes that are tricks. */
import { ask, type Row, type Stage, send } from './row.js';

const B = 'edge-of-part';
const FORM = { 'content-type': `multipart/form-data; boundary=${B}` };
const part = (head: string, body = 'text'): string => `--${B}\r\n${head}\r\n\r\n${body}\r\n`;
const file = (rest = '', body = 'some text'): string =>
  part(`content-disposition: form-data; name="file"${rest}`, body);
const field = (name: string, value: string): string => part(`content-disposition: form-data; name="${name}"`, value);
const END = `--${B}--\r\n`;

export function formRows({ user }: Stage): readonly Row[] {
  const bodies: readonly (readonly [string, string, number])[] = [
    ['no parts', END, 400],
    ['nothing', '--', 400],
    ['no end', file(), 400],
    ['two files', file() + file() + END, 400],
    ['no file', field('public', 'true') + END, 400],
    ['a file by another name', part('content-disposition: form-data; name="upload"') + END, 400],
    ['an empty file', file('', '') + END, 400],
    ['no disposition', part('content-type: text/plain') + END, 400],
    ['another disposition', part('content-disposition: attachment; name="file"') + END, 400],
    ['two names', part('content-disposition: form-data; name="file"; name="public"') + END, 400],
    ['a head without an end', `--${B}\r\ncontent-disposition: form-data; name="file"`, 400],
    ['a very long head', part(`content-disposition: form-data; name="file"\r\nx: ${'a'.repeat(20_000)}`) + END, 400],
    ['very many fields', Array.from({ length: 60 }, (_, at) => field(`f${at}`, '1')).join('') + file() + END, 400],
    ['a very long field', field('filename', 'a'.repeat(20_000)) + file() + END, 400],
    ['a field twice', field('public', 'true') + field('public', 'false') + file() + END, 400],
    ['public that is neither', field('public', 'yes') + file() + END, 400],
    ['an end that is no number', field('expires_in', 'soon') + file() + END, 400],
    ['an end in the past', field('expires_in', '-5') + file() + END, 400],
    ['an end beyond numbers', field('expires_in', '9'.repeat(40)) + file() + END, 400],
    ['a prototype as name', part('content-disposition: form-data; name="__proto__"') + END, 400],
    [
      'a nested form',
      part(`content-disposition: form-data; name="file"\r\ncontent-type: multipart/mixed; boundary=x`, '--x--') + END,
      415,
    ],
    [
      'a page as file',
      file('; filename="a.html"\r\ncontent-type: text/html', '<html><script>alert(1)</script></html>') + END,
      415,
    ],
  ];
  const types: readonly (readonly [string, string, number])[] = [
    ['no boundary', 'multipart/form-data', 400],
    ['an empty boundary', 'multipart/form-data; boundary=', 400],
    ['a very long boundary', `multipart/form-data; boundary=${'b'.repeat(300)}`, 400],
    ['two boundaries', `multipart/form-data; boundary=${B}; boundary=x`, 400],
  ];
  return [
    ...bodies.map(([name, body, status]) =>
      send(`a form: ${name}`, 'POST /v1/media', { ...user, ...FORM }, body, status),
    ),
    ...bodies
      .slice(0, 6)
      .map(([name, body]) => send(`a form of a stranger: ${name}`, 'POST /v1/media', FORM, body, 401)),
    ...types.map(([name, type, status]) =>
      send(`a form: ${name}`, 'POST /v1/media', { ...user, 'content-type': type }, file() + END, status),
    ),
  ];
}

export function uploadRows({ user, reader }: Stage): readonly Row[] {
  const post = 'POST /v1/media';
  const active: readonly (readonly [string, string])[] = [
    ['HTML', '<!doctype html><html><body><script>alert(1)</script>'],
    ['HTML behind spaces', `${' '.repeat(300)}<html><script>alert(1)</script></html>`],
    ['SVG', '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'],
    ['SVG behind a declaration', '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'],
    ['XML with an entity', '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'],
    ['a program', `MZ${'\0'.repeat(200)}`],
    ['an ELF program', `\x7fELF${'\0'.repeat(200)}`],
  ];
  const mismatched = [
    'image/png',
    'image/svg+xml',
    'text/html',
    'application/pdf',
    'video/mp4',
    'application/xhtml+xml',
  ];
  const broken = ['image;', '/', 'image/', '/png', 'image/png/x', 'text/plain text/html', ';', 'a'.repeat(3_000)];
  const options: readonly (readonly [string, number])[] = [
    ['public=1', 400],
    ['public=TRUE', 400],
    ['public=true&public=false', 400],
    ['expires_in=0', 400],
    ['expires_in=-1', 400],
    ['expires_in=1e3', 400],
    ['expires_in=0x10', 400],
    ['expires_in=1.5', 400],
    [`expires_in=${'9'.repeat(30)}`, 400],
    ['expires_in=', 400],
    ['expires_in=NaN', 400],
  ];
  const digests = [
    'sha-256=:AAAA:',
    'sha-256=:x:',
    'sha-256=x',
    'sha-256',
    `sha-256=:${Buffer.alloc(32).toString('base64')}:`,
  ];
  return [
    ...active.map(([name, body]) => send(`an upload of ${name}`, post, user, body, 415)),
    ...mismatched.map((type) =>
      send(`a declared type that is not true: ${type}`, post, { ...user, 'content-type': type }, 'words', 415),
    ),
    ...broken.map((type) =>
      send(`a declared type that is none: ${type.slice(0, 20)}`, post, { ...user, 'content-type': type }, 'words', 400),
    ),
    ...options.map(([query, status]) =>
      send(`an option: ${query.slice(0, 30)}`, `${post}?${query}`, user, 'words', status),
    ),
    ...digests.map((digest) => send(`a digest: ${digest}`, post, { ...user, 'repr-digest': digest }, 'words', 400)),
    ...['gzip', 'br', 'deflate', 'gzip, identity', 'x'].map((coding) =>
      send(`a coding: ${coding}`, post, { ...user, 'content-encoding': coding }, 'words', 415),
    ),
    send('an upload with a token for reading', post, reader, 'words', 403),
    send('an upload of a stranger', post, {}, 'words', 401),
    send('an upload that is too large', post, user, 'a'.repeat(60_000), 413),
    send('an unknown expectation', post, { ...user, expect: '200-ok' }, 'words', 417),
    ask('an upload without a body', post, user, 400),
    send('a body of a GET', 'GET /v1/media', user, 'words', 405),
  ];
}

export function tusRows({ user, upload, reader }: Stage): readonly Row[] {
  const tus = { ...user, 'tus-resumable': '1.0.0' };
  const octets = { ...tus, 'content-type': 'application/offset+octet-stream' };
  const lengths: readonly (readonly [string, number])[] = [
    ['-1', 400],
    ['x', 400],
    ['1e3', 400],
    ['0x10', 400],
    ['1.5', 400],
    ['', 400],
    ['9'.repeat(40), 413],
    ['60000', 413],
  ];
  const concats = [
    'partial;x',
    'final',
    'final;',
    'final;/v1/uploads/x',
    'final;http://evil.example/a',
    `final;${upload}`,
    'both',
    `final;${'/v1/uploads/x '.repeat(100).trim()}`,
  ];
  const metadata = [
    'filename @@@',
    'filename YQ==,filename Yg==',
    'a b c d',
    `filename ${'A'.repeat(9_000)}`,
    'public eWVz',
    'expires_in c29vbg==',
  ];
  const strange: readonly (readonly [string, string, Readonly<Record<string, string>>, number])[] = [
    ['another version', 'POST /v1/uploads', { ...user, 'tus-resumable': '9.9.9', 'upload-length': '5' }, 412],
    ['no version', 'POST /v1/uploads', { ...user, 'upload-length': '5' }, 412],
    ['no length', 'POST /v1/uploads', tus, 400],
    ['a length and none', 'POST /v1/uploads', { ...tus, 'upload-length': '5', 'upload-defer-length': '1' }, 400],
    ['a deferred length that is none', 'POST /v1/uploads', { ...tus, 'upload-defer-length': '2' }, 400],
    ['a token for reading', 'POST /v1/uploads', { ...reader, 'tus-resumable': '1.0.0', 'upload-length': '5' }, 403],
    ['a stranger', 'POST /v1/uploads', { 'tus-resumable': '1.0.0', 'upload-length': '5' }, 401],
    ['the upload of another', `HEAD ${upload}`, tus, 404],
    ['its end by another', `DELETE ${upload}`, tus, 404],
    ['an upload that is none', 'HEAD /v1/uploads/x', tus, 404],
    ['a path as upload', 'HEAD /v1/uploads/..%2f..%2fetc%2fpasswd', tus, 404],
    ['a prototype as upload', 'HEAD /v1/uploads/__proto__', tus, 404],
    ['a method in a field', 'GET /v1/uploads/x', { ...tus, 'x-http-method-override': 'DELETE' }, 405],
  ];
  return [
    ...lengths.map(([length, status]) =>
      ask(`a length of ${length.slice(0, 9)}`, 'POST /v1/uploads', { ...tus, 'upload-length': length }, status),
    ),
    ...concats.map((concat) =>
      ask(`a concatenation: ${concat.slice(0, 30)}`, 'POST /v1/uploads', { ...tus, 'upload-concat': concat }, 400),
    ),
    ...metadata.map((value) =>
      ask(
        `metadata: ${value.slice(0, 30)}`,
        'POST /v1/uploads',
        { ...tus, 'upload-length': '5', 'upload-metadata': value },
        400,
      ),
    ),
    ...strange.map(([name, request, headers, status]) => ask(`tus: ${name}`, request, headers, status)),
    send('bytes for the upload of another', `PATCH ${upload}`, { ...octets, 'upload-offset': '0' }, 'bytes', 404),
    send('bytes of a stranger', `PATCH ${upload}`, { 'tus-resumable': '1.0.0', 'upload-offset': '0' }, 'bytes', 401),
    send('bytes of a file that is none', 'PATCH /v1/uploads/x', { ...octets, 'upload-offset': '-1' }, 'bytes', 404),
  ];
}
