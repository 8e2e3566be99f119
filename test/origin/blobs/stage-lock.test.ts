/** A stage folder is of one process: a second one is refused, and what is there is not cleared. */

import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { lockStage } from '../../../origin/blobs/stage-lock.js';
import { clearLeftovers, clearStage } from '../../../origin/blobs/sweep.js';
import { testDeps } from '../../kit/deps.js';
import { openProcesses } from '../../kit/processes.js';
import { onSmallDisk } from '../../kit/small-disk.js';

const STILL = { thumbs: { enabled: false, video: { enabled: false } } };

void t.test('a stage is locked until it is given back, and its lock is not cleared with it', async (t) => {
  const stage = t.testdir({ 'upload-1': '' });
  const { log } = testDeps();
  const lock = await lockStage(stage, randomUUID, log);
  t.ok(lock.isHeld);
  const refusal = { message: new RegExp(`the stage folder ${stage} is in use by process ${process.pid}`) };
  await t.rejects(lockStage(stage, randomUUID, log), refusal);
  t.equal(await clearLeftovers(stage), 1);
  t.equal(await clearStage(stage, Number.POSITIVE_INFINITY, new AbortController().signal), 0);
  await t.rejects(lockStage(stage, randomUUID, log), refusal);
  await lock.close();
  await lock.close();
  const next = await lockStage(stage, randomUUID, log);
  await next.close();
});

void t.test('a stage on a full disk is used without a lock, and not cleared', async (t) => {
  await onSmallDisk(t, 65_536, async (folder) => {
    t.throws(() => writeFileSync(join(folder, 'full'), Buffer.alloc(100_000)), { code: 'ENOSPC' });
    const { log, lines } = testDeps();
    const lock = await lockStage(folder, randomUUID, log);
    t.notOk(lock.isHeld);
    t.match(lines, [{ msg: 'the stage folder cannot be locked, and is not cleared' }]);
    await lock.close();
  });
});

void t.test('two origins with one stage folder: the second is refused, and the first goes on', async (t) => {
  const folder = t.testdir();
  const processes = await openProcesses(folder);
  t.teardown(() => processes.close());
  const shared = { stage_folder: './data/stage' };
  const origin = (name: string) =>
    processes.launch(
      'origin',
      {
        ...STILL,
        blobs: { ...shared, folder: `./data/${name}/blobs` },
        meta: { folder: `./data/${name}/meta` },
        audit: { file: `./data/${name}/audit.jsonl` },
      },
      { as: name },
    );
  const one = await origin('one');
  await one.ready;
  writeFileSync(join(folder, 'data', 'stage', 'upload-1'), 'arriving');
  const two = await origin('two');
  await t.rejects(two.ready, { message: /the stage folder .* is in use by process \d+/ });
  t.equal(readFileSync(join(folder, 'data', 'stage', 'upload-1'), 'latin1'), 'arriving');
  await one.kill();
  await (await origin('two')).ready;
});
