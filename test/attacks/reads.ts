/** Range and conditions as weapons: of media that a stranger may not see, and of those that everybody may. */
import { ask, type Row, type Stage } from './row.js';

export function readRows({ id, user }: Stage): readonly Row[] {
  const shown = `GET /v1/media/${id.shown}`;
  const hidden = `/v1/media/${id.hidden}`;
  const whole = [
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=,',
    'bytes=x-y',
    'bytes=1',
    'bytes=0x0-0x9',
    'bytes=-1e9',
    'bytes=5-2',
    'bytes=+0-5',
    'bytes=0--5',
    'bytes= 0 - 5 x',
    'bytes=0-5-9',
    'items=0-5',
    'lines=0-1',
    'bytes=1.5-2',
    'bytes=٣-٤',
    `bytes=${Array.from({ length: 300 }, (_, at) => `${at}-${at}`).join(',')}`,
    `bytes=${Array.from({ length: 40 }, () => '0-').join(',')}`,
    `bytes=0-${'9'.repeat(400)},0-1,0-2,0-3`,
    `bytes=${'0-1,'.repeat(900)}0-1`,
  ].filter((range) => /^[\x20-\x7e]*$/.test(range));
  const out = [
    'bytes=999999-',
    'bytes=999999-9999999',
    `bytes=${'9'.repeat(300)}-`,
    'bytes=-0',
    'bytes=9007199254740993-',
  ];
  const secrets: readonly Readonly<Record<string, string>>[] = [
    ...['bytes=0-', 'bytes=0-0', 'bytes=-1', 'bytes=0-1,3-4', 'bytes=999999-'].map((range) => ({ range })),
    ...['*', '"x"', 'W/"x"', `"sha256:${'0'.repeat(64)}"`, '"', '""'].map((etag) => ({ 'if-none-match': etag })),
    ...['*', '"x"', 'W/"x"'].map((etag) => ({ 'if-match': etag })),
    { 'if-modified-since': 'Fri, 01 Jan 2100 00:00:00 GMT' },
    { 'if-unmodified-since': 'Thu, 01 Jan 1970 00:00:00 GMT' },
    { range: 'bytes=0-', 'if-range': '"x"' },
    { 'cache-control': 'only-if-cached' },
    { 'cache-control': 'max-stale=99999999, only-if-cached' },
    { 'cache-control': 'no-store' },
    { pragma: 'no-cache' },
  ];
  const broken = ['x', '"', '""x', 'W/', 'w/"a"', '"a" "b"', `"${'a'.repeat(3_000)}"`, '"a",,,,"b"', '*, "a"'];
  return [
    ...whole.map((range) => ask('a Range that is none, or too many', shown, { range }, 200)),
    ...out.map((range) => ask('a Range beyond the end', shown, { range }, 416)),
    ask('a Range of a HEAD', `HEAD /v1/media/${id.shown}`, { range: 'bytes=0-1' }, 200),
    ...secrets.flatMap((fields) => [
      ask('private media under conditions', `GET ${hidden}`, fields, 401),
      ask('their head', `HEAD ${hidden}`, fields, 401),
      ask('their thumbnail', `GET ${hidden}/thumb`, fields, 401),
    ]),
    ...broken.flatMap((etag) => [
      ask('an entity tag that is none', shown, { 'if-none-match': etag }, etag.includes('*') ? 200 : 200),
      ask('If-Range with a tag that is none', shown, { 'if-range': etag, range: 'bytes=0-1' }, 200),
    ]),
    ask('a date that is none', shown, { 'if-modified-since': 'never' }, 200),
    ask('a date before all dates', shown, { 'if-unmodified-since': 'Thu, 01 Jan 1970 00:00:00 GMT' }, 412),
    ask('a tag that does not match', shown, { 'if-match': '"x"' }, 412),
    ask('TRACE', `TRACE ${hidden}`, user, 405),
    ...['PUT', 'PATCH', 'POST'].map((method) => ask('a method that changes nothing', `${method} ${hidden}`, user, 405)),
    ...['PROPFIND', 'MKCOL', 'COPY', 'LOCK', 'PURGE', 'SEARCH', 'LINK'].map((method) =>
      ask('a method of other services', `${method} ${hidden}`, user, 405),
    ),
  ];
}
