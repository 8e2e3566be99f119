/**
 * The `access` section of config.yaml, shared by origin and edge: whose tokens
 * are valid, what they grant, how links are signed and how an edge proves itself.
 */
import {
  choice,
  duration,
  flag,
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

/** Asymmetric algorithms only: a public key must never be usable as a shared secret, and `none` proves nothing. */
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
    help: 'The `iss` of its tokens, compared letter by letter.',
  }),
  jwksUrl: optionalUrl({
    default: null,
    help: 'Where its public keys are; null: use OpenID Connect discovery at the issuer.',
  }),
  subjectPrefix: text({
    default: '',
    pattern: /^[^\p{Cc}]{0,64}$/u,
    accepts: 'at most 64 characters',
    help: 'Put before the `sub` of its tokens. Callers with the same subject share quotas, rate limits and resumable uploads. With several issuers, give each a prefix, unless they name the same people.',
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

export const accessSection = section('Who may do what: tokens, signed links, and the secret of the edges.', {
  issuers: list({
    default: [{ issuer: 'http://127.0.0.1:9100', jwks_url: 'http://127.0.0.1:9100/.well-known/jwks.json' }],
    of: issuerSection,
    min: 1,
    max: 16,
    help: 'The Authentication Services whose tokens are valid, each with `issuer`, `jwks_url` (null: OpenID Connect discovery) and `subject_prefix`. A key verifies the tokens of its own issuer only. The default is the development service: replace it in production.',
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
    help: 'The signature algorithms that are accepted. A token cannot add to them.',
  }),
  clockToleranceMs: duration({
    default: '5s',
    max: 300_000,
    help: 'How far clocks may differ when a token or link is checked.',
  }),
  tokenSizeMaxBytes: size({
    default: '8KiB',
    min: 256,
    max: 65_536,
    help: 'Longer tokens are refused without being read.',
  }),
  tokensRememberedMax: integer({
    default: 20_000,
    min: 1,
    max: 10_000_000,
    help: 'How many verified tokens are remembered until they expire, so that each is verified once.',
  }),
  adminClaim: section('The claim that makes a caller an admin.', {
    name: text({
      default: 'scope',
      pattern: claimValue,
      accepts: 'the name of a claim; dots lead into objects',
      help: 'A claim with words: a list, or one text with spaces between the words.',
    }),
    value: text({
      default: 'media:admin',
      pattern: claimValue,
      accepts: 'one word',
      help: 'The word that it must contain.',
    }),
  }),
  scopeClaim: section(
    'The claim that may limit a token to reading or to uploading. A token with both words, or none, is not limited.',
    {
      name: optionalText({
        default: 'scope',
        help: 'A claim with words, as above; null: tokens are never limited.',
      }),
      readValue: text({
        default: 'media:read',
        pattern: claimValue,
        accepts: 'one word',
        help: 'The word that limits a token to reading.',
      }),
      uploadValue: text({
        default: 'media:upload',
        pattern: claimValue,
        accepts: 'one word',
        help: 'The word that limits a token to uploading.',
      }),
    },
  ),
  ownersMayDelete: flag({
    default: false,
    help: 'Whether those who uploaded media may delete them and list what they uploaded, by a token that is not limited. Somebody else may have uploaded the same bytes later and got the same id.',
  }),
  keys: section('How public keys are fetched and kept.', {
    refreshMs: duration({
      default: '10m',
      min: 1_000,
      help: 'How often keys are fetched again, so that withdrawn keys stop being valid.',
    }),
    refetchIntervalMs: duration({
      default: '10s',
      min: 100,
      help: 'A token with an unknown key causes another fetch. One such fetch is allowed in each interval. An empty key set is accepted only if it is still empty one interval later.',
    }),
    refetchBurst: integer({
      default: 5,
      min: 1,
      max: 100,
      help: 'How many such fetches may follow each other without waiting.',
    }),
    keepMs: duration({
      default: '7d',
      min: 60_000,
      help: 'How long known keys stay valid while the Authentication Service cannot be reached.',
    }),
    folder: optionalText({
      default: './data/keys',
      help: 'The folder that keeps public keys over a restart; null: they are not kept.',
    }),
    timeoutMs: duration({ default: '5s', min: 100, max: 60_000, help: 'Time limit of one fetch.' }),
    sizeMaxBytes: size({
      default: '256KiB',
      min: 1_024,
      max: 16 * 2 ** 20,
      help: 'Size limit of one fetched document.',
    }),
    keysMax: integer({
      default: 64,
      min: 1,
      max: 1_000,
      help: 'Most keys that are used of one issuer; further ones are ignored. For a token without a kid, at most this many are tried.',
    }),
  }),
  introspection: section(
    'Asks the Authentication Service whether a token was revoked (RFC 7662), in addition to checking its signature.',
    {
      url: optionalUrl({ default: null, help: 'The introspection endpoint; null: it is not asked.' }),
      clientId: optionalText({ default: null, help: 'The user name for HTTP Basic authentication there; null: none.' }),
      clientSecret: optionalSecret({ default: null, minLength: 1, help: 'The password for it.' }),
      cacheMs: duration({
        default: '30s',
        max: 3_600_000,
        help: 'How long an answer is used. A revocation takes effect at most this late.',
      }),
      timeoutMs: duration({ default: '3s', min: 100, max: 60_000, help: 'Time limit of one request.' }),
      retryMs: duration({
        default: '2s',
        min: 100,
        max: 300_000,
        help: 'How long to wait after a failure before asking again.',
      }),
      questionsMax: integer({ default: 64, min: 1, max: 10_000, help: 'How many requests may be open at once.' }),
    },
  ),
  edgeSecret: secret({
    default: 'file:./data/secrets/edge',
    minLength: 32,
    live: true,
    help: 'The secret with which an edge proves itself to the origin. Edge and origin need the same one.',
  }),
  edgeSecretsAccepted: list({
    default: [],
    of: secret({ default: '', minLength: 32, help: 'A secret.' }),
    max: 8,
    live: true,
    help: 'Further secrets that the origin accepts, while edges change from one secret to another.',
  }),
  links: section('Signed links, for <img> and <video>, which cannot send a token.', {
    secrets: list({
      default: [{ kid: '1', secret: 'file:./data/secrets/link' }],
      of: linkSecretSection,
      max: 8,
      live: true,
      help: 'Secrets, each with `kid` and `secret`. The first one signs, all of them are accepted; without any there are no links.',
    }),
    lifetimeMs: duration({ default: '1h', min: 1_000, help: 'How long a link is valid if the request does not say.' }),
    lifetimeMaxMs: duration({
      default: '7d',
      min: 1_000,
      help: 'The longest validity of a link. Longer ones are neither made nor accepted, apart from `window`.',
    }),
    windowMs: duration({
      default: '10m',
      max: 86_400_000,
      help: 'The end of a link is rounded up to a multiple of this, so that links that are asked for again within it are the same, and copies in browsers are found again. 0s: to the second.',
    }),
    uploadLifetimeMs: duration({
      default: '1h',
      min: 1_000,
      help: 'How long an upload link is valid if the request does not say. The upload has to end within it.',
    }),
    uploadLifetimeMaxMs: duration({ default: '24h', min: 1_000, help: 'The longest validity of an upload link.' }),
    idsMax: integer({
      default: 500,
      min: 1,
      max: 10_000,
      help: 'How many media one request for links may name.',
    }),
  }),
});

export type AccessConfig = ValueOf<typeof accessSection>;

/** Faults of keys that are right each by itself but do not fit together. Paths start at `access`. */
export function accessFaults(config: AccessConfig): readonly ConfigFault[] {
  const faults: ConfigFault[] = [];
  const fault = (path: string, message: string): void => void faults.push({ path: `access.${path}`, message });
  config.issuers.forEach(({ issuer, jwksUrl }, index) => {
    if (jwksUrl === null && !/^https?:\/\//.test(issuer)) {
      fault(`issuers.${index}`, 'needs a jwks_url, because its issuer is not a URL with discovery');
    }
  });
  if (hasRepeats(config.issuers.map(({ issuer }) => issuer))) fault('issuers', 'names an issuer twice');
  if (hasRepeats(config.links.secrets.map(({ kid }) => kid))) fault('links.secrets', 'uses a kid twice');
  if (config.links.lifetimeMs > config.links.lifetimeMaxMs) fault('links.lifetime', 'must be at most lifetime_max');
  if (config.links.uploadLifetimeMs > config.links.uploadLifetimeMaxMs) {
    fault('links.upload_lifetime', 'must be at most upload_lifetime_max');
  }
  const { clientId, clientSecret } = config.introspection;
  if ((clientId === null) !== (clientSecret === null)) {
    fault('introspection', 'needs client_id and client_secret together, or neither');
  }
  return faults;
}

function hasRepeats(words: readonly string[]): boolean {
  return new Set(words).size < words.length;
}
