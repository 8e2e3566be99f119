/**
 * The Kubernetes manifests: what they name exists, in them and in the service. No server checks them here, so a field that
 * Kubernetes does not know is found only among those that are listed below.
 */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { parse, parseAllDocuments } from 'yaml';
import { entry as edge } from '../../../edge/main.js';
import { entry as origin } from '../../../origin/main.js';
import { parseConfig } from '../../../src/config/load.js';

const FOLDER = 'src/deploy/kubernetes';
const read = (name: string): string => readFileSync(`${FOLDER}/${name}`, 'utf8');

type Labels = Readonly<Record<string, string>>;
interface Named {
  readonly name: string;
}
interface Container extends Named {
  readonly image: string;
  readonly args?: readonly string[];
  readonly ports?: readonly (Named & { readonly containerPort: number })[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly volumeMounts: readonly (Named & { readonly mountPath: string; readonly readOnly?: boolean })[];
  readonly [probe: `${string}Probe`]: { readonly httpGet: { readonly path: string; readonly port: string } };
}
interface Pod {
  readonly terminationGracePeriodSeconds: number;
  readonly automountServiceAccountToken: boolean;
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly initContainers?: readonly Container[];
  readonly containers: readonly [Container];
  readonly volumes: readonly (Named & Readonly<Record<string, object>>)[];
}
interface StatefulSet {
  readonly serviceName: string;
  readonly replicas: number;
  readonly selector: { readonly matchLabels: Labels };
  readonly template: { readonly metadata: { readonly labels: Labels }; readonly spec: Pod };
  readonly volumeClaimTemplates?: readonly { readonly metadata: Named }[];
}
interface Resource {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Named;
  readonly spec: unknown;
}

const kustomization = parse(read('kustomization.yaml')) as {
  readonly resources: readonly string[];
  readonly configMapGenerator: readonly (Named & { readonly files: readonly string[] })[];
  readonly images: readonly Named[];
};
const resources = kustomization.resources.flatMap((name) =>
  parseAllDocuments(read(name)).map((document) => {
    if (document.errors.length > 0) throw new Error(`${name}: ${String(document.errors[0])}`);
    return document.toJS() as Resource;
  }),
);
type Of<T> = readonly { readonly name: string; readonly spec: T }[];
const ofKind = (kind: string): Of<unknown> =>
  resources.filter((each) => each.kind === kind).map(({ metadata, spec }) => ({ name: metadata.name, spec }));
const sets = ofKind('StatefulSet') as Of<StatefulSet>;
const podLabels = sets.map(({ spec }) => spec.template.metadata.labels);
const config = read('config.yaml');
const parsed = parse(config) as Readonly<Record<'origin' | 'edge', Readonly<Record<string, Record<string, unknown>>>>>;

void t.test('each resource is of a version and kind that Kubernetes has, and is there once', (t) => {
  const kinds = resources.map(({ apiVersion, kind, metadata }) => `${apiVersion} ${kind} ${metadata.name}`);
  t.same(kinds.toSorted(), [
    'apps/v1 StatefulSet media-edge',
    'apps/v1 StatefulSet media-origin',
    'networking.k8s.io/v1 NetworkPolicy media-edge',
    'networking.k8s.io/v1 NetworkPolicy media-origin',
    'policy/v1 PodDisruptionBudget media-edge',
    'policy/v1 PodDisruptionBudget media-origin',
    'v1 Namespace media',
    'v1 Service media-edge',
    'v1 Service media-origin',
  ]);
  t.end();
});

void t.test('the configuration has no faults for either process, and its secrets are files of the Secret', (t) => {
  const context = { env: () => undefined, file: () => 'postgres://a-secret-of-some-length' };
  for (const { sections } of [origin, edge]) t.match(parseConfig(config, sections, context), { kind: 'loaded' });
  const secrets = [...config.matchAll(/file:([^\s"},]+)/g)].map(([, path = '']) => path);
  const guide = readFileSync('src/deploy/GUIDES.md', 'utf8');
  for (const path of secrets) {
    t.match(path, /^\/secrets\/[a-z0-9-]+$/);
    t.match(guide, `--from-file=${path.slice('/secrets/'.length)}=`, `${path} is made as the guide says`);
  }
  t.notMatch(
    resources.map(({ kind }) => kind),
    ['Secret'],
  );
  t.end();
});

void t.test('edges reach each origin by its name and port', (t) => {
  const origins = sets.find(({ name }) => name === 'media-origin')?.spec;
  const urls = Array.from(
    { length: origins?.replicas ?? 0 },
    (_, n) => `http://media-origin-${n}.${origins?.serviceName}:9000`,
  );
  t.same(parsed.edge['upstream']?.['urls'], urls);
  t.equal(parsed.origin['listen']?.['port'], 9000);
  t.end();
});

for (const { name, spec } of sets) {
  const process = name === 'media-origin' ? 'origin' : 'edge';
  const pod = spec.template.spec;
  const [main] = pod.containers;

  void t.test(`${name}: ports, probes and services name what is there`, (t) => {
    t.same(main.args?.slice(0, 2), [process, '--config']);
    const ports = Object.fromEntries((main.ports ?? []).map((port) => [port.name, port.containerPort]));
    t.same(ports, { media: parsed[process]['listen']?.['port'], operators: parsed[process]['operators']?.['port'] });
    for (const [probe, path] of [
      ['startupProbe', '/healthz'],
      ['livenessProbe', '/healthz'],
      ['readinessProbe', '/readyz'],
    ] as const) {
      t.same(main[probe]?.httpGet, { path, port: 'media' }, probe);
    }
    t.same(spec.selector.matchLabels, spec.template.metadata.labels);
    const services = ofKind('Service') as Of<{ selector: Labels; ports: readonly { targetPort: string }[] }>;
    const service = services.find((each) => each.name === spec.serviceName)?.spec;
    t.same(service?.selector, spec.template.metadata.labels);
    for (const { targetPort } of service?.ports ?? []) t.ok(targetPort in ports, targetPort);
    t.end();
  });

  void t.test(`${name}: no root, nothing to write to but volumes, and time to stop`, (t) => {
    t.match(pod.securityContext, { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } });
    t.equal(pod.automountServiceAccountToken, false);
    const claimed = (spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata.name);
    const volumes = [...pod.volumes.map((volume) => volume.name), ...claimed];
    const mounted = new Set<string>();
    for (const container of [...(pod.initContainers ?? []), main]) {
      t.equal(container.image, kustomization.images[0]?.name);
      t.same(container.securityContext, {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      for (const mount of container.volumeMounts) {
        t.ok(volumes.includes(mount.name), mount.name);
        mounted.add(mount.name);
      }
    }
    t.same(
      volumes.filter((volume) => !mounted.has(volume)),
      [],
      'no volume is left over',
    );
    t.match(pod.volumes, [{ name: 'config', configMap: { name: kustomization.configMapGenerator[0]?.name } }]);
    // Folders that the process writes to are in volumes that it may write to.
    const writable = main.volumeMounts.filter((mount) => mount.readOnly !== true).map((mount) => mount.mountPath);
    t.same(writable.toSorted(), ['/data', '/tmp']);
    const folders =
      process === 'origin'
        ? [parsed.origin['blobs']?.['stage_folder'], parsed.origin['journal']?.['edges_file']]
        : [parsed.edge['cache']?.['folder']];
    for (const folder of folders) t.match(folder, /^\/data\//);
    const unit = readFileSync(`src/deploy/systemd/media-${process}.service`, 'utf8');
    const stopS = Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]);
    t.ok(
      pod.terminationGracePeriodSeconds >= stopS + 5,
      `${pod.terminationGracePeriodSeconds} s for ${stopS} s and the pause before`,
    );
    t.end();
  });
}

void t.test('budgets and network policies are of pods that there are, and ports that they have', (t) => {
  const budgets = ofKind('PodDisruptionBudget') as Of<{ selector: { matchLabels: Labels } }>;
  t.same(
    budgets.map(({ spec }) => spec.selector.matchLabels),
    podLabels,
  );
  interface Policy {
    readonly podSelector: { readonly matchLabels: Labels };
    readonly ingress: readonly { readonly ports: readonly { readonly port: string }[] }[];
  }
  const policies = ofKind('NetworkPolicy') as Of<Policy>;
  t.same(
    policies.map(({ spec }) => spec.podSelector.matchLabels),
    podLabels,
  );
  for (const { spec } of policies) {
    for (const { port } of spec.ingress.flatMap(({ ports }) => ports))
      t.ok(['media', 'operators'].includes(port), port);
  }
  t.end();
});
