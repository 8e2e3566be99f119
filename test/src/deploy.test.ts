/** What is written for a cluster: its configuration files, and the description of its containers. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { parse } from 'yaml';
import { entry as edge } from '../../edge/main.js';
import { entry as origin } from '../../origin/main.js';
import { parseConfig } from '../../src/config/load.js';
import { configsOf, type Layout, PART_NAMES, pathsOf, USUAL_PORTS } from '../../src/deploy/layout.js';

const LAYOUT: Layout = { folder: '/srv/cluster', ports: USUAL_PORTS, host: '127.0.0.1' };
const SECRETS = { env: () => undefined, file: () => 'postgres://a-secret-of-some-length' };

void t.test('each origin and each edge gets a file without faults, with an address and folders of its own', (t) => {
  const configs = configsOf(LAYOUT);
  t.same(Object.keys(configs), ['origin-1', 'origin-2', 'origin-3', 'edge-1', 'edge-2']);
  for (const [name, text] of Object.entries(configs)) {
    const { sections } = name.startsWith('origin') ? origin : edge;
    t.match(parseConfig(text, sections, SECRETS), { kind: 'loaded' }, name);
  }
  const own = Object.values(configs).flatMap((text) => text.match(/\.\/data\/(?:origin|edge)-\d/g) ?? []);
  t.equal(new Set(own).size, 5);
  t.match(configs['origin-2'], /listen: \{ host: "127\.0\.0\.1", port: 9010 \}/);
  t.match(
    configs['edge-2'],
    /urls: \["http:\/\/127\.0\.0\.1:9000", "http:\/\/127\.0\.0\.1:9010", "http:\/\/127\.0\.0\.1:9020"\]/,
  );
  for (const path of Object.values(pathsOf(LAYOUT))) {
    t.ok((typeof path === 'string' ? path : path('x')).startsWith('/srv/cluster/'), 'all is below the folder');
  }
  t.end();
});

/** The keys of a service that compose knows, as far as they are used here. */
const SERVICE_KEYS = new Set([
  'image',
  'build',
  'volumes',
  'init',
  'restart',
  'stop_grace_period',
  'network_mode',
  'command',
  'ports',
  'healthcheck',
  'depends_on',
]);

interface Service {
  readonly command: readonly string[];
  readonly build: { readonly context: string; readonly dockerfile: string; readonly target: string };
  readonly network_mode?: string;
  readonly ports?: readonly string[];
  readonly depends_on?: Readonly<Record<string, unknown>>;
}

void t.test(
  'the containers run the same parts, reach each other, and show the ports of clients to this machine alone',
  (t) => {
    const text = readFileSync('src/deploy/compose.yaml', 'utf8');
    const document = parse(text, { merge: true }) as {
      readonly services: Readonly<Record<string, Service>>;
      readonly volumes: object;
    };
    t.same(
      Object.keys(document)
        .filter((key) => !key.startsWith('x-'))
        .sort(),
      ['name', 'services', 'volumes'],
    );
    const { services } = document;
    t.same(Object.keys(services).sort(), [...PART_NAMES].sort());
    for (const [name, service] of Object.entries(services)) {
      t.same(
        Object.keys(service).filter((key) => !SERVICE_KEYS.has(key)),
        [],
        `${name} has keys that compose knows`,
      );
      t.same(service.command.slice(0, 2), ['--only', name]);
      if (name !== 'auth') t.equal(service.network_mode, 'service:auth');
      for (const before of Object.keys(service.depends_on ?? {})) t.ok(before in services, before);
      t.equal(service.build.target, 'cluster');
    }
    const clients = ['edge1', 'edge2', 'origin1', 'origin2', 'origin3'] as const;
    t.same(
      services['auth']?.ports,
      clients.map((name) => `127.0.0.1:${USUAL_PORTS[name]}:${USUAL_PORTS[name]}`),
    );
    t.match(text, new RegExp(`tcp/127\\.0\\.0\\.1/${USUAL_PORTS.postgres}"`));
    t.match(text, new RegExp(`tcp/127\\.0\\.0\\.1/${USUAL_PORTS.s3}"`));
    t.end();
  },
);

void t.test('the image starts files that the build makes', (t) => {
  const lines = readFileSync('src/deploy/Dockerfile', 'utf8').split('\n');
  t.same(
    lines.filter((line) => line.startsWith('FROM ')).map((line) => line.split(' AS ')[1]),
    ['build', 'service', 'cluster'],
  );
  const started = lines.flatMap((line) => /^ENTRYPOINT \["node", "\/app\/([^"]+)"/.exec(line)?.[1] ?? []);
  t.same(started, ['dist/src/cli.js', 'dist/src/deploy/cluster.js']);
  for (const path of started) t.ok(readFileSync(path).length > 0, path);
  t.end();
});
