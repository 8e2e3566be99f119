/**
 * Runs the public HTTP cache test suite (npm http-cache-tests) against an edge in generic mode, as real processes. The
 * suite is installed into a temporary folder and is no dependency of ours. A required or optional test that fails needs a
 * reason below. Prints the counts beside those that the suite publishes for other caches.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { sendRequest } from '../kit/http/request.js';
import { CLI, freePorts } from '../kit/service.js';

const SUITE = 'http-cache-tests@0.4.5';
const FETCH = 'node-fetch@2.7.0';

const CLOSED =
  'No correct cache can pass, and none that the suite publishes does: it expects a 200 with `Server-Request-Count: 2`, while the origin closes the second connection before it sends a byte. The edge answers 502 and serves nothing stale.';
const UNLIKE =
  'The origin sends five bytes as 4-9/10, which is six bytes, and no validator: the position of the bytes is not known, and the edge stores no incomplete response without a strong validator.';

/** Tests that may fail, each with the reason. */
const REASONS: Readonly<Record<string, string>> = {
  'stale-close-must-revalidate': CLOSED,
  'stale-close-proxy-revalidate': CLOSED,
  'stale-close-no-cache': CLOSED,
  'stale-close-s-maxage=2': CLOSED,
  '304-etag-update-response-ETag':
    'It expects that a 304 with another strong ETag updates the stored response, which RFC 9111 4.3.4 forbids. Later versions of the suite expect nothing.',
  'conditional-lm-fresh-no-lm':
    'It sends a date fifty minutes before the Date of the stored response, which has no Last-Modified. RFC 9111 4.3.2 uses that Date instead, so the response has changed since: 200 (RFC 9110 13.1.3).',
  'partial-store-partial-reuse-partial': UNLIKE,
  'partial-store-partial-reuse-partial-byterange': UNLIKE,
  'partial-store-partial-reuse-partial-absent': UNLIKE,
  'partial-store-partial-reuse-partial-suffix': UNLIKE,
  'partial-store-partial-complete':
    'It expects that an incomplete response without a validator is completed, which RFC 9110 15.3.7.3 allows with a strong validator only.',
};

/** So few that a busy machine answers within the second that the tests of Age allow. */
const TESTS_AT_ONCE = 30;

interface SuiteTest {
  readonly id: string;
  readonly name: string;
  readonly kind?: 'required' | 'optimal' | 'check';
  readonly depends_on?: readonly string[];
  readonly browser_only?: boolean;
}
interface Suite {
  readonly name: string;
  readonly tests: readonly SuiteTest[];
}
type Results = Readonly<Record<string, true | readonly [string, string] | undefined>>;
interface Tally {
  required: number;
  requiredPassed: number;
  optimal: number;
  optimalPassed: number;
  failed: { id: string; name: string; why: string; kind: string }[];
}

const folder = mkdtempSync(join(tmpdir(), 'cache-tests-'));
const stops: (() => void)[] = [() => rmSync(folder, { recursive: true, force: true })];
try {
  process.exitCode = await main();
} finally {
  for (const stop of stops.toReversed()) stop();
}

async function main(): Promise<number> {
  const home = fetchSuite();
  const ports = await freePorts();
  startOrigin(home, ports.origin);
  await startEdge(ports);
  const base = `http://127.0.0.1:${ports.edge}`;
  const suites = (await load(home, 'tests/index.mjs'))['default'] as readonly Suite[];
  const results = await runSuite(home, suites, base);
  const ours = tally(suites, results);
  for (const { kind, id, name, why } of ours.failed.filter((each) => each.kind !== 'check')) {
    process.stdout.write(
      `${kind} ${id}: ${name}\n    ${why}${REASONS[id] === undefined ? '' : `\n    accepted: ${REASONS[id]}`}\n`,
    );
  }
  printOthers(home, suites, ours);
  const bad = ours.failed.filter(({ kind, id }) => kind !== 'check' && REASONS[id] === undefined).length;
  process.stdout.write(
    `\n${ours.requiredPassed + ours.optimalPassed} passed, ${bad} failed, ${ours.optimal - ours.optimalPassed + (ours.required - ours.requiredPassed) - bad} skipped\n`,
  );
  return bad === 0 && ours.requiredPassed > 0 ? 0 : 1;
}

