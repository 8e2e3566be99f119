/**
 * `npm run bench NAME [ARGUMENTS]`: runs one benchmark. Each checks that its
 * answers are right before it measures, and prints versions and spread.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const BENCHMARKS: Readonly<Record<string, { readonly path: string; readonly about: string }>> = {
  capacity: { path: './capacity.js', about: 'what a service of a given size needs, computed from what was measured' },
  client: { path: './client.js', about: 'the size of the client library, minified and compressed' },
  delay: {
    path: './delay.js',
    about: 'how long the event loop of the edge is kept busy while it fills and evicts',
  },
  edge: {
    path: './edge/run.js',
    about: 'processor time of the edge for each kind of request, compared with nginx, Varnish and node:http',
  },
  growth: { path: './growth.js', about: 'memory and time for an entry in memory as their number grows' },
  meta: { path: './meta.js', about: 'records written per second over LMDB and over PostgreSQL' },
  policy: { path: './policy/run.js', about: 'hit ratios of the replacement policies on recorded traces' },
  restart: { path: './restart/run.js', about: 'time and memory to recover the index of a million entries on disk' },
  thumbs: { path: './thumbs.js', about: 'thumbnails per second, compared with the library alone' },
  upload: { path: './upload.js', about: 'uploads per second and MB/s, compared with the limits of the machine' },
};

const [name = '', ...args] = process.argv.slice(2);
const chosen = BENCHMARKS[name];
if (chosen === undefined) {
  const rows = Object.entries(BENCHMARKS).map(([key, { about }]) => `  ${key.padEnd(8)} ${about}\n`);
  process.stderr.write(`usage: npm run bench NAME\n\n${rows.join('')}`);
  process.exitCode = 2;
} else {
  const script = fileURLToPath(new URL(chosen.path, import.meta.url));
  process.exitCode = spawnSync(process.execPath, [script, ...args], { stdio: 'inherit' }).status ?? 1;
}
