/**
 * An import that is killed at seeded moments while it sends to an origin, and once while the origin is killed too, is gone on
 * with by the same command: at the end every file is there once, under its owner, and the map says where.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { json, sendRequest } from '../kit/http/request.js';
import { asCaller, openProcesses } from '../kit/processes.js';
import { seeded } from '../kit/random.js';
import { CLI, runCli } from '../kit/service.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const FILES = 300;
const KILLS = 3;
const SEED = Number(process.env['IMPORT_SEED'] ?? 17);

void t.test(`killed ${KILLS} times, with seed ${SEED}`, async (t) => {
  const random = seeded(SEED);
  const processes = await openProcesses(t.testdir());
  const { folder } = processes;
  try {
    const { ids, rows } = makeStore(join(folder, 'store'), random);
    const section = { thumbs: { enabled: false } };
    let origin = await processes.launch('origin', section);
    const port = new URL(await origin.ready).port;
    const args = ['--base', 'store', '--config', origin.configPath, '--jobs', '4'];
    const map = join(folder, 'import', 'map.jsonl');
    for (let kills = 1; kills <= KILLS; kills += 1) {
      const run = spawn(process.execPath, [CLI, 'import', '-', ...args], {
        cwd: folder,
        stdio: ['pipe', 'ignore', 'ignore'],
      });
      const ended = once(run, 'exit');
      // Its list does not end, so it cannot be done before it is killed.
      const given = Math.floor((kills * FILES) / (KILLS + 1));
      run.stdin.write(`${rows.slice(0, given + 1).join('\n')}\n`);
      const lines = given - Math.floor((random() * FILES) / (KILLS + 1));
      await untilAsync(`${lines} lines of the map`, async () => linesOf(map).length > lines);
      if (kills === KILLS) await origin.kill();
      run.kill('SIGKILL');
      await ended;
      if (kills === KILLS) {
        origin = await processes.launch('origin', { ...section, listen: { port: Number(port) } });
        await origin.ready;
      }
    }
    const { code, out, err } = await runCli(folder, ['import', 'store/list.csv', ...args]);
    t.equal(code, 0, out + err);
    t.match(out, /; 0 refused\. Old and new ids are in/);

    const mapped = linesOf(map)
      .slice(1)
      .map((line) => JSON.parse(line) as { id: string; media: string; sha256: string; path: string });
    t.same(new Set(mapped.map(({ id }) => id)), new Set(ids));
    t.equal(mapped.length, FILES, 'every file once');
    const url = `http://127.0.0.1:${port}`;
    const { items } = json(await sendRequest(`${url}/v1/admin/media?limit=1000`, asCaller(processes.admin))) as {
      readonly items: readonly { readonly id: string; readonly owner: string }[];
    };
    const stored = new Map(items.map(({ id, owner }) => [id, owner]));
    t.same(new Set(stored.keys()), new Set(mapped.map(({ media }) => media)), 'no media beside those of the map');
    t.same(
      mapped.filter(({ id, media }) => stored.get(media) !== ownerOf(id)),
      [],
      'each has its owner',
    );
    for (const { media, path } of mapped.filter((_, n) => n % 30 === 0)) {
      const answer = await sendRequest(`${url}/v1/media/${media}`, asCaller(processes.user));
      t.ok(answer.bytes.equals(readFileSync(join(folder, 'store', path))), path);
    }
  } finally {
    await processes.close();
  }
});

function ownerOf(id: string): string {
  return `@${id.slice(0, 1)}:chat.example`;
}

/** As Synapse keeps its media, all of them different; with a list of them, whose rows begin with the names. */
function makeStore(
  store: string,
  random: () => number,
): { readonly ids: readonly string[]; readonly rows: readonly string[] } {
  const rows = ['id,path,owner,name'];
  const ids = Array.from({ length: FILES }, (_, n) => {
    const id = `${'abc'[n % 3]}${String(n).padStart(5, '0')}rest`;
    const path = `local_content/${id.slice(0, 2)}/${id.slice(2, 4)}/${id.slice(4)}`;
    mkdirSync(dirname(join(store, path)), { recursive: true });
    writeFileSync(join(store, path), `${n} `.repeat(1 + Math.floor(random() * 5_000)));
    rows.push(`${id},${path},${ownerOf(id)},"note ""${n}"".txt"`);
    return id;
  });
  writeFileSync(join(store, 'list.csv'), `${rows.join('\n')}\n`);
  return { ids, rows };
}

/** Whole lines. */
function linesOf(path: string): readonly string[] {
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : [];
}
