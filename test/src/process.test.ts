/** What a process is made of: which files its configuration names, its faults and warnings, its chores, and why it cannot start. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import { type LoadContext, secret, section, text } from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';
import { Fault } from '../../src/errors.js';
import { createLog, type LogConfig, logSection } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import {
  type ChoreTools,
  type ConfigSource,
  type ProcessDeps,
  processEntry,
  runChore,
  startFailure,
} from '../../src/process.js';
import { ManualClock } from '../kit/clock.js';

interface Config {
  readonly log: LogConfig;
  readonly edge: { readonly name: string; readonly key: string };
}

const SECTIONS = {
  log: logSection,
  edge: section('E.', {
    name: text({ default: 'usual', help: '' }),
    key: secret({ default: 'file:/key', minLength: 3, help: '' }),
  }),
};
const clock = new ManualClock();
const log = createLog('test', { level: 'silent' }, { write: () => undefined });
const deps: ProcessDeps = { clock, log, metrics: createMetrics('media_') };
const tools: ChoreTools = {
  clock,
  log,
  signal: new AbortController().signal,
  print: () => undefined,
  complain: () => undefined,
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
    sections: SECTIONS,
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
    [failed('something else', 'EOTHER'), 'something else'],
    ['a text', 'a text'],
  ] as const) {
    t.equal(startFailure(thrown), words);
  }
});

/** The path of a configuration with this name, and of the secret that it needs. */
function configIn(t: Test, name: string): string {
  const folder = t.testdir({ key: 'secret' });
  chmodSync(join(folder, 'key'), 0o600);
  writeFileSync(join(folder, 'config.yaml'), `edge: { name: ${name}, key: "file:${folder}/key" }`);
  return join(folder, 'config.yaml');
}

/** Keeps what is written to a stream from here on, in place of writing it. */
function recorded(stream: NodeJS.WriteStream, isTTY: boolean): { readonly texts: readonly string[]; restore(): void } {
  const texts: string[] = [];
  const before = Object.getOwnPropertyDescriptors(stream);
  const set = (name: string, value: unknown): void =>
    void Object.defineProperty(stream, name, { value, configurable: true, writable: true });
  set('write', (text: string) => texts.push(text) > 0);
  set('isTTY', isTTY);
  return {
    texts,
    restore() {
      for (const name of ['write', 'isTTY'] as const) {
        Reflect.deleteProperty(stream, name);
        if (before[name] !== undefined) Object.defineProperty(stream, name, before[name]);
      }
    },
  };
}

/** Runs a chore as the command line does, with what it printed. */
async function ranChore(t: Test, chore: (tools: ChoreTools) => Promise<number>, word = 'check', terminal = false) {
  const path = configIn(t, 'first');
  const entry = processEntry<Config>({
    name: 'edge',
    sections: SECTIONS,
    start: () => Promise.reject(new Error('it is not started')),
    check: ({ edge }) => (edge.name === 'bad' ? [{ path: 'edge.name', message: 'is bad' }] : []),
    chores: { check: (_, given) => chore(given) },
  });
  const [printed, shown] = [recorded(process.stdout, terminal), recorded(process.stderr, terminal)];
  try {
    const code = await runChore(entry, word, path, {});
    return { code, printed: printed.texts.join(''), shown: shown.texts.join('') };
  } finally {
    printed.restore();
    shown.restore();
    for (const name of ['SIGTERM', 'SIGINT', 'disconnect']) process.removeAllListeners(name);
  }
}

void t.test('a chore ends with its own code, and prints what it found', async (t) => {
  const ran = await ranChore(t, async (given) => {
    given.progress('half');
    given.print('found');
    return 3;
  });
  t.same(ran, { code: 3, printed: 'found\n', shown: '' }, 'what changes is for terminals alone');
  const terminal = await ranChore(
    t,
    async (given) => {
      given.progress('half');
      given.print('found');
      given.progress('whole');
      return 0;
    },
    'check',
    true,
  );
  t.equal(terminal.printed, 'found\n');
  t.equal(terminal.shown, ['half', '', 'whole', ''].map((text) => `\r\x1b[K${text}`).join(''), 'and is cleared');
});

void t.test('a chore that fails says why, and one that is stopped keeps what it has done', async (t) => {
  const failed = await ranChore(t, () => Promise.reject(new Error('no room')));
  t.same(failed, { code: 2, printed: '', shown: 'check: no room\n' });
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    let reason: unknown;
    const stopped = await ranChore(t, async ({ signal }) => {
      process.emit(name);
      await new Promise(setImmediate);
      reason = signal.reason;
      throw reason;
    });
    t.match(reason, { message: `stopped by ${name}` });
    t.same(stopped, { code: 130, printed: '', shown: 'check: stopped; finished work is kept\n' });
  }
  const unknown = await ranChore(t, () => Promise.resolve(0), 'other');
  t.same(unknown, { code: 2, printed: '', shown: '' });
});

void t.test('a chore is not run with a configuration that cannot be used', async (t) => {
  const path = configIn(t, 'bad');
  const { entry } = entryOf([]);
  const shown = recorded(process.stderr, false);
  const codes = [await runChore(entry, 'check', path, {}), await runChore(entry, 'check', undefined, {})];
  shown.restore();
  t.same(codes, [2, 2]);
  t.match(shown.texts[0], /^edge: the configuration .*config\.yaml cannot be used:\n$/);
  t.match(shown.texts[1], /^ {2}.*edge\.name: is bad\n$/);
  t.equal(shown.texts[2], 'edge: the configuration (defaults) cannot be used:\n');
});

void t.test('a process that a bug ends is gone, also while a thread of it waits for ever', async (t) => {
  const folder = t.testdir();
  const pipe = join(folder, 'pipe');
  t.equal(spawnSync('mkfifo', [pipe]).status, 0);
  // Opening a pipe that nobody writes to blocks a thread of the pool, which node joins at its exit.
  const script = `
    import { open } from 'node:fs';
    import { processEntry, runProcess } from '${new URL('../../src/process.js', import.meta.url).href}';
    import { logSection } from '${new URL('../../src/log.js', import.meta.url).href}';
    const start = () => {
      open('${pipe}', () => undefined);
      setImmediate(() => setImmediate(() => { throw new Error('a bug'); }));
      return Promise.resolve({ urls: {}, close: () => Promise.resolve() });
    };
    await runProcess(processEntry({ name: 'edge', sections: { log: logSection }, start, check: () => [] }), undefined);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => void child.kill('SIGKILL'));
  const [printed, [code, signal]] = await Promise.all([textOf(child.stdout), once(child, 'exit')]);
  t.same([code, signal], [null, 'SIGKILL']);
  t.match(printed, /"error":"a bug".*an exception went uncaught; ending/);
});
