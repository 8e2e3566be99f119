/** How a process applies a changed configuration while it runs. */
import { rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { duration, integer, section } from '../../src/config/field.js';
import { livingConfig } from '../../src/config/living.js';
import { type LoadOutcome, parseConfig } from '../../src/config/load.js';
import { type LogConfig, logSection } from '../../src/log.js';
import { createReload, openReloading, type Reloading, type ReloadSteps } from '../../src/reload.js';
import { ManualClock } from '../kit/clock.js';
import { testDeps } from '../kit/deps.js';
import { until } from '../kit/until.js';

const sections = {
  log: logSection,
  edge: section('Edge.', {
    rules: integer({ default: 1, min: 0, max: 9, live: true, help: 'Policy.' }),
    pass: section('Pass.', { idleTimeoutMs: duration({ default: '1ms', help: 'Not policy.' }) }),
  }),
};
interface Settings {
  readonly log: LogConfig;
  readonly edge: { readonly rules: number; readonly pass: { readonly idleTimeoutMs: number } };
}

interface Reloadable {
  readonly reloading: Reloading;
  readonly steps: ReloadSteps;
  readonly clock: ManualClock;
  readonly applied: number[];
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The text of the file, as it would be read. */
  text: string;
  /** The files that its secrets would come from. */
  files: readonly string[];
}

function openReloadable(t: Test, path: string | undefined, files: readonly string[] = []): Reloadable {
  const { log, lines } = testDeps();
  const clock = new ManualClock();
  const applied: number[] = [];
  const source = { text: '', files };
  const readAll = (): LoadOutcome<Settings> => parseConfig(source.text, sections);
  const first = readAll();
  if (first.kind !== 'loaded') throw new Error('the defaults are right');
  const from = { path, read: readAll, sections, files: () => source.files };
  const steps = createReload<Settings>({
    source: from,
    started: first.config,
    living: livingConfig(sections, first.config),
    apply: ({ edge }) => void applied.push(edge.rules),
    clock,
    log,
  });
  const reloading = openReloading({ steps, source: from, clock, log });
  t.teardown(() => reloading.close());
  return Object.assign(source, { reloading, steps, clock, applied, lines });
}

void t.test(
  'a good file is applied, a bad one is refused as a whole, and keys that need a restart are named',
  async (t) => {
    const reloadable = openReloadable(t, undefined);
    t.match(await reloadable.reloading.reload(), { kind: 'applied', changed: false, needRestart: [] });
    reloadable.text = 'edge: { rules: 5, pass: { idle_timeout: 7ms } }';
    t.match(await reloadable.reloading.reload(), {
      kind: 'applied',
      changed: true,
      needRestart: ['edge.pass.idle_timeout'],
    });
    t.match(reloadable.lines.at(-2), {
      level: 'info',
      changed: ['edge.rules'],
      changes: ['edge.rules: 1 -> 5', 'edge.pass.idle_timeout: 1ms -> 7ms (needs a restart)'],
    });
    t.match(reloadable.lines.at(-1), { level: 'warn', msg: 'only a restart changes edge.pass.idle_timeout' });
    reloadable.clock.advance(1_000);
    const { readAt } = reloadable.steps.state();
    reloadable.text = 'edge: { rules: 50, surprise: 1 }\norigins: 1';
    const refused = await reloadable.reloading.reload();
    t.equal(refused.kind === 'refused' && refused.faults.length, 3, 'every fault at once');
    t.same(reloadable.steps.state().readAt, readAt);
    t.equal(reloadable.steps.state().faults.length, 3, 'they are shown until a good file is read');
    reloadable.text = 'edge: { rules: 5 }';
    t.match(
      await reloadable.reloading.reload(),
      { kind: 'applied', changed: false, needRestart: [] },
      'as it was started',
    );
    t.same(reloadable.applied, [1, 5, 5]);
    t.same(reloadable.steps.state().faults, []);
  },
);

void t.test('SIGHUP and a changed or replaced file cause a reload; closing ends both', async (t) => {
  const folder = t.testdir({
    'config.yaml': '',
    'other.yaml': '',
    one: { secret: 'first' },
    two: { secret: 'second' },
    mount: t.fixture('symlink', 'one'),
  });
  const path = join(folder, 'config.yaml');
  const secret = join(folder, 'mount', 'secret');
  const before = process.listenerCount('SIGHUP');
  const reloadable = openReloadable(t, path, [secret]);
  process.emit('SIGHUP', 'SIGHUP');
  t.equal(reloadable.applied.length, 1);

  const comesInForce = (rules: number): Promise<void> =>
    until(`the change to ${rules}`, () => {
      reloadable.clock.advance(200);
      return reloadable.applied.at(-1) === rules;
    });
  reloadable.text = 'edge: { rules: 2 }';
  await writeFile(path, reloadable.text);
  await comesInForce(2);
  reloadable.text = 'edge: { rules: 3 }';
  await writeFile(`${path}.new`, reloadable.text);
  await rename(`${path}.new`, path);
  await comesInForce(3);
  reloadable.text = 'edge: { rules: 4 }';
  await writeFile(join(folder, 'one', 'secret'), 'changed');
  await comesInForce(4);
  reloadable.text = 'edge: { rules: 5 }';
  await symlink('two', join(folder, 'next'));
  await rename(join(folder, 'next'), join(folder, 'mount'));
  await comesInForce(5);
  reloadable.reloading.close();
  t.equal(process.listenerCount('SIGHUP'), before);
  t.equal(reloadable.clock.pending, 0);
});

void t.test(
  'files that a changed configuration names are watched from then on, also one that does not exist yet',
  async (t) => {
    const folder = t.testdir({ 'config.yaml': '', secrets: { first: '' } });
    const at = (name: string): string => join(folder, 'secrets', name);
    const reloadable = openReloadable(t, join(folder, 'config.yaml'), [at('first')]);
    const comesInForce = (rules: number): Promise<void> =>
      until(`the change to ${rules}`, () => {
        reloadable.clock.advance(200);
        return reloadable.applied.at(-1) === rules;
      });
    reloadable.text = 'edge: { rules: 50 }';
    reloadable.files = [at('second')];
    t.equal((await reloadable.reloading.reload()).kind, 'refused');
    reloadable.text = 'edge: { rules: 2 }';
    await writeFile(at('second'), '');
    await comesInForce(2);
    reloadable.text = 'edge: { rules: 3 }';
    await writeFile(at('second'), 'changed');
    await comesInForce(3);
  },
);

void t.test('neither the log nor the state shows a line of a file that cannot be read', async (t) => {
  const reloadable = openReloadable(t, undefined);
  reloadable.text = 'access:\n  edge_secret: "a secret that somebody wrote here\n';
  const refused = await reloadable.reloading.reload();
  t.match(refused, { kind: 'refused', faults: [/at line \d+, column \d+/] });
  t.notMatch(JSON.stringify([refused, reloadable.steps.state(), reloadable.lines]), /somebody wrote/);
});
