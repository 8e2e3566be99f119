/** Each kind of key of config.yaml: what it accepts, at its bounds, with which words it refuses, and how it explains itself. */
import t from 'tap';
import {
  choice,
  deferred,
  duration,
  type Field,
  fileKey,
  flag,
  integer,
  integerOrAuto,
  type LoadContext,
  list,
  optionalDuration,
  optionalSecret,
  optionalText,
  optionalUrl,
  origin,
  ratio,
  type Section,
  secret,
  section,
  size,
  text,
} from '../../../src/config/field.js';
import { parseConfig } from '../../../src/config/load.js';

const SECRETS: Readonly<Record<string, string>> = {
  FIFTEEN: 'x'.repeat(15),
  SIXTEEN: ` ${'x'.repeat(16)}\n`,
  FIVE: 'xxxxx',
};
const context: LoadContext = {
  env: (name) => SECRETS[name],
  file: (path) => (path === '/there' ? ` ${'f'.repeat(16)}\n` : undefined),
};

/** What the key `k` of the file is read as: its value, or why not. */
function read(field: Field<unknown> | Section<unknown>, given: unknown): unknown {
  const outcome = parseConfig(JSON.stringify({ log: { k: given } }), { log: section('S.', { k: field }) }, context);
  if (outcome.kind === 'faulty') return outcome.faults.map(({ path, message }) => `${path}: ${message}`).join('\n');
  return (outcome.config.log as { k: unknown }).k;
}

void t.test('a text is any one, or one that its pattern knows', async (t) => {
  t.equal(read(text({ default: '', help: '' }), 'any thing'), 'any thing');
  const digits = text({ default: '', pattern: /^\d+$/, help: '' });
  t.equal(read(digits, '12'), '12');
  t.equal(read(digits, 'a'), 'log.k: must be like ^\\d+$');
  const named = text({ default: '', pattern: /^\d+$/, accepts: 'digits', help: '' });
  t.equal(read(named, 'a'), 'log.k: must be digits');
  t.strictSame([digits.accepts, named.accepts], ['text', 'digits']);
  const optional = optionalText({ default: null, help: '' });
  t.strictSame([read(optional, 'a'), read(optional, null)], ['a', null]);
  t.match(read(optional, 5), /^log\.k: /);
  t.match(read(flag({ default: true, help: '' }), 'yes'), /^log\.k: /);
  t.equal(read(flag({ default: true, help: '' }), false), false);
});

void t.test('a number is whole where it must be, and within its bounds', async (t) => {
  const whole = integer({ default: 2, min: 1, max: 3, help: '' });
  t.strictSame([read(whole, 1), read(whole, 3)], [1, 3]);
  t.equal(read(whole, 0), 'log.k: must be at least 1');
  t.equal(read(whole, 4), 'log.k: must be at most 3');
  t.match(read(whole, 1.5), /^log\.k: /);
  const auto = integerOrAuto({ default: 'auto', min: 1, max: 3, help: '' });
  t.strictSame([read(auto, 'auto'), read(auto, 3)], ['auto', 3]);
  t.match(read(auto, 'some'), 'must be a whole number, or auto');
  t.match(read(auto, 4), /^log\.k: /);
  const share = ratio({ default: 0.5, min: 0, max: 1, help: '' });
  t.strictSame([read(share, 0), read(share, 0.25), read(share, 1)], [0, 0.25, 1]);
  t.equal(read(share, 1.01), 'log.k: must be at most 1');
  t.equal(read(share, -0.01), 'log.k: must be at least 0');
});

