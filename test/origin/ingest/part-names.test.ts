import * as fc from 'fast-check';
import t from 'tap';
import { decodeText, readPartNames } from '../../../origin/ingest/part-names.js';

/** The bytes of a header field, as the parser of forms gives them. */
const utf8 = (text: string): string => Buffer.from(text).toString('latin1');

void t.test('the name of a file is read in every form that clients send', (t) => {
  const word = '=?utf-8?B?R3LDvMOfZS50eHQ=?=';
  const cases: readonly (readonly [parameters: string, expected: string | undefined])[] = [
    ['filename="a.txt"', 'a.txt'],
    ['filename=a.txt', 'a.txt'],
    ['filename="a \\"b\\" %22c%22.txt"', 'a "b" "c".txt'],
    ['filename="C:\\Users\\a.txt"', 'C:\\Users\\a.txt'],
    [utf8('filename="Grüße 🙂.txt"'), 'Grüße 🙂.txt'],
    // Latin-1, and what Windows makes of it.
    ['filename="Gr\xfc\xdfe.txt"', 'Grüße.txt'],
    ['filename="\x93a\x94 \x80.txt"', '“a” €.txt'],
    // RFC 8187.
    ["filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt", 'Grüße.txt'],
    ["filename*=utf-8'de'a%20b.txt", 'a b.txt'],
    ['filename*="UTF-8\'\'a%20b.txt"', 'a b.txt'],
    ["filename*=iso-8859-1'en'%A3%20rates", '£ rates'],
    [`filename="${word}"; filename*=utf-8''Gr%C3%BC%C3%9Fe.txt`, 'Grüße.txt'],
    ['filename*=utf-8\'\'b.txt; filename="a.txt"', 'b.txt'],
    // One that cannot be decoded does not count.
    ['filename="a.txt"; filename*=utf-8\'\'%FF', 'a.txt'],
    ['filename="a.txt"; filename*=utf-8\'\'%4', 'a.txt'],
    ['filename="a.txt"; filename*=nope\'\'b.txt', 'a.txt'],
    ['filename="a.txt"; filename*=b.txt', 'a.txt'],
    ["filename*=utf-8''", undefined],
    // RFC 2047.
    [`filename="${word}"`, 'Grüße.txt'],
    ['filename="=?UTF-8?Q?Gr=C3=BC=C3=9Fe_100%.txt?="', 'Grüße 100%.txt'],
    ['filename="=?iso-8859-1?q?Gr=FC=DFe?= =?utf-8*de?b?LnR4dA?="', 'Grüße.txt'],
    ['filename="Re: =?utf-8?B?w7w=?= b"', 'Re: ü b'],
    ['filename="=?nope?B?w7w=?="', '=?nope?B?w7w=?='],
    ['filename="=?utf-8?B?/w==?="', '=?utf-8?B?/w==?='],
    ['filename="=?utf-8?X?w7w=?="', '=?utf-8?X?w7w=?='],
  ];
  for (const [parameters, expected] of cases) {
    t.same(readPartNames(`form-data; name="file"; ${parameters}`), { name: 'file', filename: expected }, parameters);
  }
  t.end();
});

void t.test('a part has a name, in quotes or without', (t) => {
  t.same(readPartNames('form-data; name=file'), { name: 'file', filename: undefined });
  t.same(readPartNames(' FORM-DATA ;NAME="a b"'), { name: 'a b', filename: undefined });
  for (const value of [undefined, '', 'form-data', 'attachment; name="file"', 'form-data; filename="a"']) {
    t.equal(readPartNames(value), undefined, String(value));
  }
  t.end();
});

void t.test('no byte of a text is dropped', (t) => {
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), (text) => decodeText(Buffer.from(text)) === text));
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const text = decodeText(Buffer.from(bytes));
      return !text.includes('\ufffd') || Buffer.from(bytes).includes('\ufffd');
    }),
  );
  t.end();
});
