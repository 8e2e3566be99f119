/**
 * The `access` section of config.yaml, shared by origin and edge: whose tokens
 * hold, what they grant, how links are signed and how an edge proves itself.
 */
import {
  choice,
  duration,
  integer,
  list,
  optionalSecret,
  optionalText,
  optionalUrl,
  secret,
  section,
  size,
  text,
  type ValueOf,
} from '../config/field.js';
import type { ConfigFault } from '../config/load.js';

/** Only asymmetric ones: a public key must never be usable as a shared secret, and `none` is no algorithm. */
const TOKEN_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const;

const issuerSection = section('One Authentication Service.', {
  issuer: text({
    default: '',
    pattern: /^\S{1,512}$/,
    accepts: 'the exact `iss` of its tokens',
    help: 'The `iss` that its tokens carry, compared letter by letter.',
  }),
  jwksUrl: optionalUrl({
    default: null,
    help: 'Where its public keys are; null: found by OpenID Connect discovery below the issuer.',
  }),
  subjectPrefix: text({
    default: '',
    pattern: /^[^\p{Cc}]{0,64}$/u,
    accepts: 'at most 64 characters',
    help: 'Put before the `sub` of its tokens. With several issuers, whoever has the same subject is the same owner to quotas, rate limits and resumable uploads: give each a prefix, unless they name the same people.',
  }),
});

const linkSecretSection = section('One secret that signs links.', {
  kid: text({
    default: '',
    pattern: /^[A-Za-z0-9_-]{1,32}$/,
    accepts: '1 to 32 letters, digits, - or _',
    help: 'Its name in links.',
  }),
  secret: secret({
    default: '',
    minLength: 32,
    help: 'The secret itself.',
  }),
});

const claimValue = /^\S{1,256}$/;