void t.test('sizes and durations have units, and bounds in words', async (t) => {
  const bytes = size({ default: '1KiB', min: 1_024, max: 2_048, help: '' });
  t.strictSame([read(bytes, '2KiB'), read(bytes, 1_024)], [2_048, 1_024]);
  t.equal(read(bytes, 'much'), 'log.k: must be a size such as 10MB or 64KiB');
  t.equal(read(bytes, 1_023), 'log.k: must be at least 1KiB');
  t.equal(read(bytes, 2_049), 'log.k: must be at most 2KiB');
  t.equal(read(bytes, true), 'log.k: must be a size such as 10MB or 64KiB');
  const ms = duration({ default: '2s', min: 1_000, max: 60_000, help: '' });
  t.strictSame([read(ms, '1s'), read(ms, '1m')], [1_000, 60_000]);
  t.equal(read(ms, '61s'), 'log.k: must be at most 1m');
  t.equal(read(ms, '10'), 'log.k: must be a duration such as 250ms, 30s, 5m, 24h or 7d');
  const maybe = optionalDuration({ default: null, min: 1_000, help: '' });
  t.strictSame([read(maybe, null), read(maybe, '1s')], [null, 1_000]);
  t.equal(read(maybe, '999ms'), 'log.k: must be at least 1s');
  t.equal(read(maybe, 'x'), 'log.k: must be a duration such as 30s or 7d');
});

void t.test('each kind of key says what it accepts', async (t) => {
  const help = '';
  const accepts: readonly (readonly [Field<unknown>, string])[] = [
    [integer({ default: 1, help }), 'a whole number'],
    [integer({ default: 1, min: 1, help }), 'a whole number, at least 1'],
    [integer({ default: 1, max: 9, help }), 'a whole number, at most 9'],
    [integer({ default: 1, min: 1, max: 9, help }), 'a whole number, 1 to 9'],
    [integerOrAuto({ default: 1, min: 1, max: 9, help }), 'a whole number, 1 to 9, or auto'],
    [ratio({ default: 1, min: 0, max: 1, help }), 'a number, 0 to 1'],
    [size({ default: '1KB', min: 1_000, help }), 'a size, at least 1KB'],
    [duration({ default: '1s', max: 60_000, help }), 'a duration, at most 1m'],
    [optionalDuration({ default: null, min: 1_000, help }), 'a duration, at least 1s, or null'],
    [choice({ default: 'a', of: ['a', 'b'], help }), 'a | b'],
    [list({ default: [], of: integer({ default: 1, min: 1, help }), help }), 'a list of a whole number, at least 1'],
    [list({ default: [], of: section('S.', {}), help }), 'a list of groups of keys'],
    [flag({ default: true, help }), 'true or false'],
    [optionalText({ default: null, help }), 'text or null'],
    [optionalUrl({ default: null, help }), 'an http:// or https:// URL, or null'],
    [origin({ default: 'http://a', help }), 'http:// or https:// with host and port'],
    [secret({ default: 'env:A', help }), 'env:NAME or file:PATH'],
    [optionalSecret({ default: null, help }), 'env:NAME, file:PATH or null'],
  ];
  for (const [field, words] of accepts) t.equal(field.accepts, words, words);
});

void t.test('a choice is one of its words, and a list has its bounds', async (t) => {
  const one = choice({ default: 'a', of: ['a', 'b'], help: '' });
  t.strictSame([read(one, 'a'), read(one, 'b')], ['a', 'b']);
  for (const wrong of ['', 'c', 'A', null]) t.match(read(one, wrong), /^log\.k/, String(wrong));
  const few = list({ default: ['a'], of: text({ default: '', help: '' }), min: 1, max: 2, help: '' });
  t.strictSame(read(few, ['a', 'b']), ['a', 'b']);
  for (const wrong of [[], ['a', 'b', 'c'], 'a', [1]]) t.match(read(few, wrong), /^log\.k/, JSON.stringify(wrong));
  const many = list({ default: [], of: integer({ default: 0, help: '' }), help: '' });
  t.strictSame(read(many, []), []);
  t.equal((read(many, Array(1_000).fill(1)) as readonly number[]).length, 1_000);
  t.match(read(many, Array(1_001).fill(1)), /^log\.k/);
});

void t.test('an address of a server has a host, and no path, user or query', async (t) => {
  const address = origin({ default: 'http://a', help: '' });
  for (const right of ['http://host', 'http://host:81', 'https://host/', 'HTTP://Host', 'http://[::1]:9000']) {
    t.equal(read(address, right), right);
  }
  for (const wrong of [
    'host',
    'http://',
    'ftp://host',
    'http://host/a',
    'http://u@host',
    'http://host?a',
    'http:/a b',
  ]) {
    t.equal(read(address, wrong), 'log.k: must be http:// or https:// with a host and no path', wrong);
  }
  const url = optionalUrl({ default: null, help: '' });
  t.strictSame([read(url, null), read(url, 'https://h/a?b')], [null, 'https://h/a?b']);
  for (const wrong of ['h', 'ftp://h/a', '']) {
    t.equal(read(url, wrong), 'log.k: must be an http:// or https:// URL, or null', wrong);
  }
});

