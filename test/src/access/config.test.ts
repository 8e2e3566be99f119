/** The `access` section: which values are faults, and where. */
import t from 'tap';
import { accessFaults, accessSection } from '../../../src/access/config.js';
import { parseConfig } from '../../../src/config/load.js';
import { TEST_SECRET } from '../../kit/auth-service.js';

void t.test('the access section', async (t) => {
  const context = { env: (name: string) => (name === 'SHORT' ? 'short' : TEST_SECRET), file: () => TEST_SECRET };
  const faultsOf = (yaml: string): string[] => {
    const outcome = parseConfig(yaml, { access: accessSection }, context);
    const faults = outcome.kind === 'faulty' ? outcome.faults : accessFaults(outcome.config.access);
    return faults.map(({ path }) => path);
  };
  for (const [yaml, faults] of [
    ['', []],
    ['access: { issuers: [{ issuer: https://auth.example }] }', []],
    ['access: { issuers: [] }', ['access.issuers']],
    ['access: { issuers: [{ jwks_url: "https://a.example" }] }', ['access.issuers.0.issuer']],
    ['access: { issuers: [{ issuer: plain }] }', ['access.issuers.0']],
    ['access: { issuers: [{ issuer: "https://a.example" }, { issuer: "https://a.example" }] }', ['access.issuers']],
    ['access: { algorithms: [HS256] }', ['access.algorithms.0']],
    ['access: { algorithms: [none] }', ['access.algorithms.0']],
    ['access: { edge_secret: "env:SHORT" }', ['access.edge_secret']],
    ['access: { links: { secrets: [{ kid: a, secret: "env:SHORT" }] } }', ['access.links.secrets.0.secret']],
    [
      'access: { links: { secrets: [{ kid: a, secret: "env:A" }, { kid: a, secret: "env:B" }] } }',
      ['access.links.secrets'],
    ],
    ['access: { links: { secrets: [] } }', []],
    ['access: { links: { lifetime: 8d } }', ['access.links.lifetime']],
    ['access: { introspection: { client_id: a } }', ['access.introspection']],
  ] as const) {
    t.same(faultsOf(yaml), faults, yaml);
  }
});

const ALGORITHMS = '[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519]';

void t.test('every limit of the access section has bounds, and its last value is one that counts', async (t) => {
  const context = { env: () => TEST_SECRET, file: () => TEST_SECRET };
  const issuers = (count: number): string =>
    JSON.stringify(Array.from({ length: count }, (_, at) => ({ issuer: `https://${at}.example` })));
  const list = (count: number, one: unknown): string => JSON.stringify(Array.from({ length: count }, () => one));
  const secrets = (count: number): string => list(count, { kid: 'a', secret: 'env:A' });
  const names = (count: number): string => list(count, 'a');
  for (const [key, accepted, refused] of [
    ['issuers', [issuers(1), issuers(16)], [issuers(0), issuers(17)]],
    ['audiences', [names(1), names(16)], [names(0), names(17)]],
    ['algorithms', [ALGORITHMS], ['[]']],
    ['clock_tolerance', ['0s', '300000ms'], ['300001ms']],
    ['token_size_max', ['256B', '65536B'], ['255B', '65537B']],
    ['tokens_remembered_max', [1, 10_000_000], [0, 10_000_001]],
    ['keys.refresh', ['1000ms'], ['999ms']],
    ['keys.refetch_interval', ['100ms'], ['99ms']],
    ['keys.refetch_burst', [1, 100], [0, 101]],
    ['keys.keep', ['60000ms'], ['59999ms']],
    ['keys.timeout', ['100ms', '60000ms'], ['99ms', '60001ms']],
    ['keys.size_max', ['1024B', '16777216B'], ['1023B', '16777217B']],
    ['keys.keys_max', [1, 1_000], [0, 1_001]],
    ['introspection.cache', ['0s', '3600000ms'], ['3600001ms']],
    ['introspection.timeout', ['100ms', '60000ms'], ['99ms', '60001ms']],
    ['introspection.retry', ['100ms', '300000ms'], ['99ms', '300001ms']],
    ['introspection.questions_max', [1, 10_000], [0, 10_001]],
    ['edge_secrets_accepted', ['[]', list(8, 'env:A')], [list(9, 'env:A')]],
    ['links.secrets', ['[]', secrets(8)], [secrets(9)]],
    ['links.lifetime', ['1000ms'], ['999ms']],
    ['links.lifetime_max', ['1000ms'], ['999ms']],
    ['links.window', ['0s', '86400000ms'], ['86400001ms']],
    ['links.upload_lifetime', ['1000ms'], ['999ms']],
    ['links.upload_lifetime_max', ['1000ms'], ['999ms']],
    ['links.ids_max', [1, 10_000], [0, 10_001]],
  ] as const) {
    const isAccepted = (value: number | string): boolean => {
      const [outer = '', inner] = key.split('.');
      const yaml = `access: { ${outer}: ${inner === undefined ? value : `{ ${inner}: ${value} }`} }`;
      return parseConfig(yaml, { access: accessSection }, context).kind !== 'faulty';
    };
    for (const value of accepted) t.equal(isAccepted(value), true, `${key}: ${String(value).slice(0, 40)}`);
    for (const value of refused) t.equal(isAccepted(value), false, `${key}: ${String(value).slice(0, 40)}`);
  }
});

void t.test('lifetimes fit their longest, and the two parts of a name come together', async (t) => {
  const context = { env: () => TEST_SECRET, file: () => TEST_SECRET };
  const faultsOf = (yaml: string): readonly unknown[] => {
    const outcome = parseConfig(yaml, { access: accessSection }, context);
    return outcome.kind === 'faulty' ? outcome.faults : accessFaults(outcome.config.access);
  };
  for (const [yaml, faults] of [
    ['links: { lifetime: 7d }', []],
    ['links: { lifetime: 2h, lifetime_max: 1h }', ['access.links.lifetime must be at most lifetime_max']],
    ['links: { upload_lifetime: 24h }', []],
    ['links: { upload_lifetime: 25h }', ['access.links.upload_lifetime must be at most upload_lifetime_max']],
    ['introspection: { client_id: a, client_secret: "env:A" }', []],
    [
      'introspection: { client_secret: "env:A" }',
      ['access.introspection needs client_id and client_secret together, or neither'],
    ],
    ['issuers: [{ issuer: plain, jwks_url: "https://a.example" }]', []],
  ] as const) {
    const found = faultsOf(`access: { ${yaml} }`).map((fault) => {
      const { path, message } = fault as { path: string; message: string };
      return `${path} ${message}`;
    });
    t.strictSame(found, faults, yaml);
  }
});