export const accessSection = section('Who may do what: tokens, signed links, and edges that prove themselves.', {
  issuers: list({
    default: [{ issuer: 'http://127.0.0.1:9100', jwks_url: 'http://127.0.0.1:9100/.well-known/jwks.json' }],
    of: issuerSection,
    min: 1,
    max: 16,
    help: 'The Authentication Services whose tokens hold, each with `issuer`, `jwks_url` (null: OpenID Connect discovery) and `subject_prefix`. A key opens tokens of its own issuer only. The default is the development service.',
  }),
  audiences: list({
    default: ['media'],
    of: text({ default: '', pattern: claimValue, accepts: 'text without white space', help: 'An audience.' }),
    min: 1,
    max: 16,
    help: 'A token must name one of these in its `aud`.',
  }),
  algorithms: list({
    default: ['RS256', 'ES256', 'EdDSA'],
    of: choice({ default: 'RS256', of: TOKEN_ALGORITHMS, help: 'A signature algorithm.' }),
    min: 1,
    help: 'Signature algorithms that are accepted, whatever a token says of itself.',
  }),
  clockToleranceMs: duration({
    default: '5s',
    max: 300_000,
    help: 'How far clocks may differ when the instants of a token or link are judged.',
  }),
  tokenSizeMaxBytes: size({ default: '8KiB', min: 256, max: 65_536, help: 'Longer tokens are refused unread.' }),
  tokensRememberedMax: integer({
    default: 20_000,
    min: 1,
    max: 10_000_000,
    help: 'Verified tokens that are remembered until they expire, so that a caller is verified once.',
  }),
  adminClaim: section('Which claim makes its bearer an admin.', {
    name: text({
      default: 'scope',
      pattern: claimValue,
      accepts: 'the name of a claim, dots reaching inside',
      help: 'A claim that holds words: a list, or one text with spaces between them.',
    }),
    value: text({
      default: 'media:admin',
      pattern: claimValue,
      accepts: 'one word',
      help: 'The word to be found there.',
    }),
  }),
  scopeClaim: section(
    'Which claim may limit a token to one half of the service. Naming both halves, or none, is no limit.',
    {
      name: optionalText({
        default: 'scope',
        help: 'A claim that holds words, as above; null: tokens are never limited.',
      }),
      readValue: text({ default: 'media:read', pattern: claimValue, accepts: 'one word', help: 'Limits to reading.' }),
      uploadValue: text({
        default: 'media:upload',
        pattern: claimValue,
        accepts: 'one word',
        help: 'Limits to uploading.',
      }),
    },
  ),
  keys: section('How public keys are fetched and kept.', {
    refreshMs: duration({
      default: '10m',
      min: 1_000,
      help: 'Keys are fetched again so often, so that withdrawn ones stop to hold.',
    }),
    refetchIntervalMs: duration({
      default: '10s',
      min: 100,
      help: 'A token with an unknown key makes the keys be fetched again; one more such fetch is allowed each interval.',
    }),
    refetchBurst: integer({ default: 5, min: 1, max: 100, help: 'How many such fetches may come at once.' }),
    keepMs: duration({
      default: '7d',
      min: 60_000,
      help: 'How long known keys hold while the Authentication Service cannot be reached.',
    }),
    folder: optionalText({
      default: './data/keys',
      help: 'Where public keys are kept over a restart; null: not kept.',
    }),
    timeoutMs: duration({ default: '5s', min: 100, max: 60_000, help: 'Limit of one fetch.' }),
    sizeMaxBytes: size({ default: '256KiB', min: 1_024, max: 16 * 2 ** 20, help: 'Limit of one fetched document.' }),
    keysMax: integer({ default: 64, min: 1, max: 1_000, help: 'Keys of one issuer beyond these are ignored.' }),
  }),
  introspection: section('Asking whether a token was revoked (RFC 7662), beside checking its signature.', {
    url: optionalUrl({ default: null, help: 'The introspection endpoint; null: not asked.' }),
    clientId: optionalText({ default: null, help: 'The name under which we ask, by HTTP Basic; null: without.' }),
    clientSecret: optionalSecret({ default: null, minLength: 1, help: 'The secret to that name.' }),
    cacheMs: duration({
      default: '30s',
      max: 3_600_000,
      help: 'How long an answer holds: a revocation is seen so late at most.',
    }),
    timeoutMs: duration({ default: '3s', min: 100, max: 60_000, help: 'Limit of one question.' }),
    retryMs: duration({ default: '2s', min: 100, max: 300_000, help: 'After a failure nothing is asked for so long.' }),
    questionsMax: integer({ default: 64, min: 1, max: 10_000, help: 'Questions under way at once.' }),
  }),
  edgeSecret: secret({
    default: 'file:./data/secrets/edge',
    minLength: 32,
    help: 'By which an edge proves itself to the origin: the same text on both sides.',
  }),
  edgeSecretsAccepted: list({
    default: [],
    of: secret({ default: '', minLength: 32, help: 'A secret.' }),
    max: 8,
    help: 'Secrets by which edges may prove themselves beside that one, while edges change from one to another.',
  }),
  links: section('Signed links, for <img> and <video>, which cannot send a token.', {
    secrets: list({
      default: [{ kid: '1', secret: 'file:./data/secrets/link' }],
      of: linkSecretSection,
      max: 8,
      help: 'Secrets, each with `kid` and `secret`. The first signs, every one opens; none at all: no links.',
    }),
    lifetimeMs: duration({ default: '1h', min: 1_000, help: 'How long a link holds where nothing else is asked for.' }),
    lifetimeMaxMs: duration({
      default: '7d',
      min: 1_000,
      help: 'Links that would hold longer are neither made nor accepted.',
    }),
  }),
});

export type AccessConfig = ValueOf<typeof accessSection>;

/** Faults between keys that each are right. Paths start at `access`. */
export function accessFaults(config: AccessConfig): readonly ConfigFault[] {
  const faults: ConfigFault[] = [];
  const fault = (path: string, message: string): void => void faults.push({ path: `access.${path}`, message });
  config.issuers.forEach(({ issuer, jwksUrl }, index) => {
    if (jwksUrl === null && !/^https?:\/\//.test(issuer)) {
      fault(`issuers.${index}`, 'needs a jwks_url, because its issuer is no URL to discover it from');
    }
  });
  if (hasRepeats(config.issuers.map(({ issuer }) => issuer))) fault('issuers', 'names an issuer twice');
  if (hasRepeats(config.links.secrets.map(({ kid }) => kid))) fault('links.secrets', 'uses a kid twice');
  if (config.links.lifetimeMs > config.links.lifetimeMaxMs) fault('links.lifetime', 'must be at most lifetime_max');
  const { clientId, clientSecret } = config.introspection;
  if ((clientId === null) !== (clientSecret === null)) {
    fault('introspection', 'needs client_id and client_secret together, or neither');
  }
  return faults;
}

function hasRepeats(words: readonly string[]): boolean {
  return new Set(words).size < words.length;
}
