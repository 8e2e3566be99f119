/** File names: what is stored of a client's name, and how it is said in Content-Disposition. */
import * as fc from 'fast-check';
import t from 'tap';
import { cleanFilename, contentDisposition } from '../../../src/media/disposition.js';

void t.test('a name is stored without its path, and without what cannot be seen', async (t) => {
  const cases: readonly (readonly [string, string | null])[] = [
    ['holiday.jpg', 'holiday.jpg'],
    ['/etc/passwd', 'passwd'],
    ['C:\\Users\\me\\a b.txt', 'a b.txt'],
    ['..\\../x', 'x'],
    ['dir/', null],
    ['', null],
    [' \t ', null],
    ['.', null],
    ['..', null],
    ['...', null],
    ['.profile', '.profile'],
    ['  padded.txt ', 'padded.txt'],
    ['a\0b\nc\x7fd\x85e', 'abcde'],
    ['\ud800x', 'x'],
    ['a\u2028b\u2029c', 'abc'],
    ['\u202eexe.gpj', 'exe.gpj'],
    ['\u061c\u200e\u200f\u202a\u2066\u2069\ufeff\ufffd.', null],
    ['cafe\u0301.txt', 'caf\u00e9.txt'],
    ['日本.png', '日本.png'],
  ];
  for (const [given, expected] of cases) t.equal(cleanFilename(given), expected, Buffer.from(given).toString('hex'));
});

void t.test('a name that is too long loses the end of its stem, between characters', async (t) => {
  t.equal(cleanFilename('a'.repeat(255)), 'a'.repeat(255));
  t.equal(cleanFilename('a'.repeat(256)), 'a'.repeat(255));
  t.equal(cleanFilename(`${'a'.repeat(252)}.jpg`), `${'a'.repeat(251)}.jpg`);
  t.equal(cleanFilename(`${'é'.repeat(127)}.jpg`), `${'é'.repeat(125)}.jpg`, 'characters of two bytes');
  t.equal(cleanFilename(`x${'😀'.repeat(80)}`), `x${'😀'.repeat(63)}`, 'characters of four bytes');
  const longest = `.${'e'.repeat(31)}`;
  t.equal(cleanFilename(`${'a'.repeat(300)}${longest}`), `${'a'.repeat(223)}${longest}`, 'the longest extension');
  t.equal(cleanFilename(`${'a'.repeat(300)}${longest}e`), 'a'.repeat(255), 'a longer one is part of the stem');
  t.equal(cleanFilename(`.${'a'.repeat(300)}`), `.${'a'.repeat(254)}`, 'a name that begins with its only dot');
  t.equal(cleanFilename(`a.${'b'.repeat(300)}.c`), `a.${'b'.repeat(251)}.c`, 'the last dot');
  // Eight bytes: a stem of none, and an extension that begins at the first character.
  t.equal(cleanFilename(`.é${'b'.repeat(300)}`), `.é${'b'.repeat(252)}`);
});

void t.test('Content-Disposition has the exact name, and an ASCII one for clients that know no other', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['plain name.txt', 'inline; filename="plain name.txt"'],
    ['a"b\\c%d.txt', `inline; filename="a_b_c_d.txt"; filename*=UTF-8''a%22b%5Cc%25d.txt`],
    ['café.txt', `inline; filename="cafe.txt"; filename*=UTF-8''caf%C3%A9.txt`],
    ['€.txt', `inline; filename="_.txt"; filename*=UTF-8''%E2%82%AC.txt`],
    ["é!'()*~.txt", `inline; filename="e!'()*~.txt"; filename*=UTF-8''%C3%A9%21%27%28%29%2A~.txt`],
    ['é a&b.txt', `inline; filename="e a&b.txt"; filename*=UTF-8''%C3%A9%20a%26b.txt`],
  ];
  for (const [name, expected] of cases) t.equal(contentDisposition('inline', name), expected, name);
  t.equal(contentDisposition('attachment', 'x'), 'attachment; filename="x"');
});

void t.test('whatever the name, the field is ASCII, and its exact form is read back (RFC 8187)', async () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 300 }), (given) => {
      const name = cleanFilename(given);
      if (name === null) return true;
      const field = contentDisposition('attachment', name);
      const [, fallback = '', exact] =
        /^attachment; filename="([^"\\%]*)"(?:; filename\*=UTF-8''([\w!#$&+.^`|~%-]+))?$/.exec(field) ?? [];
      return /^[\x20-\x7e]*$/.test(field) && (exact === undefined ? fallback : decodeURIComponent(exact)) === name;
    }),
  );
});
