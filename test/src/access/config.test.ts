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