void t.test('a secret is found elsewhere, without the space around it, and is long enough', async (t) => {
  const usual = secret({ default: 'env:A', help: '' });
  t.equal(read(usual, 'env:SIXTEEN'), 'x'.repeat(16));
  t.equal(read(usual, 'file:/there'), 'f'.repeat(16));
  for (const [source, why] of [
    ['env:FIFTEEN', 'env:FIFTEEN has fewer than 16 characters'],
    ['env:NONE', 'the environment variable NONE is not set'],
    ['file:/nowhere', 'the file /nowhere cannot be read'],
    ['hunter2', 'must be env:NAME or file:PATH; a secret is never written into the file itself'],
  ] as const) {
    t.equal(read(usual, source), `log.k: ${why}`);
    t.equal(read(optionalSecret({ default: null, help: '' }), source), `log.k: ${why}`);
  }
  t.equal(read(optionalSecret({ default: null, help: '' }), null), null);
  t.equal(read(secret({ default: 'env:A', minLength: 5, help: '' }), 'env:FIVE'), 'xxxxx');
  t.match(read(secret({ default: 'env:A', minLength: 6, help: '' }), 'env:FIVE'), 'fewer than 6');
  t.equal(read(optionalSecret({ default: null, minLength: 5, help: '' }), 'env:FIVE'), 'xxxxx');
  t.match(read(optionalSecret({ default: null, minLength: 6, help: '' }), 'env:FIVE'), 'fewer than 6');
});

void t.test('a key is its name in the file, without the unit', async (t) => {
  const ms = duration({ default: '1s', help: '' });
  for (const [name, field, key] of [
    ['maxIdleMs', ms, 'max_idle'],
    ['msLeft', ms, 'ms_left'],
    ['idle', ms, 'idle'],
    ['sizeMaxBytes', size({ default: '1B', help: '' }), 'size_max'],
    ['idleMs', integer({ default: 1, help: '' }), 'idle_ms'],
    ['innerMs', section('S.', {}), 'inner_ms'],
  ] as const) {
    t.equal(fileKey(name, field), key);
  }
  t.throws(() => section('S.', { aMs: ms, a: integer({ default: 1, help: '' }) }), /keys of one section differ: S\./);
});

void t.test('a section that is left out, empty or null has its defaults, and knows no other keys', async (t) => {
  const inner = section('S.', { idleMs: duration({ default: '1s', help: '' }) });
  const outer = section('O.', { inner });
  for (const given of [{}, { inner: {} }, { inner: null }]) {
    t.strictSame(read(outer, given), { inner: { idleMs: 1_000 } }, JSON.stringify(given));
  }
  t.equal(read(inner, { idle: '1s', ideal: 1 }), 'log.k: `ideal` is not a key of this section');
  t.equal(read(inner, { a: 1, b: 2 }), 'log.k: `a`, `b` are not keys of this section');
  const needed = section('S.', { name: { ...text({ default: '', help: '' }), fallback: undefined } });
  t.match(read(needed, {}), /^log\.k\.name: /, 'a key without a default must be given');
});

void t.test('a section that may not be needed keeps its faults for those who need it', async (t) => {
  const later = deferred(section('S.', { idleMs: duration({ default: '1s', help: 'How long.' }) }));
  t.strictSame(Object.keys(later.fields), ['idleMs']);
  t.equal(later.help, 'S.');
  t.strictSame(read(later, { idle: '2s' }), { kind: 'read', value: { idleMs: 2_000 } });
  t.strictSame(read(later, null), { kind: 'read', value: { idleMs: 1_000 } });
  t.match(read(later, { idle: 'x' }), { kind: 'faulty', issues: [{ path: ['idle'] }] });
});
