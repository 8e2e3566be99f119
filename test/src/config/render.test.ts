/** The layout of config.yaml: widths, empty lines, nested keys, and keys without a default. */
import t from 'tap';
import { integer, section, text } from '../../../src/config/field.js';
import { renderConfig } from '../../../src/config/render.js';

const number = (help: string) => integer({ default: 1, help });

void t.test(
  'sections of the second level stand apart, deeper ones do not, and a key without a default is a comment',
  async (t) => {
    const needed = { ...text({ default: '', help: 'Needed.' }), fallback: undefined };
    const sections = {
      one: section('One.', {
        first: number('First.'),
        inner: section('Inner.', { deep: section('Deep.', { a: number('A.') }), b: number('B.'), needed }),
        last: number('Last.'),
      }),
    };
    t.equal(
      renderConfig(sections, {
        preamble: [],
        firstHelp: 'F.',
        firstKeys: ['one.first', 'one.inner.b', 'one.inner.deep.a'],
      }),
      `# F.
#
#   one:
#     first: 1
#     inner:
#       b: 1
#       deep:
#         a: 1

# One.
one:
  # First. (a whole number)
  first: 1

  # Inner.
  inner:
    # Deep.
    deep:
      # A. (a whole number)
      a: 1
    # B. (a whole number)
    b: 1
    # Needed. (text)
    # needed:

  # Last. (a whole number)
  last: 1
`,
    );
  },
);

void t.test(
  'a line of a comment has at most 100 characters, and what a key accepts gets its own where it must',
  async (t) => {
    const words = (length: number): string => `${'x'.repeat(9)} `.repeat(20).slice(0, length);
    const linesOf = (help: string): readonly string[] =>
      renderConfig({ one: section('S.', { a: number(help) }) }, { preamble: [], firstHelp: 'F.', firstKeys: ['one.a'] })
        .split('\n')
        .filter((line) => line.startsWith('  #'));
    const accepts = '(a whole number)';
    // Two spaces, the mark and a space come before the text.
    const fits = words(96 - accepts.length - 1);
    t.strictSame(linesOf(fits), [`  # ${fits} ${accepts}`]);
    t.equal(linesOf(fits)[0]?.length, 100);
    t.strictSame(linesOf(`${fits}x`), [`  # ${fits}x`, `  # ${accepts}`]);
    const long = linesOf(words(180));
    t.strictSame(long.map((line) => line.slice(4)).join(' '), `${words(180)} ${accepts}`);
    t.ok(long.every((line) => line.length <= 100));
    t.equal(linesOf('y'.repeat(120))[0], `  # ${'y'.repeat(120)}`, 'a word is never cut');
    t.throws(
      () => renderConfig({ one: section('S.', {}) }, { preamble: [], firstHelp: '', firstKeys: ['one'] }),
      /config\.yaml has no key one/,
    );
  },
);
