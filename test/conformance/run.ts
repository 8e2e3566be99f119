/**
 * Runs the public HTTP cache test suite (npm http-cache-tests) against edges in generic mode, as real processes: over
 * HTTP/1.1 in both lanes, over TLS and over HTTP/2 (ways.ts). The suite is installed into a temporary folder and is no
 * dependency of ours. A required or optional test that fails needs a reason below. Prints the counts beside those that
 * the suite publishes for other caches.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { hasOpenssl, selfSigned } from '../kit/certificates.js';
import { connectRaw } from '../kit/http/raw.js';
import { CLI, ownPorts } from '../kit/service.js';
import { type Fetch, type NodeFetch, WAYS, type Way } from './ways.js';

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
  'headers-store-Transfer-Encoding':
    'The origin sends a transfer coding that does not exist. Nobody here can decode it, and the edge answers 502 instead of passing on what may not be the content.',
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
  const packed = fetchSuite();
  const ports = await ownPorts();
  startOrigin(unpack(packed, 'origin'), ports.origin);
  const ways = WAYS.filter(({ encrypted }) => hasOpenssl || !encrypted);
  if (ways.length < WAYS.length) process.stdout.write('openssl is missing: without TLS and HTTP/2\n');
  const edges = {
    plain: await startEdge(ports.origin, false),
    tls: hasOpenssl ? await startEdge(ports.origin, true) : undefined,
  };
  const sums = { passed: 0, failed: 0, skipped: 0 };
  for (const [number, way] of ways.entries()) {
    // A folder for each way: the suite keeps its results in its modules.
    const home = unpack(packed, `way-${number}`);
    const suites = (await load(home, 'tests/index.mjs'))['default'] as readonly Suite[];
    const edge = (way.encrypted ? edges.tls : edges.plain) ?? edges.plain;
    const ours = tally(suites, await runSuite(home, suites, way, edge));
    const bad = report(way, ours);
    const passed = ours.requiredPassed + ours.optimalPassed;
    sums.passed += passed;
    sums.failed += ours.requiredPassed === 0 ? Math.max(1, bad) : bad;
    sums.skipped += ours.required + ours.optimal - passed - bad;
    if (number === ways.length - 1) printOthers(home, suites);
  }
  process.stdout.write(`\n${sums.passed} passed, ${sums.failed} failed, ${sums.skipped} skipped\n`);
  return sums.failed === 0 ? 0 : 1;
}

/** Prints the tests that failed, and the counts. Returns how many failed without a reason. */
function report(way: Way, ours: Tally): number {
  process.stdout.write(`\n== ${way.name}\n`);
  const counted = ours.failed.filter(({ kind }) => kind !== 'check');
  for (const { kind, id, name, why } of counted) {
    const reason = REASONS[id];
    process.stdout.write(
      `${kind} ${id}: ${name}\n    ${why}\n${reason === undefined ? '' : `    accepted: ${reason}\n`}`,
    );
  }
  process.stdout.write(rowOf('this edge', ours));
  return counted.filter(({ id }) => REASONS[id] === undefined).length;
}

/** Downloads the suite without its dependencies, and node-fetch, which is all that it needs on the command line. */
function fetchSuite(): string {
  writeFileSync(join(folder, 'package.json'), '{"private":true}');
  const packed =
    execFileSync('npm', ['pack', '--silent', SUITE], { cwd: folder, encoding: 'utf8' }).trim().split('\n').at(-1) ?? '';
  execFileSync('npm', ['install', '--silent', '--no-audit', '--no-fund', FETCH], { cwd: folder });
  return packed;
}

function unpack(packed: string, name: string): string {
  mkdirSync(join(folder, name));
  execFileSync('tar', ['xzf', packed, '-C', name], { cwd: folder });
  return join(folder, name, 'package');
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

interface Edge {
  readonly base: string;
  /** Its certificate; empty for a plain one. */
  readonly ca: string;
}

async function startEdge(originPort: number, encrypted: boolean): Promise<Edge> {
  const cwd = join(folder, encrypted ? 'edge-tls' : 'edge');
  mkdirSync(cwd);
  const ports = await ownPorts();
  const certificate = encrypted ? selfSigned(cwd, 'edge') : undefined;
  const tls =
    certificate && `, tls: { certificate_file: "${certificate.certFile}", key_file: "${certificate.keyFile}" }`;
  const config = [
    'edge:',
    '  access: "off"',
    // The suite takes a malformed Age for stale. RFC 9111 5.1 says that it SHOULD be ignored.
    '  freshness: { malformed_age: stale }',
    // It wants every response with Set-Cookie stored, as RFC 9111 7.3 allows.
    '  storing: { set_cookie: always }',
    `  listen: { port: ${ports.edge}${tls ?? ''} }`,
    `  operators: { port: ${ports.edgeOperators} }`,
    `  upstream: { url: "http://127.0.0.1:${originPort}" }`,
    'log: { level: warn }',
    '',
  ].join('\n');
  writeFileSync(join(cwd, 'config.yaml'), config);
  const child = spawn(process.execPath, [CLI, 'edge', '--config', 'config.yaml'], {
    cwd,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  stops.push(() => child.kill('SIGKILL'));
  for (let left = 200; left > 0; left -= 1) {
    const raw = await connectRaw(ports.edge).catch(() => undefined);
    raw?.socket.destroy();
    if (raw !== undefined) {
      return { base: `${encrypted ? 'https' : 'http'}://127.0.0.1:${ports.edge}`, ca: certificate?.cert ?? '' };
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('the edge did not start');
}

async function runSuite(home: string, suites: readonly Suite[], way: Way, { base, ca }: Edge): Promise<Results> {
  const nodeFetch = (await import(
    pathToFileURL(join(folder, 'node_modules/node-fetch/lib/index.mjs')).href
  )) as NodeFetch;
  const client = await way.open(nodeFetch, base, ca);
  const runner = await load(home, 'client/runner.mjs');
  const run = runner['runTests'] as (
    suites: readonly Suite[],
    fetch: Fetch,
    inBrowser: boolean,
    base: string,
    atOnce: number,
  ) => Promise<void>;
  await run(suites, client.fetch, false, base, TESTS_AT_ONCE);
  client.close();
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

function rowOf(name: string, counts: Tally): string {
  return `${name.padEnd(16)} required ${String(counts.requiredPassed).padStart(3)}/${counts.required}   optional ${String(counts.optimalPassed).padStart(3)}/${counts.optimal}\n`;
}

function printOthers(home: string, suites: readonly Suite[]): void {
  process.stdout.write('\n== as the suite publishes\n');
  for (const name of ['nginx', 'varnish', 'squid', 'trafficserver', 'apache', 'fastly']) {
    const results = JSON.parse(readFileSync(join(home, 'results', `${name}.json`), 'utf8')) as Results;
    process.stdout.write(rowOf(name, tally(suites, results)));
  }
}
