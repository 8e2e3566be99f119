/** The wrong lines that a mutation run puts in, and how it knows which tests run a line. */
import t from 'tap';
import { runs } from './coverage.js';
import { mutantsOf } from './operators.js';
import { isBelow, toldBy } from './report.js';

/** The module as it reads with each wrong line in turn. */
function wrongLines(text: string): readonly string[] {
  return mutantsOf(text, 'module.js').map(
    ({ start, end, replacement }) => text.slice(0, start) + replacement + text.slice(end),
  );
}

const RULES: readonly (readonly [text: string, ...wrong: string[]])[] = [
  ['release();', ';'],
  ['await flush();', ';', 'void flush();'],
  ['x = a < b;', ';', 'x = a <= b;'],
  ['x = a >= b;', ';', 'x = a > b;'],
  ['x = a === b;', ';', 'x = a !== b;'],
  ['if (a === b) {}', 'if (true) {}', 'if (false) {}'],
  ['if (a && b) {}', 'if (true) {}', 'if (false) {}', 'if (a) {}', 'if (b) {}'],
  ['while (more) {}', 'while (false) {}'],
  ['x = a || b;', ';', 'x = a;', 'x = b;'],
  ['x = a ?? other;', ';', 'x = a;', 'x = other;'],
  ['x = a ?? null;', ';', 'x = null;'],
  ['x = !a;', ';', 'x = a;'],
  ['x = 4;', ';', 'x = 5;'],
  ['const RETRY_MS = 250;', 'const RETRY_MS = 25000;'],
  ['const NONE = 0;', 'const NONE = 1;'],
  [
    'const SIZE_MAX = 4 * 1_024 * 1_024;',
    'const SIZE_MAX = 4 * 1_024 / 1_024;',
    'const SIZE_MAX = 4 / 1_024 * 1_024;',
    'const SIZE_MAX = 400 * 1_024 * 1_024;',
  ],
  ['const size = 4 * 1_024;', 'const size = 4 / 1_024;', 'const size = 5 * 1_024;', 'const size = 4 * 1025;'],
  ['x = a + 1;', ';', 'x = a - 1;', 'x = a + 2;'],
  ["x = a + 'b';", ';'],
  ['function f() { return true; }', 'function f() { return false; }'],
  ["x = new Set(['a', 'b']);", ';', "x = new Set(['', 'b']);", "x = new Set(['a', '']);"],
  ["x = { 'a-b': c, d };", ';', 'x = { ...{}, d };'],
  ['x = { ...a };', ';', 'x = { ...{} };'],
  ['x = Math.min(a, b);', ';', 'x = Math.max(a, b);'],
  ['try {} finally { a(); b(); }', 'try {} finally {}', 'try {} finally { ; b(); }', 'try {} finally { a(); ; }'],
];

void t.test('each kind of mistake becomes a wrong line', (t) => {
  for (const [text, ...wrong] of RULES) t.strictSame(wrongLines(text), wrong, text);
  t.end();
});

void t.test('what no test should have to notice is left alone', (t) => {
  const left = [
    "import { a } from './a.js';",
    'throw new Error(1 + 1);',
    "log.warn({ a: 1 }, 'a');",
    'const hash = 0x9e3779b9;',
  ];
  for (const text of left) t.strictSame(wrongLines(text), [], text);
  t.end();
});

void t.test('the innermost range around a line says whether a test runs it', (t) => {
  const ranges = [
    { startOffset: 0, endOffset: 100, count: 1 },
    { startOffset: 20, endOffset: 60, count: 0 },
    { startOffset: 30, endOffset: 40, count: 2 },
  ];
  const expected = new Map([
    [0, true],
    [20, false],
    [35, true],
    [40, false],
    [60, true],
    [100, false],
  ]);
  for (const [offset, run] of expected) t.equal(runs(ranges, offset), run, `offset ${offset}`);
  t.end();
});

void t.test('a score counts once enough wrong lines were tried', (t) => {
  t.equal(isBelow({ noticed: 47, tried: 60 }, 80), true);
  t.equal(isBelow({ noticed: 48, tried: 60 }, 80), false, 'the floor itself is enough');
  t.equal(isBelow({ noticed: 0, tried: 59 }, 80), false, 'chance alone may miss so many');
  t.end();
});

void t.test('a line that no quick test runs is missed, except where only slow tests can run it', (t) => {
  const slow = ['origin/meta/postgres/store.ts', 'origin/meta/move.ts', 'src/deploy/cluster.ts', 'edge/main.ts'];
  for (const source of slow) t.equal(toldBy('not covered', source), 'left to slow tests', source);
  for (const source of ['origin/meta/lmdb.ts', 'edge/edge.ts', 'src/cli.ts', 'edge/workers/main.ts']) {
    t.equal(toldBy('not covered', source), 'missed', source);
  }
  for (const source of ['origin/meta/postgres/facts.ts', 'edge/edge.ts']) {
    t.equal(toldBy('survived', source), 'missed', `${source}, where quick tests run the line`);
    t.equal(toldBy('noticed', source), 'noticed');
    t.equal(toldBy('out of time', source), 'out of time');
  }
  t.end();
});
