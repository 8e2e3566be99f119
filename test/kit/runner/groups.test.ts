/** Test files that share a process: which, and that each is reported as if it had been alone. */
import t from 'tap';
import { END, groupsOf, outputsOf } from './groups.js';

const tap = (...lines: readonly string[]): string => `${lines.join('\n')}\n`;
const ended = (n: number, file: string): readonly string[] => [
  `# Subtest: ${END}${file}`,
  '    1..0',
  `ok ${n} - ${END}${file} # time=0.1ms`,
];

void t.test('each file has its own tests, counted from one, and the time that they took', async (t) => {
  const output = tap(
    'TAP version 14',
    '# Subtest: one',
    '    ok 1 - yes',
    '    1..1',
    'ok 1 - one # time=2.5ms',
    ...ended(2, 'a.js'),
    'ok 3 - two # time=1ms',
    'not ok 4 - three # time=4ms',
    ...ended(5, 'b.js'),
    '1..5',
  );
  t.same(outputsOf(['a.js', 'b.js'], output), [
    {
      file: 'a.js',
      output: tap('# Subtest: one', '    ok 1 - yes', '    1..1', 'ok 1 - one # time=2.5ms', '1..1'),
      passed: true,
      tookMs: 2.5,
    },
    {
      file: 'b.js',
      output: tap('ok 1 - two # time=1ms', 'not ok 2 - three # time=4ms', '1..2'),
      passed: false,
      tookMs: 5,
    },
  ]);
});

void t.test('a file that ends the process has failed, and so has what did not run', async (t) => {
  const output = tap(...ended(1, 'a.js'), 'ok 2 - begun # time=1ms');
  t.same(
    outputsOf(['a.js', 'b.js', 'c.js'], output).map(({ passed, output }) => [passed, output]),
    [
      [true, tap('1..0')],
      [false, tap('ok 1 - begun # time=1ms', 'not ok 2 - it ended the process', '1..2')],
      [false, tap('not ok 1 - it did not run', '1..1')],
    ],
  );
});

void t.test('a file is alone if it or its kit opens sockets or changes the process', async (t) => {
  const rules = 'dist/test/src/http/fields.test.js';
  const alone = [
    'dist/test/origin/server/server.test.js',
    'dist/test/src/clock.test.js',
    'dist/test/origin/durable.test.js',
    'dist/test/origin/ingest/resumable/unfinished-uploads.test.js',
  ];
  t.same(groupsOf([...alone, rules, 'dist/test/src/http/range.test.js']), [
    [rules, 'dist/test/src/http/range.test.js'],
    ...alone.map((file) => [file]),
  ]);
  const many = Array.from({ length: 30 }, () => rules);
  t.ok(groupsOf(many).every((group) => group.length <= 12));
  t.equal(groupsOf(many).flat().length, many.length);
});
