/** Rules for the whole project that oxlint and biome do not check. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import t from 'tap';
import { runCli } from './kit/service.js';

const TREES = ['src', 'origin', 'edge', 'bench', 'test'] as const;
const PRODUCT = ['src', 'origin', 'edge'];
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  src: ['src'],
  origin: ['src', 'origin'],
  edge: ['src', 'edge'],
  bench: ['src', 'origin', 'edge', 'bench', 'test'],
  test: ['src', 'origin', 'edge', 'bench', 'test'],
};
/** Components, with what they may import beside their own folder and src: no request handler, and no step of one. */
const COMPONENTS: Readonly<Record<string, readonly string[]>> = {
  'edge/rfc9111': ['edge/entry.ts'],
  'edge/upstream': [],
  'edge/cache': ['edge/entry.ts', 'edge/rfc9111'],
  'edge/respond': ['edge/entry.ts', 'edge/request.ts', 'edge/cache', 'edge/rfc9111'],
  'edge/journal': ['edge/cache'],
  'origin/server': [],
  'origin/meta': ['origin/blobs'],
  'origin/edges': ['origin/meta'],
};
const LINES_MAX = 600;
const FILES_MAX = 22;
/** One for the processes, and one for the client library, which imports nothing of them. */
const CLOCKS = ['src/clock.ts', 'src/client/clock.ts'];
/** Words that the project once had for ideas that have a usual name. CONTRIBUTING.md has the names. */
const PRIVATE_WORDS =
  /\b(?:[Ee]rrand|[Ll]anding|[Dd]epartures|Trip|FlightOrder|[Aa]board|behalf|treatment|aimOf|Aim|Ask|Told|tell[A-Z]\w*|wish|house|tale|story|journey|(?!Multipart)[A-Z]\w*Parts)\b/;

interface Source {
  readonly path: string;
  readonly tree: string;
  readonly text: string;
  readonly imports: readonly string[];
}

