/** Where everything of a cluster is: addresses, folders, configuration files. Pure. */
import { join } from 'node:path';

/** The order in which `--ports` names them. */
export const PORT_NAMES = [
  'postgres',
  's3',
  's3Monitor',
  'auth',
  'origin1',
  'origin1Operators',
  'origin2',
  'origin2Operators',
  'origin3',
  'origin3Operators',
  'edge1',
  'edge1Operators',
  'edge2',
  'edge2Operators',
] as const;

export type Ports = Readonly<Record<(typeof PORT_NAMES)[number], number>>;

export const USUAL_PORTS: Ports = {
  postgres: 9200,
  s3: 9300,
  s3Monitor: 9301,
  auth: 9100,
  origin1: 9000,
  origin1Operators: 9001,
  origin2: 9010,
  origin2Operators: 9011,
  origin3: 9020,
  origin3Operators: 9021,
  edge1: 8080,
  edge1Operators: 8081,
  edge2: 8090,
  edge2Operators: 8091,
};

export interface Layout {
  readonly folder: string;
  readonly ports: Ports;
  /** Where origins and edges listen for clients. */
  readonly host: string;
}

export const ORIGINS = [1, 2, 3] as const;
export const EDGES = [1, 2] as const;

export const PART_NAMES = [
  'postgres',
  's3',
  'auth',
  ...ORIGINS.map((number) => `origin-${number}`),
  ...EDGES.map((number) => `edge-${number}`),
];

export const BUCKET = 'media';

/** All paths are absolute. */
export function pathsOf({ folder }: Layout) {
  const secrets = join(folder, 'data', 'secrets');
  return {
    /** Where `media-service token` looks when it runs in the folder. */
    data: join(folder, 'data'),
    auth: join(folder, 'data', 'auth'),
    postgres: join(folder, 'postgres'),
    s3: join(folder, 's3'),
    databaseSecret: join(secrets, 'database'),
    databaseUrl: join(secrets, 'database-url'),
    s3Key: join(secrets, 's3-key'),
    s3Secret: join(secrets, 's3-secret'),
    log: (name: string) => join(folder, 'logs', `${name}.log`),
    config: (name: string) => join(folder, `${name}.yaml`),
  };
}

/** The configuration files by the names of the processes. */
export function configsOf(layout: Layout): Readonly<Record<string, string>> {
  const configs: Record<string, string> = {};
  for (const number of ORIGINS) configs[`origin-${number}`] = originConfig(layout, number);
  for (const number of EDGES) configs[`edge-${number}`] = edgeConfig(layout, number);
  return configs;
}

const WRITTEN = '# Written anew at each start of the cluster. Relative paths start at the folder of this file.\n';

function accessConfig({ ports }: Layout): string {
  const issuer = `http://127.0.0.1:${ports.auth}`;
  return `access:
  issuers: [{ issuer: "${issuer}", jwks_url: "${issuer}/.well-known/jwks.json" }]
  audiences: [media]
  edge_secret: file:./data/secrets/edge
  links: { secrets: [{ kid: "1", secret: "file:./data/secrets/link" }] }
`;
}

function originConfig(layout: Layout, number: (typeof ORIGINS)[number]): string {
  const { host, ports } = layout;
  const own = `./data/origin-${number}`;
  return `${WRITTEN}${accessConfig(layout)}origin:
  name: origin-${number}
  listen: { host: "${host}", port: ${ports[`origin${number}`]} }
  operators: { port: ${ports[`origin${number}Operators`]} }
  base_uri: http://127.0.0.1:${ports.edge1}
  trusted_proxies: [loopback]
  meta:
    adaptor: postgres
    postgres: { url: "file:./data/secrets/database-url" }
  blobs:
    adaptor: s3
    stage_folder: ${own}/stage
    s3:
      endpoint: http://127.0.0.1:${ports.s3}
      bucket: ${BUCKET}
      access_key_id: file:./data/secrets/s3-key
      secret_access_key: file:./data/secrets/s3-secret
  audit: { file: ${own}/audit.log }
  journal: { edges_file: ${own}/edges.json }
`;
}

function edgeConfig(layout: Layout, number: (typeof EDGES)[number]): string {
  const { host, ports } = layout;
  const urls = ORIGINS.map((origin) => `"http://127.0.0.1:${ports[`origin${origin}`]}"`);
  return `${WRITTEN}${accessConfig(layout)}edge:
  name: edge-${number}
  listen: { host: "${host}", port: ${ports[`edge${number}`]} }
  operators: { port: ${ports[`edge${number}Operators`]} }
  upstream: { urls: [${urls.join(', ')}] }
  cache: { folder: ./data/edge-${number}/cache, memory: { size: 64MB }, disk: { size: 1GB } }
`;
}
