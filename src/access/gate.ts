/**
 * The gate: turns the credentials of a request into a Grant, for origin and edge.
 *
 * A valid token decides; without one, a signed link may. A verified token is
 * remembered by its hash, so that the next request with it is answered at once.
 * Requests that bring the same unknown token at the same time share one check.
 */
import { hash } from 'node:crypto';
import { withSignal } from '../abort.js';
import type { Clock, EpochMs } from '../clock.js';
import { unreachable } from '../errors.js';
import type { Log } from '../log.js';
import type { Metrics } from '../metrics.js';
import { callerOf } from './claims.js';
import type { AccessConfig } from './config.js';
import type { Caller, Credentials, Gate, Grant, Role, TokenRefusal } from './grant.js';
import { createIntrospection, type Introspection } from './introspection.js';
import type { PublishedKey } from './jwks.js';
import { KeyRing, type KeysState } from './key-ring.js';
import type { LinkRefusal } from './link.js';
import { checkLink, type LinkKey, type LinkRules } from './link.js';
import { createTokenMemory, type RememberedToken, type TokenMemory } from './remembered.js';
import { readToken, type TokenRules, type UnprovenToken, type VerifyOutcome, verifyToken } from './token.js';
import { checkUploadLink, type UploadTerms } from './upload-link.js';

export interface GateDeps {
  readonly config: AccessConfig;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export function openGate(deps: GateDeps): Gate {
  return new OneGate(deps);
}

class OneGate implements Gate {
  readonly #config: AccessConfig;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #tokenRules: TokenRules;
  #linkRules: LinkRules;
  readonly #rings: ReadonlyMap<string, KeyRing>;
  readonly #introspect: Introspection | undefined;
  readonly #memory: TokenMemory;
  /** Checks under way, by the hash of the token. */
  readonly #checks = new Map<string, Promise<Grant>>();
  /** Digests of tokens by their carrier, see Credentials. */
  readonly #digests = new WeakMap<object, string>();
  readonly #tally: Tally;
  readonly #closing = new AbortController();

