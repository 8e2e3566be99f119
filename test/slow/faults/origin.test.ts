/**
 * The disks of an origin that fill up or become read-only while it runs, as small file systems of their own, where this
 * user may mount some.
 */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { json, member } from '../../kit/http/request.js';
import { largePng, png } from '../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../kit/origin/origin.js';
import { onSmallDisk } from '../../kit/small-disk.js';

const MIB = 2 ** 20;
const STILL = { thumbs: { enabled: false, video: { enabled: false } } };

interface Bench {
  readonly origin: TestOrigin;
  /** Leaves so many bytes on the disk. */
  fill(freeBytes: number): void;
  /** Gives the room back. */
  empty(): void;
  put(n: number, bytes?: number): Promise<string>;
  remove(id: string): Promise<number>;
  failed(): Promise<unknown>;
}

/** `place` gives sections whose folders are on the small disk. */
async function open(t: Test, disk: string, section: Readonly<Record<string, unknown>>): Promise<Bench> {
  const folder = join(t.testdirName, `origin-${randomUUID()}`);
  const origin = await startOrigin(folder, { ...STILL, ...section });
  t.teardown(() => origin.close());
  const pad = join(disk, 'pad');
  return {
    origin,
    fill(freeBytes) {
      const written = Buffer.alloc(MIB);
      writeFileSync(pad, '');
      for (let size = 0; freeOf(disk) > freeBytes; ) {
        const bytes = Math.min(written.length, Math.max(4_096, freeOf(disk) - freeBytes));
        try {
          writeFileSync(pad, written.subarray(0, bytes), { flag: 'a' });
        } catch {
          return;
        }
        if (statSync(pad).size === size) return;
        size = statSync(pad).size;
      }
    },
    empty: () => rmSync(pad, { force: true }),
    async put(n, bytes) {
      // Room that was found is not measured again for a moment.
      origin.clock.advance(1_000);
      const answer = await origin.upload(bytes === undefined ? png(n) : largePng(n, bytes));
      const code = answer.status < 300 ? member(answer, 'id') : member(answer, 'code');
      return `${answer.status} ${code}`;
    },
    remove: async (id) => (await origin.asAdmin(`/v1/media/${id}`, { method: 'DELETE' })).status,
    async failed() {
      // Checks are shared for a moment.
      origin.clock.advance(2_000);
      return json(await origin.send('/readyz'))['failed'];
    },
  };
}

function freeOf(disk: string): number {
  const [, line = ''] = execFileSync('df', ['--output=avail', '--block-size=1', disk], { encoding: 'utf8' }).split(
    '\n',
  );
  return Number(line);
}

const idOf = (outcome: string): string => outcome.split(' ')[1] ?? '';

void t.test('takedowns are written while the disk of metadata and audit log is full', (t) =>
  onSmallDisk(t, 12 * MIB, async (disk) => {
    const bench = await open(t, disk, {
      meta: { folder: join(disk, 'meta'), reserve: '4MiB' },
      audit: { file: join(disk, 'audit', 'audit.jsonl') },
      upload: { free_min: '1MiB' },
    });
    const ids: string[] = [];
    for (let n = 0; n < 60; n += 1) ids.push(idOf(await bench.put(n)));
    t.same(await bench.failed(), []);

    bench.fill(0);
    t.equal(await bench.put(100), '507 storage_full');
    t.same(((await bench.failed()) as string[]).includes('disk'), true);
    for (const id of ids.slice(0, 50)) t.equal(await bench.remove(id), 204);
    const quarantine = await bench.origin.asAdmin(`/v1/media/${ids[50]}/quarantine`, { method: 'POST' });
    t.equal(quarantine.status, 204);

    // What is done is durable, and the origin starts on a full disk too.
    await bench.origin.restart();
    for (const id of ids.slice(0, 50)) t.equal((await bench.origin.as('alice', `/v1/media/${id}`)).status, 410);
    t.equal((await bench.origin.as('alice', `/v1/media/${ids[50]}`)).status, 403);
    t.equal((await bench.origin.as('alice', `/v1/media/${ids[51]}`)).status, 200);
    t.equal(await bench.remove(ids[51] ?? ''), 204);

    bench.empty();
    t.same(await bench.failed(), []);
    t.match(await bench.put(100), /^201 /);
    t.equal(statSync(join(disk, 'meta', 'reserve')).size, 4 * MIB, 'the reserve is kept again');
  }),
);

for (const freeMin of ['4MiB', '0B']) {
  void t.test(`a full blob store is relieved by deleting, at once, with free_min ${freeMin}`, (t) =>
    onSmallDisk(t, 24 * MIB, async (disk) => {
      const blobs = { folder: join(disk, 'blobs'), stage_folder: join(disk, 'stage') };
      const bench = await open(t, disk, { blobs, upload: { free_min: freeMin, size_max: '4MiB' } });
      const ids: string[] = [];
      let outcome = await bench.put(0, 2 * MIB);
      for (; outcome.startsWith('201'); outcome = await bench.put(ids.length, 2 * MIB)) ids.push(idOf(outcome));
      t.equal(outcome, '507 storage_full');
      t.ok(ids.length > 3, `${ids.length} uploads`);
      const [one = '', two = '', ...others] = ids;
      for (const id of [one, two]) t.equal(await bench.remove(id), 204);
      outcome = await bench.put(1_000, 2 * MIB);
      // Without `free_min`, only an upload that fails shows that the disk is full.
      if (freeMin === '0B' && outcome.startsWith('507')) outcome = await bench.put(1_000, 2 * MIB);
      t.match(outcome, /^201 /);
      t.same(await bench.failed(), []);
      for (const id of others) t.equal((await bench.origin.as('alice', `/v1/media/${id}`)).status, 200);
    }),
  );
}

void t.test('a storage that becomes read-only is unavailable and not broken, and reads go on', (t) =>
  onSmallDisk(t, 24 * MIB, async (disk) => {
    const bench = await open(t, disk, {
      blobs: { folder: join(disk, 'blobs'), stage_folder: join(disk, 'stage') },
      upload: { free_min: '0B' },
    });
    const id = idOf(await bench.put(1));
    const remount = (how: string): unknown =>
      execFileSync('mount', ['-o', `remount,${how}`, disk], { stdio: 'ignore' });
    remount('ro');
    t.equal(await bench.put(2), '503 storage_unavailable');
    const create = () =>
      bench.origin.as('alice', '/v1/uploads', {
        method: 'POST',
        headers: { 'tus-resumable': '1.0.0', 'upload-length': '10' },
      });
    t.equal((await create()).status, 503);
    t.same(await bench.failed(), ['storage']);
    t.equal((await bench.origin.as('alice', `/v1/media/${id}`)).status, 200);
    t.equal(await bench.remove(id), 204);
    remount('rw');
    t.match(await bench.put(2), /^201 /);
    t.equal((await create()).status, 201);
    t.same(await bench.failed(), []);
  }),
);
