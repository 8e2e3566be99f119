/** House rules that a machine can check; oxlint and biome check the rest. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import t from 'tap';
import { runCli } from './kit/service.js';

const ROOMS = ['src', 'origin', 'edge', 'bench', 'test'] as const;
const PRODUCT = ['src', 'origin', 'edge'];
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  src: ['src'],
  origin: ['src', 'origin'],
  edge: ['src', 'edge'],
  bench: ['src', 'origin', 'edge', 'bench', 'test'],
  test: ['src', 'origin', 'edge', 'bench', 'test'],
};
const LINES_MAX = 600;

interface Source {
  readonly path: string;
  readonly room: string;
  readonly text: string;
  readonly imports: readonly string[];
}

const sources: readonly Source[] = ROOMS.flatMap((room) =>
  readdirSync(room, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => {
      const path = join(room, name);
      const text = readFileSync(path, 'utf8');
      const imports = [
        ...text.matchAll(/^(?:import|export)\s[^'"]*?from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm),
      ];
      return { path, room, text, imports: imports.map((match) => match[1] ?? match[2] ?? match[3] ?? '') };
    }),
);
const product = sources.filter(({ room }) => PRODUCT.includes(room));

void t.test('src knows nobody, and origin and edge never import each other', async (t) => {
  for (const { path, room, imports } of sources) {
    for (const specifier of imports.filter((name) => name.startsWith('.'))) {
      const target = normalize(join(dirname(path), specifier)).split('/')[0] ?? '';
      t.ok(MAY_IMPORT[room]?.includes(target), `${path} imports ${specifier}`);
    }
  }
});

void t.test('no file imports itself by way of others, for types neither', async (t) => {
  const graph = new Map(
    product.map(({ path, imports }) => [
      path,
      imports
        .filter((name) => name.startsWith('.'))
        .map((name) => normalize(join(dirname(path), name)).replace(/\.js$/, '.ts')),
    ]),
  );
  const done = new Set<string>();
  function walk(path: string, way: readonly string[]): void {
    const at = way.indexOf(path);
    if (at >= 0) t.fail([...way.slice(at), path].join(' -> '));
    if (at >= 0 || done.has(path)) return;
    for (const next of graph.get(path) ?? []) walk(next, [...way, path]);
    done.add(path);
  }
  for (const path of graph.keys()) walk(path, []);
  t.ok(done.size > 200, `${done.size} files were walked`);
});

void t.test('a vendor package is imported by one file per process', async (t) => {
  const holders = new Map<string, Set<string>>();
  for (const { path, room, imports } of product) {
    for (const specifier of imports.filter((name) => !name.startsWith('.') && !name.startsWith('node:'))) {
      const name = specifier.startsWith('@')
        ? specifier.split('/').slice(0, 2).join('/')
        : (specifier.split('/')[0] ?? '');
      const key = `${name} in ${room}`;
      holders.set(key, (holders.get(key) ?? new Set()).add(path));
    }
  }
  for (const [key, paths] of holders) t.equal(paths.size, 1, `${key}: ${[...paths].join(', ')}`);
});

void t.test('only the clock file asks the machine for the time or a timer', async (t) => {
  // What a socket, or an HTTP/2 session or stream, calls by that name is its bound on standing still, as `server.timeout` is.
  for (const { path, text } of product.filter(({ path }) => path !== 'src/clock.ts')) {
    const found =
      /\bDate\.now\(|\bperformance\.now\(|\bnew Date\(\)|(?<!\b(?:session|socket|stream)\.)\bset(?:Timeout|Interval)\(|process\.hrtime/.exec(
        text,
      );
    t.equal(found?.[0], undefined, path);
  }
});

void t.test('nothing is left over and nothing tells where it was written', async (t) => {
  // Each word is split by an empty group, so that this file does not find itself.
  const leftovers =
    /TO(?:)DO|FIX(?:)ME|XX(?:)X\b|\bdebug(?:)ger\b|\.on(?:)ly\(|console\.lo(?:)g|\/wor(?:)k\/|\/tm(?:)p\/[a-z]/;
  for (const { path, text } of sources) t.equal(leftovers.exec(text)?.[0], undefined, path);
});

void t.test('a file has one subject, opens by saying what it is, and fits a few screens', async (t) => {
  for (const { path, text } of product) {
    t.ok(/^(?:#!.*\n)?\/\*\*/.test(text), `${path} opens with a comment`);
    t.ok(text.split('\n').length <= LINES_MAX, `${path} is at most ${LINES_MAX} lines`);
  }
  for (const { path } of product) t.notMatch(path, /utils|helpers|common|manager|\bbase\b/i, path);
});

void t.test('what is built can be run by its name, as npx does', async (t) => {
  const { bin } = JSON.parse(readFileSync('package.json', 'utf8')) as { bin: Record<string, string> };
  for (const path of Object.values(bin)) {
    t.equal(statSync(path).mode & 0o111, 0o111, `${path} is executable`);
    t.match(readFileSync(path, 'utf8'), /^#!\/usr\/bin\/env node\n/);
  }
});

void t.test('config.yaml shows every key with its default, and has no faults', async (t) => {
  t.equal(
    (await runCli('.', ['config'])).out,
    readFileSync('config.yaml', 'utf8'),
    'media-service config > config.yaml',
  );
});
