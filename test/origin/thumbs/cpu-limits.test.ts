import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openLauncher } from '../../../origin/thumbs/render/launcher.js';
import { runProgram } from '../../../origin/thumbs/render/program.js';
import { systemClock } from '../../../src/clock.js';
import { createLog } from '../../../src/log.js';
import { MISBEHAVING, openThumbFixture } from '../../kit/origin/thumb-fixture.js';
import { untilAsync } from '../../kit/until.js';

const root = t.testdir({});
const A_YEAR_MS = 365 * 86_400_000;
const skip = process.platform === 'linux' ? false : 'only Linux reports and limits processor time';

void t.test('a program ends by its processor time, however long it may take', { skip }, async (t) => {
  const limits = { timeLimitMs: A_YEAR_MS, cpuLimitMs: 1_000, memoryMaxBytes: 2 ** 28, fileMaxBytes: 2 ** 20 };
  const spin = { program: '/bin/sh', args: ['-c', 'while :; do :; done'] };
  const launcher = await openLauncher(root, createLog('test', { level: 'silent' }));
  const program = { command: spin, limits, folder: root, network: 'none' } as const;
  const ended = await runProgram(launcher, program, systemClock, new AbortController().signal);
  t.same(ended, { kind: 'killed', loss: 'cpu' });
});

void t.test('a picture that takes too much processor time is tried again behind all others', { skip }, async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'spin-')));
  t.teardown(() => fixture.close());
  const children = { count: 1, cpu_limit: '200ms', time_limit: '365d' };
  const queue = { attempts_max: 2, backoff: '1h', backoff_max: '365d' };
  const thumbs = await fixture.open({ children, queue, video: { enabled: false } }, MISBEHAVING);
  const sha256 = await fixture.put(Buffer.from('spin '), 'image/png');
  await untilAsync('the first failure', async () =>
    (await fixture.metrics()).includes('thumbs_verdicts_total{verdict="retry"} 1'),
  );
  await thumbs.close();
  const [job] = await fixture.meta.jobs.claim('test', 1, Date.now() + A_YEAR_MS, 1);
  t.match(job, { sha256, priority: 'backfill', attempts: 1 });
  t.ok((job?.readyAt ?? 0) - (job?.queuedAt ?? 0) >= 4 * 3_600_000, 'and later than after another failure');
  t.match(await fixture.metrics(), /end="lost",reason="cpu"\} 1/);
});