/** Installs the suite without its dependencies. On the command line it needs only node-fetch. */
function fetchSuite(): string {
  writeFileSync(join(folder, 'package.json'), '{"private":true}');
  const packed =
    execFileSync('npm', ['pack', '--silent', SUITE], { cwd: folder, encoding: 'utf8' }).trim().split('\n').at(-1) ?? '';
  execFileSync('tar', ['xzf', packed], { cwd: folder });
  execFileSync('npm', ['install', '--silent', '--no-audit', '--no-fund', FETCH], { cwd: folder });
  return join(folder, 'package');
}

function startOrigin(home: string, port: number): void {
  const child = spawn(process.execPath, ['server/server.mjs'], {
    cwd: home,
    env: {
      ...process.env,
      npm_config_protocol: 'http',
      npm_config_port: String(port),
      npm_config_pidfile: join(folder, 'server.pid'),
    },
    stdio: 'ignore',
  });
  stops.push(() => child.kill('SIGKILL'));
}

async function startEdge(ports: { origin: number; edge: number; edgeOperators: number }): Promise<void> {
  const config = [
    'edge:',
    '  access: "off"',
    // The suite takes a malformed Age for stale. RFC 9111 5.1 says that it SHOULD be ignored.
    '  freshness: { malformed_age: stale }',
    `  listen: { port: ${ports.edge} }`,
    `  operators: { port: ${ports.edgeOperators} }`,
    `  upstream: { url: "http://127.0.0.1:${ports.origin}" }`,
    'log: { level: warn }',
    '',
  ].join('\n');
  writeFileSync(join(folder, 'config.yaml'), config);
  const child = spawn(process.execPath, [CLI, 'edge', '--config', 'config.yaml'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  stops.push(() => child.kill('SIGKILL'));
  for (let left = 200; left > 0; left -= 1) {
    const answer = await sendRequest(`http://127.0.0.1:${ports.edge}/healthz`).catch(() => undefined);
    if (answer?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('the edge did not start');
}

async function runSuite(home: string, suites: readonly Suite[], base: string): Promise<Results> {
  const fetching = (await import(pathToFileURL(join(folder, 'node_modules/node-fetch/lib/index.mjs')).href)) as {
    readonly default: unknown;
  };
  const runner = await load(home, 'client/runner.mjs');
  const run = runner['runTests'] as (...args: readonly unknown[]) => Promise<void>;
  await run(suites, fetching.default, false, base, TESTS_AT_ONCE);
  return (runner['getResults'] as () => Results)();
}

async function load(home: string, path: string): Promise<Readonly<Record<string, unknown>>> {
  return (await import(pathToFileURL(join(home, path)).href)) as Readonly<Record<string, unknown>>;
}

/** Counts like the pages of the suite: a test does not count as passed if a test that it depends on has failed. */
function tally(suites: readonly Suite[], results: Results): Tally {
  const tests = new Map(suites.flatMap((suite) => suite.tests.map((test) => [test.id, test] as const)));
  const counts: Tally = { required: 0, requiredPassed: 0, optimal: 0, optimalPassed: 0, failed: [] };
  const passes = (id: string): boolean => {
    const test = tests.get(id);
    return results[id] === true && (test?.depends_on ?? []).every(passes);
  };
  for (const test of tests.values()) {
    const result = results[test.id];
    if (test.browser_only === true || result === undefined) continue;
    const kind = test.kind ?? 'required';
    const depended = (test.depends_on ?? []).every(passes);
    if (kind === 'required') counts.required += 1;
    if (kind === 'optimal') counts.optimal += 1;
    if (depended && result === true) {
      if (kind === 'required') counts.requiredPassed += 1;
      if (kind === 'optimal') counts.optimalPassed += 1;
    } else {
      const why = depended
        ? result === true
          ? ''
          : result.join(': ')
        : `needs ${(test.depends_on ?? []).filter((id) => !passes(id)).join(', ')}`;
      counts.failed.push({ id: test.id, name: test.name, kind, why });
    }
  }
  return counts;
}

function printOthers(home: string, suites: readonly Suite[], ours: Tally): void {
  const row = (name: string, counts: Tally): string =>
    `${name.padEnd(16)} required ${String(counts.requiredPassed).padStart(3)}/${counts.required}   optional ${String(counts.optimalPassed).padStart(3)}/${counts.optimal}\n`;
  process.stdout.write(`\n${row('this edge', ours)}`);
  for (const name of ['nginx', 'varnish', 'squid', 'trafficserver', 'apache', 'fastly']) {
    const results = JSON.parse(readFileSync(join(home, 'results', `${name}.json`), 'utf8')) as Results;
    process.stdout.write(row(name, tally(suites, results)));
  }
}
