/**
 * The size of the client library as a browser gets it: bundled and minified by
 * esbuild, and compressed. What is loaded later, such as tus-js-client and all that
 * drives it, is counted apart.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';

interface Meta {
  readonly outputs: Readonly<
    Record<
      string,
      { readonly imports: readonly { readonly path: string; readonly kind: string }[]; entryPoint?: string }
    >
  >;
}

export interface Bundle {
  /** The scripts that are loaded with the page. */
  readonly first: Buffer;
  /** Those that are loaded when something needs them. */
  readonly later: Buffer;
  /** What is imported and is not in it. */
  readonly outside: readonly string[];
}

/** Fails if it needs anything that browsers do not have. */
export function bundleClient(): Bundle {
  const esbuild = createRequire(import.meta.url).resolve('esbuild/bin/esbuild');
  const folder = mkdtempSync(join(tmpdir(), 'client-bundle-'));
  try {
    const meta = join(folder, 'meta.json');
    const options = ['--bundle', '--minify', '--splitting', '--format=esm', '--platform=browser', '--target=es2022'];
    execFileSync(esbuild, [
      'dist/src/client/client.js',
      ...options,
      '--external:tus-js-client',
      '--log-level=error',
      `--outdir=${folder}`,
      `--metafile=${meta}`,
    ]);
    return readBundle(JSON.parse(readFileSync(meta, 'utf8')) as Meta);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function readBundle({ outputs }: Meta): Bundle {
  const first = new Set(Object.keys(outputs).filter((path) => path.endsWith('/client.js')));
  for (const path of first) {
    for (const { kind, path: next } of outputs[path]?.imports ?? []) {
      if (kind === 'import-statement' && next in outputs) first.add(next);
    }
  }
  const read = (paths: Iterable<string>) => Buffer.concat([...paths].map((path) => readFileSync(path)));
  const imported = Object.values(outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  return {
    first: read(first),
    later: read(Object.keys(outputs).filter((path) => !first.has(path))),
    outside: [...new Set(imported.filter((path) => !(path in outputs)))],
  };
}

if (process.argv[1]?.endsWith('client.js') === true) {
  const { first, later } = bundleClient();
  for (const [name, bytes] of Object.entries({ 'with the page': first, later })) {
    const sizes = [bytes, gzipSync(bytes, { level: 9 }), brotliCompressSync(bytes)];
    const [minified, gzip, brotli] = sizes.map(({ length }) => `${(length / 1_024).toFixed(1)} KiB`);
    process.stdout.write(`${name.padEnd(14)} ${minified} minified, ${gzip} gzip, ${brotli} brotli\n`);
  }
}