  constructor({ config, clock, log, metrics }: GateDeps) {
    this.#config = config;
    this.#clock = clock;
    this.#log = log.child({ part: 'access' });
    this.#tokenRules = config;
    this.#linkRules = {
      keys: config.links.secrets,
      lifetimeMaxMs: config.links.lifetimeMaxMs,
      windowMs: config.links.windowMs,
      clockToleranceMs: config.clockToleranceMs,
    };
    this.#introspect = createIntrospection(config.introspection, clock, this.#log);
    this.#memory = createTokenMemory(config.tokensRememberedMax);
    this.#tally = new Tally(metrics);
    const remembered = metrics.gauge('access_tokens_remembered', 'Tokens that are remembered as verified.');
    metrics.onCollect(() => remembered.set(this.#memory.size));
    const fetches = metrics.counter('access_key_fetches_total', 'Fetches of public keys.', ['outcome']);
    const ringDeps = { config: config.keys, clock, log: this.#log, fetches };
    this.#rings = new Map(config.issuers.map((source) => [source.issuer, new KeyRing({ ...source, ...ringDeps })]));
  }

  open(credentials: Credentials, signal?: AbortSignal): Grant | Promise<Grant> {
    const bearer = readBearer(credentials.authorization, this.#config.tokenSizeMaxBytes);
    if (bearer.kind === 'none') return this.#withLink(NOBODY, credentials);
    if (bearer.kind === 'refused') return this.#withLink(refused(bearer.refusal), credentials);
    const digest = this.#digestOf(bearer.token, credentials.carrier);
    const remembered = this.#recall(digest);
    if (remembered !== undefined) return this.#withLink(remembered, credentials);
    return withSignal(this.#check(bearer.token, digest), signal).then((grant) => this.#withLink(grant, credentials));
  }

  #digestOf(token: string, carrier: object | undefined): string {
    if (carrier === undefined) return hash('sha256', token, 'base64');
    let digest = this.#digests.get(carrier);
    if (digest === undefined) {
      digest = hash('sha256', token, 'base64');
      this.#digests.set(carrier, digest);
    }
    return digest;
  }

  async probe(signal?: AbortSignal): Promise<void> {
    const probes = [...this.#rings.values()].map((ring) => ring.probe());
    await withSignal(Promise.any(probes).catch(onlyReason), signal);
  }

  issuers(): Readonly<Record<string, KeysState>> {
    return Object.fromEntries([...this.#rings].map(([issuer, ring]) => [issuer, ring.state()]));
  }

  renewLinks(keys: readonly LinkKey[]): void {
    this.#linkRules = { ...this.#linkRules, keys };
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the gate is closed'));
    await Promise.all([...this.#rings.values()].map((ring) => ring.close()));
    await Promise.allSettled(this.#checks.values());
  }

  /** The grant of the token, or of the link if the token gives none. */
  #withLink(byToken: Grant, credentials: Credentials): Grant {
    const grant = byToken.kind === 'caller' ? byToken : this.#orByLink(byToken, credentials);
    this.#tally.count(grant);
    return grant;
  }

  #orByLink(byToken: Grant, credentials: Credentials): Grant {
    const upload = checkUploadLink(credentials, this.#linkRules, this.#clock.now());
    if (upload.kind === 'valid') return { kind: 'caller', caller: callerByLink(upload.terms) };
    if (upload.kind === 'refused') return this.#refusedLink(byToken, upload.refusal);
    const link = checkLink(credentials, this.#linkRules, this.#clock.now());
    switch (link.kind) {
      case 'absent':
        return byToken;
      case 'valid':
        return { kind: 'link', expiresAt: link.expiresAt };
      case 'refused':
        return this.#refusedLink(byToken, link.refusal);
      default:
        return unreachable(link);
    }
  }

  #refusedLink(byToken: Grant, refusal: LinkRefusal): Grant {
    return byToken === NOBODY ? { kind: 'anonymous', refusal: `link_${refusal}` } : byToken;
  }

  #recall(digest: string): Grant | undefined {
    const remembered = this.#memory.get(digest);
    if (remembered === undefined) return undefined;
    const now = this.#clock.now();
    if (now < remembered.endsAt && now < remembered.askAgainAt && !remembered.key.withdrawn) return remembered.grant;
    this.#memory.delete(digest);
    return now < remembered.endsAt ? undefined : refused('expired');
  }

  /** Joins the check of the same token that is under way, or starts one. It outlives its callers; closing the gate ends it. */
  #check(token: string, digest: string): Promise<Grant> {
    const running = this.#checks.get(digest);
    if (running !== undefined) return running;
    const check = this.#authenticate(token, digest).finally(() => this.#checks.delete(digest));
    this.#checks.set(digest, check);
    return check;
  }

  async #authenticate(text: string, digest: string): Promise<Grant> {
    if (!B64TOKEN.test(text)) return refused('malformed');
    const read = readToken(text, this.#tokenRules, this.#clock.now());
    if (read.kind === 'refused') return refused(read.refusal);
    const ring = this.#rings.get(read.token.issuer);
    if (ring === undefined) return refused('issuer');
    const { kid, algorithm } = read.token;
    const known = ring.find(kid, algorithm);
    const byKnown = await this.#verifyWithAny(read.token, known, digest);
    if (byKnown !== undefined) return byKnown;
    // The right key may have been published since, under the same `kid` too.
    const sought = await ring.seek(kid, algorithm, known);
    switch (sought.kind) {
      case 'found':
        return (await this.#verifyWithAny(read.token, sought.keys, digest)) ?? refused('signature');
      case 'unknown':
        return refused(known.length === 0 ? 'unknown_key' : 'signature');
      case 'unavailable':
        return known.length === 0 ? sought : refused('signature');
      default:
        return unreachable(sought);
    }
  }

  /** Undefined if none of the keys made the signature. */
  async #verifyWithAny(
    token: UnprovenToken,
    keys: readonly PublishedKey[],
    digest: string,
  ): Promise<Grant | undefined> {
    for (const key of keys) {
      const verified = await verifyToken(token, key.key, this.#tokenRules, this.#clock.now());
      if (verified.kind === 'valid') return await this.#grant(token, verified, key, digest);
      if (verified.refusal !== 'signature') return refused(verified.refusal);
    }
    return undefined;
  }

  async #grant(
    token: UnprovenToken,
    verified: Extract<VerifyOutcome, { kind: 'valid' }>,
    key: PublishedKey,
    digest: string,
  ): Promise<Grant> {
    const caller = callerOf(verified.claims, token.issuer, verified.expiresAt, this.#config);
    if (caller === undefined) return refused('no_subject');
    const grant = await this.#unlessRevoked({ kind: 'caller', caller }, token.text);
    if (grant.kind !== 'unavailable') this.#memory.set(digest, this.#toRemember(grant, key, verified.expiresAt));
    if (grant.kind === 'caller')
      this.#log.debug({ subject: caller.subject, issuer: token.issuer }, 'a token was verified');
    return grant;
  }

  async #unlessRevoked(grant: Grant, token: string): Promise<Grant> {
    if (this.#introspect === undefined) return grant;
    const outcome = await this.#introspect(token, this.#closing.signal);
    switch (outcome.kind) {
      case 'active':
        return grant;
      case 'revoked':
        return refused('revoked');
      case 'unavailable':
        return outcome;
      default:
        return unreachable(outcome);
    }
  }

  #toRemember(grant: Grant, key: PublishedKey, expiresAt: EpochMs): RememberedToken {
    const askAgainAt =
      this.#introspect === undefined
        ? Number.POSITIVE_INFINITY
        : this.#clock.now() + this.#config.introspection.cacheMs;
    return { grant, key, endsAt: expiresAt + this.#config.clockToleranceMs, askAgainAt };
  }
}

/** It may upload, and do nothing else. */
function callerByLink(terms: UploadTerms): Caller {
  const { subject, expiresAt } = terms;
  return { subject, issuer: '', roles: NO_ROLES, scope: 'upload', expiresAt, uploadLink: terms };
}

const NO_ROLES: ReadonlySet<Role> = new Set();

/** Of several reasons, the first. */
function onlyReason(thrown: unknown): never {
  throw thrown instanceof AggregateError ? thrown.errors[0] : thrown;
}

const NOBODY: Grant = { kind: 'anonymous', refusal: 'none' };

type Bearer =
  | { readonly kind: 'none' }
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'refused'; readonly refusal: TokenRefusal };

const SCHEME = /^bearer(?: +|$)/i;
const SCHEME_AS_USUAL = 'Bearer ';
const B64TOKEN = /^[A-Za-z0-9._~+/-]+=*$/;

/**
 * RFC 6750 2.1; the name of the scheme in any case (RFC 9110 11.1). Another
 * scheme is ignored. The characters of the token are checked only if it is not
 * a remembered one.
 */
function readBearer(authorization: string | undefined, sizeMaxBytes: number): Bearer {
  if (authorization === undefined) return { kind: 'none' };
  const usual = authorization.startsWith(SCHEME_AS_USUAL) && authorization[SCHEME_AS_USUAL.length] !== ' ';
  const prefix = usual ? SCHEME_AS_USUAL : SCHEME.exec(authorization)?.[0];
  if (prefix === undefined) return { kind: 'none' };
  if (authorization.length > sizeMaxBytes + prefix.length) return { kind: 'refused', refusal: 'too_large' };
  return { kind: 'token', token: authorization.slice(prefix.length) };
}

function refused(refusal: TokenRefusal): Grant {
  return { kind: 'anonymous', refusal: `token_${refusal}` };
}

type Outcome = 'caller' | 'link' | 'unavailable' | 'none' | `token_${TokenRefusal}` | `link_${LinkRefusal}`;

/** Counts every grant by its outcome. Plain numbers until metrics are read, because every memory hit pays for this. */
class Tally {
  readonly #counts = new Map<Outcome, number>();

  constructor(metrics: Metrics) {
    const grants = metrics.counter('access_grants_total', 'Requests by what their credentials came to.', ['outcome']);
    metrics.onCollect(() => {
      for (const [outcome, count] of this.#counts) grants.add(count, { outcome });
      this.#counts.clear();
    });
  }

  count(grant: Grant): void {
    const outcome = grant.kind === 'anonymous' ? grant.refusal : grant.kind;
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
  }
}
