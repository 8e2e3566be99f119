/** What is said of single keys, of a whole configuration, and of keys that are misspelt. */
import { join } from 'node:path';
import t from 'tap';
import { allPaths, declaredAt, holdsSecret, nearest } from '../../../src/config/declared.js';
import { duration, integer, type LoadContext, list, secret, section, size } from '../../../src/config/field.js';
import { formatFaults, loadConfig } from '../../../src/config/load.js';
import { effectiveConfig, explainKey } from '../../../src/config/show.js';

const rule = section('One rule.', { ttlMs: duration({ default: '1s', help: 'How long.' }) });
const sections = {
  log: section('Logs.', { maxBytes: size({ default: '1MB', max: 2_000_000, help: 'How much.' }) }),
  edge: section('The edge.', {
    cache: section('The cache.', {
      sizeBytes: size({ default: '1GB', live: true, help: 'Its size.' }),
      entriesMax: integer({ default: 5, help: 'How many.' }),
    }),
    secret: secret({ default: 'env:SECRET', help: 'A secret.' }),
    rules: list({ default: [], of: rule, help: 'Rules.' }),
  }),
};
const context: LoadContext = {
  env: (name) => (name === 'SECRET' ? 'the-secret-of-the-edge' : undefined),
  file: () => undefined,
};

void t.test('a key is explained by its meaning, what it accepts, its default, and when a change counts', async (t) => {
  const shown = explainKey(sections, 'edge.cache.size');
  t.equal(shown.kind, 'shown');
  t.match(shown.text, /^edge\.cache\.size\nIts size\.\nAccepts: a size\nDefault: 1GB\nA running process applies/);
  t.match(explainKey(sections, 'log.max').text, /A change needs a restart/);
  t.match(explainKey(sections, 'edge.rules').text, /Each of the list has:\n {2}ttl {2}How long\./);
  t.match(explainKey(sections, 'edge.cache').text, /The cache\.\nIts keys:\n {2}size {2}Its size\./);
});

void t.test('an unknown key is answered with those that may be meant', async (t) => {
  for (const [given, meant] of [
    ['edge.cache.siez', 'edge.cache.size'],
    ['edge.size', 'edge.cache.size'],
    ['edge.cach', 'edge.cache'],
  ] as const) {
    const { kind, text } = explainKey(sections, given);
    t.equal(kind, 'unknown');
    t.match(text, new RegExp(`did you mean .*${meant.replaceAll('.', '\\.')}`), given);
  }
  t.equal(explainKey(sections, 'something.else').text, 'there is no key something.else');
});

void t.test('the nearest word is found, and a stranger is not', async (t) => {
  const words = ['stale_if_error', 'ttl', 'tiers', 'warm'];
  for (const [given, want] of [
    ['stale-if-error', 'stale_if_error'],
    ['staleIfEror', 'stale_if_error'],
    ['tier', 'tiers'],
    ['tll', 'ttl'],
    ['teirs', 'tiers'],
    ['wram', 'warm'],
    ['rwma', undefined],
    ['xyz', undefined],
    ['', undefined],
  ] as const) {
    t.equal(nearest(given, words), want, given);
  }
});

void t.test('declarations are found by their paths in the file', async (t) => {
  t.ok(allPaths(sections).includes('edge.cache.entries_max'));
  for (const path of allPaths(sections)) t.not(declaredAt(sections, path), undefined, path);
  t.equal(declaredAt(sections, 'edge.rules.0.ttl')?.help, 'How long.');
  for (const path of ['edge.rules.x', 'edge.none', 'none', 'edge.cache.size.more', '']) {
    t.equal(declaredAt(sections, path), undefined, path);
  }
  t.ok(holdsSecret(sections.edge));
  t.notOk(holdsSecret(sections.log));
});

void t.test('each value is shown with its source, and a secret by its place alone', async (t) => {
  const text = 'edge:\n  cache: { entries_max: 7 }\n  rules:\n    - ttl: 5s\n';
  const shown = effectiveConfig(sections, text, context);
  t.equal(
    shown,
    [
      'log:',
      '  max: 1MB  # default',
      'edge:',
      '  cache:',
      '    size: 1GB  # default',
      '    entries_max: 7  # line 2',
      '  secret: env:SECRET  # default, there',
      '  rules: [{"ttl":"5s"}]  # line 3',
      '',
    ].join('\n'),
  );
  t.match(
    effectiveConfig(sections, 'edge: { secret: file:none }', context),
    /secret: file:none {2}# line 1, not there/,
  );
});

void t.test('a fault of a file has its line and column, and the key that was probably meant', async (t) => {
  const folder = t.testdir({
    'config.yaml':
      'edge:\n  cache:\n    size: many\n    entriesmax: 3\n  rules:\n    - ttl: 1s\n    - tll: 1s\nlogs: {}\n',
  });
  const outcome = loadConfig(join(folder, 'config.yaml'), sections, context);
  const said = outcome.kind === 'faulty' ? formatFaults(outcome.faults).split('\n') : [];
  t.match(said.sort(), [
    /^line 3, column 5: edge\.cache\.size: must be a size/,
    /^line 4, column 5: edge\.cache: `entriesmax` is not a key of this section; did you mean `entries_max`\?$/,
    /^line 7, column 7: edge\.rules\.1: `tll` is not a key of this section; did you mean `ttl`\?$/,
    /^line 8, column 1: logs: is not a key of this file; .*did you mean `log`\?$/,
  ]);
});
