/**
 * The current public keys of one Authentication Service.
 *
 * Promises: keys are fetched again at a regular interval and, for an unknown
 * key, at once but at a limited rate. Any number of callers share one fetch.
 * While the service cannot be reached, the known keys stay valid for as long as
 * configured. A key that left the published set is marked withdrawn. With a
 * folder, the last set survives a restart.
 */
import { formatDuration } from '../bytes.js';
import type { Clock, EpochMs, Timer } from '../clock.js';
import { errorFields, type Log } from '../log.js';
import type { CounterOf } from '../metrics.js';
import type { AccessConfig } from './config.js';
import { fetchDocument } from './fetch-document.js';
import { chooseKey, type PublishedKey, readKeySet } from './jwks.js';
import { loadKeySet, saveKeySet } from './kept-keys.js';

export type SeekOutcome =
  | { readonly kind: 'found'; readonly key: PublishedKey }
  /** The service was asked and has no such key. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'unavailable'; readonly retryAfterMs: number };

export interface KeyRingDeps {
  readonly issuer: string;
  readonly jwksUrl: string | null;
  readonly config: AccessConfig['keys'];
  readonly clock: Clock;
  readonly log: Log;
  readonly fetches: CounterOf<'outcome'>;
}

export class KeyRing {
  readonly #deps: KeyRingDeps;
  readonly #closing = new AbortController();
  readonly #budget: FetchBudget;
  readonly #opened: Promise<void>;
  #keys: readonly PublishedKey[] = [];
  /** When the service last confirmed the keys. */
  #confirmedAt: EpochMs = Number.NEGATIVE_INFINITY;
  #lastFailure: Error | undefined = new Error('the keys were not fetched yet');
  #failures = 0;
  #fetching: Promise<void> | undefined;
  #refresh: Timer | undefined;

  constructor(deps: KeyRingDeps) {
    this.#deps = deps;
    this.#budget = new FetchBudget(deps.config, deps.clock);
    if (isOpenToTampering(deps.jwksUrl ?? deps.issuer)) {
      deps.log.warn(
        { issuer: deps.issuer },
        'public keys are fetched without TLS: anyone on the network path can replace them',
      );
    }
    this.#opened = this.#load();
    void this.#fetch();
  }

  /** The key, if it is known already. */
  find(kid: string | undefined, algorithm: string): PublishedKey | undefined {
    return this.#areUsable() ? chooseKey(this.#keys, kid, algorithm) : undefined;
  }

  /** The key; asks the service if it is not known. */
  async seek(kid: string | undefined, algorithm: string): Promise<SeekOutcome> {
    await this.#opened;
    const joined = this.#fetching;
    await joined;
    let key = this.find(kid, algorithm);
    // A fetch that was under way may have been answered before the key was published. So another one is due, unless it failed.
    const worthAsking = joined === undefined || this.#lastFailure === undefined;
    if (key === undefined && worthAsking && (this.#fetching !== undefined || this.#budget.take())) {
      await this.#fetch();
      key = this.find(kid, algorithm);
    }
    if (key !== undefined) return { kind: 'found', key };
    return this.#lastFailure === undefined
      ? { kind: 'unknown' }
      : { kind: 'unavailable', retryAfterMs: this.#budget.nextInMs() };
  }

  /** Resolves when there are usable keys. Rejects with the reason why not. */
  async probe(): Promise<void> {
    await this.#opened;
    if (!this.#areUsable()) await this.#fetching;
    if (!this.#areUsable() && this.#budget.take()) await this.#fetch();
    if (!this.#areUsable()) throw this.#lastFailure ?? new Error('the keys are too old');
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the gate is closed'));
    this.#refresh?.cancel();
    await this.#opened;
    await this.#fetching;
  }

  #areUsable(): boolean {
    const { clock, config } = this.#deps;
    return this.#keys.length > 0 && clock.now() - this.#confirmedAt < config.keepMs;
  }

  /** Joins the fetch under way, or starts one. Never rejects. */
  #fetch(): Promise<void> {
    this.#fetching ??= this.#fetchOnce().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  async #fetchOnce(): Promise<void> {
    const { clock, config, fetches, issuer, log } = this.#deps;
    this.#refresh?.cancel();
    if (this.#closing.signal.aborted) return;
    try {
      const { document, keys } = await this.#read(this.#closing.signal);
      await this.#opened;
      this.#adopt(keys, clock.now());
      fetches.add(1, { outcome: 'fetched' });
      await this.#save(document);
      this.#schedule(config.refreshMs);
    } catch (thrown) {
      if (this.#closing.signal.aborted) return;
      this.#lastFailure = thrown instanceof Error ? thrown : new Error(String(thrown));
      this.#failures += 1;
      fetches.add(1, { outcome: 'failed' });
      log.warn({ issuer, ...errorFields(thrown) }, 'the public keys of the Authentication Service cannot be fetched');
      if (!this.#areUsable()) this.#dropAll();
      this.#schedule(Math.min(config.refreshMs, config.refetchIntervalMs * 2 ** Math.min(this.#failures - 1, 10)));
    }
  }

  async #read(signal: AbortSignal): Promise<{ document: unknown; keys: readonly PublishedKey[] }> {
    const { clock, config, issuer, jwksUrl } = this.#deps;
    const url = jwksUrl ?? (await discoverKeysUrl(issuer, config, clock, signal));
    const document = await fetchDocument({ url }, config, clock, signal);
    return { document, keys: readKeySet(document, config.keysMax) };
  }

  #adopt(published: readonly PublishedKey[], confirmedAt: EpochMs): void {
    const known = new Map(this.#keys.map((key) => [key.fingerprint, key]));
    const next = published.map((key) => known.get(key.fingerprint) ?? key);
    for (const key of this.#keys) key.withdrawn = !next.includes(key);
    this.#keys = next;
    this.#confirmedAt = confirmedAt;
    this.#lastFailure = undefined;
    this.#failures = 0;
  }

  #dropAll(): void {
    if (this.#keys.length === 0) return;
    const { config, issuer, log } = this.#deps;
    for (const key of this.#keys) key.withdrawn = true;
    this.#keys = [];
    log.error({ issuer }, `no public key is trusted any more: none was confirmed for ${formatDuration(config.keepMs)}`);
  }

  #schedule(delayMs: number): void {
    if (this.#closing.signal.aborted) return;
    this.#refresh = this.#deps.clock.after(delayMs, () => void this.#fetch());
  }

  async #save(document: unknown): Promise<void> {
    const { config, issuer, jwksUrl, log } = this.#deps;
    if (config.folder === null) return;
    try {
      await saveKeySet(config.folder, { issuer, jwksUrl, confirmedAt: this.#confirmedAt, document });
    } catch (thrown) {
      log.warn({ issuer, ...errorFields(thrown) }, 'the public keys cannot be saved for the next start');
    }
  }

  async #load(): Promise<void> {
    const { clock, config, issuer, jwksUrl, log } = this.#deps;
    if (config.folder === null) return;
    try {
      const saved = await loadKeySet(config.folder, { issuer, jwksUrl });
      // A set with a date in the future would stay valid for too long.
      if (saved === undefined || saved.confirmedAt > clock.now()) return;
      this.#keys = readKeySet(saved.document, config.keysMax);
      this.#confirmedAt = saved.confirmedAt;
    } catch (thrown) {
      log.warn({ issuer, ...errorFields(thrown) }, 'the public keys of the last run cannot be read');
    }
  }
}

function isOpenToTampering(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === 'http:' && !/^(localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname);
}

/** OpenID Connect Discovery 1.0 section 4. */
async function discoverKeysUrl(
  issuer: string,
  config: AccessConfig['keys'],
  clock: Clock,
  signal: AbortSignal,
): Promise<string> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const document = await fetchDocument({ url }, config, clock, signal);
  const { issuer: named, jwks_uri: keysUrl } = document as { readonly issuer?: unknown; readonly jwks_uri?: unknown };
  // 4.3: the document must name this issuer, or its keys would verify another issuer's tokens.
  if (named !== issuer) throw new Error(`${url} is the document of another issuer`);
  if (typeof keysUrl !== 'string' || !URL.canParse(keysUrl)) throw new Error(`${url} names no jwks_uri`);
  const { protocol } = new URL(keysUrl);
  if (protocol !== 'https:' && !(protocol === 'http:' && issuer.startsWith('http:'))) {
    throw new Error(`${url} names a jwks_uri that is less protected than the issuer`);
  }
  return keysUrl;
}

/** Limits the fetches for unknown keys: a burst, then one in each interval. */
class FetchBudget {
  readonly #config: Pick<AccessConfig['keys'], 'refetchBurst' | 'refetchIntervalMs'>;
  readonly #clock: Clock;
  #left: number;
  #countedAtMs: number;

  constructor(config: Pick<AccessConfig['keys'], 'refetchBurst' | 'refetchIntervalMs'>, clock: Clock) {
    this.#config = config;
    this.#clock = clock;
    this.#left = config.refetchBurst;
    this.#countedAtMs = clock.monotonicMs();
  }

  take(): boolean {
    this.#refill();
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }

  nextInMs(): number {
    this.#refill();
    return this.#left >= 1 ? 1_000 : Math.ceil((1 - this.#left) * this.#config.refetchIntervalMs);
  }

  #refill(): void {
    const atMs = this.#clock.monotonicMs();
    const gained = (atMs - this.#countedAtMs) / this.#config.refetchIntervalMs;
    this.#left = Math.min(this.#config.refetchBurst, this.#left + gained);
    this.#countedAtMs = atMs;
  }
}
