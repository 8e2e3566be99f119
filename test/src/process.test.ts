/** What a process is made of: which files its configuration names, its faults and warnings, its chores, and why it cannot start. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type LoadContext, secret, section, text } from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';
import { Fault } from '../../src/errors.js';
import { createLog, type LogConfig, logSection } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { type ChoreTools, type ConfigSource, type ProcessDeps, processEntry, startFailure } from '../../src/process.js';
import { ManualClock } from '../kit/clock.js';

interface Config {
  readonly log: LogConfig;
  readonly edge: { readonly name: string; readonly key: string };
}

const clock = new ManualClock();
const log = createLog('test', { level: 'silent' }, { write: () => undefined });
const deps: ProcessDeps = { clock, log, metrics: createMetrics('media_') };
const tools: ChoreTools = {
  clock,
  log,
  signal: new AbortController().signal,
  print: () => undefined,
  progress: () => undefined,
};

/** Files that are there, by name. */
function contextOf(files: Readonly<Record<string, string>>): LoadContext {
  return { env: () => undefined, file: (path) => files[path] };
}

function entryOf(started: unknown[], warn?: (config: Config) => readonly ConfigFault[]) {
  const sources: ConfigSource<Config>[] = [];
  const entry = processEntry<Config>({
    name: 'edge',
    sections: {
      log: logSection,
      edge: section('E.', {
        name: text({ default: 'usual', help: '' }),
        key: secret({ default: 'file:/key', minLength: 3, help: '' }),
      }),
    },
    start: (config, given, source) => {
      sources.push(source);
      started.push(config.edge, given);
      return Promise.resolve({ urls: { media: 'http://x' }, close: () => Promise.resolve() });
    },
    check: ({ edge }) => (edge.name === 'bad' ? [{ path: 'edge.name', message: 'is bad' }] : []),
    ...(warn !== undefined && { warn }),
    chores: {
      check: (config, given, words) => {
        started.push(config.edge.name, given, words);
        return Promise.resolve(7);
      },
    },
  });
  return { entry, sources };
}

void t.test('a process is started with what its file says, and may read the file again', async (t) => {
  const path = join(t.testdir({ 'config.yaml': 'edge: { name: first }' }), 'config.yaml');
  const started: unknown[] = [];
  const { entry, sources } = entryOf(started);
  t.equal(entry.name, 'edge');
  t.strictSame(Object.keys(entry.sections), ['log', 'edge']);
  const read = entry.read(path, contextOf({ '/key': 'secret', '/other': 'another' }));
  if (read.kind === 'faulty') throw new Error('the file is right');
  t.match(read, { log: { level: 'info' }, warnings: [] });
  const running = await read.start(deps);
  t.strictSame(running.urls, { media: 'http://x' });
  t.strictSame(started[0], { name: 'first', key: 'secret' });
  t.equal(started[1], deps);
  const [source] = sources;
  t.equal(source?.path, path);
  t.strictSame(source?.files(), ['/key']);
  writeFileSync(path, readFileSync(path, 'utf8').replace('first', 'second, key: "file:/other"'));
  t.match(source?.read(), { kind: 'loaded', config: { edge: { name: 'second', key: 'another' } } });
  t.strictSame(source?.files(), ['/other'], 'the files of the last read alone');
});

void t.test('faults of the keys, and of keys that do not fit together, keep it from starting', async (t) => {
  const folder = t.testdir({ wrong: 'edge: { nam: x }', bad: 'edge: { name: bad }' });
  const { entry } = entryOf([]);
  const context = contextOf({ '/key': 'secret' });
  t.match(entry.read(join(folder, 'wrong'), context), { kind: 'faulty', faults: [{ path: 'edge' }] });
  t.strictSame(entry.read(join(folder, 'bad'), context), {
    kind: 'faulty',
    faults: [{ path: 'edge.name', message: 'is bad', at: { line: 1, column: 9 } }],
  });
  t.match(entry.read(join(folder, 'none'), context), {
    kind: 'faulty',
    faults: [{ message: /there is no such file/ }],
  });
  t.match(entry.read(undefined, contextOf({})), { kind: 'faulty', faults: [{ path: 'edge.key' }] });
});

void t.test('what may be a mistake is a warning, and does not keep it from starting', async (t) => {
  const warning = { path: 'edge.name', message: 'is unusual' };
  const { entry } = entryOf([], ({ edge }) => (edge.name === 'usual' ? [warning] : []));
  t.match(entry.read(undefined, contextOf({ '/key': 'secret' })), { kind: 'loaded', warnings: [warning] });
});

void t.test('a chore gets the configuration and its words, and one that nobody knows is none', async (t) => {
  const started: unknown[] = [];
  const read = entryOf(started).entry.read(undefined, contextOf({ '/key': 'secret' }));
  if (read.kind === 'faulty') throw new Error('the defaults are right');
  t.equal(read.chore('other'), undefined);
  const words = { repair: true };
  t.equal(await read.chore('check')?.(tools, words), 7);
  t.strictSame(started[0], 'usual');
  t.equal(started[1], tools);
  t.equal(started[2], words);
});

void t.test('the reason why a process cannot start is said to a person', async (t) => {
  const failed = (message: string, code?: string): Error =>
    Object.assign(new Error(message), code !== undefined && { code });
  for (const [thrown, words] of [
    [new Fault('internal', 'The folder cannot be used.', { cause: new Error('inner') }), 'The folder cannot be used.'],
    [
      failed('listen EADDRINUSE: address already in use 127.0.0.1:8080', 'EADDRINUSE'),
      'another process already listens on 127.0.0.1:8080; stop it or choose another port in the configuration.',
    ],
    [
      failed("EACCES: permission denied, mkdir '/x'", 'EACCES'),
      "EACCES: permission denied, mkdir '/x'; this user has no permission for it.",
    ],
    [failed('something else', 'EOTHER'), 'something else'],
    ['a text', 'a text'],
  ] as const) {
    t.equal(startFailure(thrown), words);
  }
});