const sources: readonly Source[] = TREES.flatMap((tree) =>
  readdirSync(tree, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => {
      const path = join(tree, name);
      const text = readFileSync(path, 'utf8');
      const imports = [
        ...text.matchAll(/^(?:import|export)\s[^'"]*?from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm),
      ];
      return { path, tree, text, imports: imports.map((match) => match[1] ?? match[2] ?? match[3] ?? '') };
    }),
);
const product = sources.filter(({ tree }) => PRODUCT.includes(tree));

void t.test('the top level has three documents, and one file of settings for each tool', async (t) => {
  const names = readdirSync('.').filter((name) => /\.(?:md|json|[cm]?[jt]s)$/.test(name) && !name.startsWith('.'));
  const known = ['CHANGELOG.md', 'CONTRIBUTING.md', 'README.md', 'package-lock.json', 'package.json', 'tsconfig.json'];
  t.same(
    names.filter((name) => !known.includes(name)),
    [],
  );
});

void t.test('src imports no other tree, and origin and edge never import each other', async (t) => {
  for (const { path, tree, imports } of sources) {
    for (const specifier of imports.filter((name) => name.startsWith('.'))) {
      const target = normalize(join(dirname(path), specifier)).split('/')[0] ?? '';
      t.ok(MAY_IMPORT[tree]?.includes(target), `${path} imports ${specifier}`);
    }
  }
});

void t.test('a component imports no handler and no step', async (t) => {
  for (const { path, imports } of product) {
    const component = Object.keys(COMPONENTS).find((folder) => path.startsWith(`${folder}/`));
    if (component === undefined) continue;
    const allowed = ['src', component, ...(COMPONENTS[component] ?? [])];
    for (const specifier of imports.filter((name) => name.startsWith('.'))) {
      const target = normalize(join(dirname(path), specifier)).replace(/\.js$/, '.ts');
      t.ok(
        allowed.some((each) => target === each || target.startsWith(`${each}/`)),
        `${path} imports ${specifier}`,
      );
    }
  }
});

void t.test('the client library imports nothing of the server', async (t) => {
  for (const { path, imports } of product.filter(({ path }) => path.startsWith('src/client/'))) {
    for (const specifier of imports) {
      const own = specifier.startsWith('./') && !specifier.includes('/../');
      t.ok(own || specifier === 'tus-js-client', `${path} imports ${specifier}`);
    }
  }
});

void t.test('the acceptance run judges with code of its own', async (t) => {
  for (const { path, text } of product.filter(({ path }) => path.startsWith('src/acceptance/'))) {
    for (const [statement, specifier = ''] of text.matchAll(/^import\s[^'"]*?from\s+'([^']+)'/gm)) {
      const target = specifier.startsWith('.') ? normalize(join(dirname(path), specifier)) : specifier;
      const own = target.startsWith('src/acceptance/') || target.startsWith('node:');
      t.ok(own || statement.startsWith('import type { Clock }'), `${path} imports ${specifier}`);
    }
  }
});

void t.test('no file imports itself through others, also not for types', async (t) => {
  const graph = new Map(
    product.map(({ path, imports }) => [
      path,
      imports
        .filter((name) => name.startsWith('.'))
        .map((name) => normalize(join(dirname(path), name)).replace(/\.js$/, '.ts')),
    ]),
  );
  const done = new Set<string>();
  function walk(path: string, chain: readonly string[]): void {
    const at = chain.indexOf(path);
    if (at >= 0) t.fail([...chain.slice(at), path].join(' -> '));
    if (at >= 0 || done.has(path)) return;
    for (const next of graph.get(path) ?? []) walk(next, [...chain, path]);
    done.add(path);
  }
  for (const path of graph.keys()) walk(path, []);
  t.ok(done.size > 200, `${done.size} files were walked`);
});

void t.test('a vendor package is imported by one file per process', async (t) => {
  const importers = new Map<string, Set<string>>();
  for (const { path, tree, imports } of product) {
    for (const specifier of imports.filter((name) => !name.startsWith('.') && !name.startsWith('node:'))) {
      const name = specifier.startsWith('@')
        ? specifier.split('/').slice(0, 2).join('/')
        : (specifier.split('/')[0] ?? '');
      const key = `${name} in ${tree}`;
      importers.set(key, (importers.get(key) ?? new Set()).add(path));
    }
  }
  for (const [key, paths] of importers) t.equal(paths.size, 1, `${key}: ${[...paths].join(', ')}`);
});

void t.test('what sends spans is loaded only where a collector is configured', async (t) => {
  for (const { path, text } of product) {
    t.notMatch(text, /^import (?!type\b)[^;]*?tracing\/otlp\.js'/m, path);
  }
});

void t.test('only the clock files ask the machine for the time or a timer', async (t) => {
  // `setTimeout` of a socket, an HTTP/2 session or a stream sets its idle timeout and is no timer of ours.
  for (const { path, text } of product.filter(({ path }) => !CLOCKS.includes(path))) {
    const found =
      /\bDate\.now\(|\bperformance\.now\(|\bnew Date\(\)|(?<!\b(?:session|socket|stream)\.)\bset(?:Timeout|Interval)\(|process\.hrtime/.exec(
        text,
      );
    t.equal(found?.[0], undefined, path);
  }
});

void t.test('no leftovers, and no paths of the machine where it was written', async (t) => {
  // Each word is split by an empty group, so that this file does not find itself.
  const leftovers =
    /TO(?:)DO|FIX(?:)ME|XX(?:)X\b|\bdebug(?:)ger\b|\.on(?:)ly\(|console\.lo(?:)g|\/wor(?:)k\/|\/tm(?:)p\/[a-z]/;
  for (const { path, text } of sources) t.equal(leftovers.exec(text)?.[0], undefined, path);
});

void t.test('a file opens with a comment, is not too long, and its name says its subject', async (t) => {
  for (const { path, text } of product) {
    t.ok(/^(?:#!.*\n)?\/\*\*/.test(text), `${path} opens with a comment`);
    t.ok(text.split('\n').length <= LINES_MAX, `${path} is at most ${LINES_MAX} lines`);
  }
  for (const { path } of product) t.notMatch(path, /utils|helpers|common|manager|\bbase\b/i, path);
});

void t.test('a folder has few enough files to read their names', async (t) => {
  const counts = new Map<string, number>();
  for (const { path } of sources) counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1);
  for (const [folder, count] of counts) t.ok(count <= FILES_MAX, `${folder} has ${count} files`);
});

void t.test('one usual word for each idea', async (t) => {
  const texts = [...product, { path: 'config.yaml', text: readFileSync('config.yaml', 'utf8') }];
  for (const { path, text } of texts) t.equal(PRIVATE_WORDS.exec(text)?.[0], undefined, path);
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
