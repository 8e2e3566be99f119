/** How config.yaml is read as a whole: which files, which keys at its top, and how its faults are said. */
import { join } from 'node:path';
import t from 'tap';
import { duration, section } from '../../../src/config/field.js';
import {
  faultFrom,
  formatFaults,
  loadConfig,
  loggableFault,
  parseConfig,
  processContext,
} from '../../../src/config/load.js';

const sections = { log: section('S.', { idleMs: duration({ default: '1s', help: '' }) }) };
const DEFAULTS = { kind: 'loaded', config: { log: { idleMs: 1_000 } } };

void t.test('without a file every key has its default, and a file that cannot be read is a fault', async (t) => {
  const folder = t.testdir({ 'config.yaml': 'log: { idle: 2s }' });
  t.strictSame(loadConfig(undefined, sections), DEFAULTS);
  t.strictSame(loadConfig(join(folder, 'config.yaml'), sections), {
    kind: 'loaded',
    config: { log: { idleMs: 2_000 } },
  });
  for (const [path, why] of [
    [join(folder, 'none.yaml'), 'there is no such file'],
    [folder, 'it cannot be read'],
  ] as const) {
    t.strictSame(loadConfig(path, sections), { kind: 'faulty', faults: [{ path: '', message: `${path}: ${why}` }] });
  }
});

void t.test('the top of the file has the keys of all processes, and each reads its own', async (t) => {
  for (const right of ['', 'null', '{}', 'log:', 'edge: { anything: 1 }\norigin: []\naccess: 5\n']) {
    t.strictSame(parseConfig(right, sections), DEFAULTS, right);
  }
  for (const wrong of ['- a', 'text', '5', 'true']) {
    const faults = [{ path: '', message: 'the file must contain keys and values' }];
    t.strictSame(parseConfig(wrong, sections), { kind: 'faulty', faults }, wrong);
  }
  t.strictSame(parseConfig('logs: {}\nlog: { idle: x }\nedges: {}', sections), {
    kind: 'faulty',
    faults: [
      { path: 'logs', message: 'is not a key of this file; its keys are log, access, origin, edge' },
      { path: 'edges', message: 'is not a key of this file; its keys are log, access, origin, edge' },
      { path: 'log.idle', message: 'must be a duration such as 250ms, 30s, 5m, 24h or 7d' },
    ],
  });
});

void t.test('a line that is not YAML is shown on a terminal and never logged', async (t) => {
  const outcome = parseConfig('log:\n  idle: "1s\n', sections);
  const faults = outcome.kind === 'faulty' ? outcome.faults : [];
  t.equal(faults.length, 1);
  const [fault = { path: '', message: '' }] = faults;
  t.equal(fault.path, '');
  t.match(fault.line, /idle: "1s/);
  t.notMatch(fault.message, /1s/);
  t.equal(loggableFault(fault), fault.message);
  t.equal(formatFaults([fault]), `${fault.message} ${String(fault.line)}`);
  t.equal(
    formatFaults([
      { path: 'a.b', message: 'm' },
      { path: '', message: 'n', line: 'l' },
    ]),
    'a.b: m\nn l',
  );
});

void t.test('a fault has the path of its key, from the top of the file', async (t) => {
  t.strictSame(faultFrom('edge', { path: ['a', 0, 'b'], message: 'm' }), { path: 'edge.a.0.b', message: 'm' });
  t.strictSame(faultFrom('edge', { path: [], message: 'm', code: 'custom', keys: ['x'] }), {
    path: 'edge',
    message: 'm',
  });
  t.strictSame(faultFrom('edge', { path: ['a'], message: 'm', code: 'unrecognized_keys', keys: ['x'] }), {
    path: 'edge.a',
    keys: ['x'],
    message: '`x` is not a key of this section',
  });
});

void t.test('a process reads the environment and files, and an absent one is none', async (t) => {
  const folder = t.testdir({ secret: 'text' });
  t.equal(processContext.env('PATH'), process.env['PATH']);
  t.equal(processContext.env('NO_SUCH_VARIABLE_OF_A_TEST'), undefined);
  t.strictSame([processContext.file(join(folder, 'secret')), processContext.file(folder)], ['text', undefined]);
});
