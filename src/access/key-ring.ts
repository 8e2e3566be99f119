/**
 * The current public keys of one Authentication Service.
 *
 * Promises: keys are fetched again at a regular interval and, for an unknown
 * key, at once but at a limited rate. Any number of callers share one fetch.
 * While the service cannot be reached, the known keys stay valid for as long as
 * configured. A key that left the published set is marked withdrawn. A set
 * without usable keys is believed only if it is still there an interval later,
 * because it would end every session. With a folder, the last set survives a
 * restart.
 */
import { formatDuration } from '../bytes.js';
import type { Clock, EpochMs, Timer } from '../clock.js';
import { errorFields, type Log } from '../log.js';
import type { CounterOf } from '../metrics.js';
import type { AccessConfig } from './config.js';
import { fetchDocument } from './fetch-document.js';
import { fittingKeys, type PublishedKey, readKeySet } from './jwks.js';
import { loadKeySet, saveKeySet } from './kept-keys.js';

export type SeekOutcome =
  | { readonly kind: 'found'; readonly keys: readonly PublishedKey[] }
  /** The service was asked and has no such key. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'unavailable'; readonly retryAfterMs: number };

/** `kept`: the keys of the last fetch are still used, but the service cannot be reached. */
export type KeysState = 'current' | 'kept' | 'unknown';

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
  /** Since when the published set has had no usable key, by the monotonic clock. */
  #emptySinceMs: number | undefined;
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

  /** The known keys that may have signed a token. */
  find(kid: string | undefined, algorithm: string): readonly PublishedKey[] {
    return this.#areUsable() ? fittingKeys(this.#keys, kid, algorithm) : [];
  }

  /** Keys that may have signed a token, besides those that were `tried`; asks the service if none is known. */
  async seek(kid: string | undefined, algorithm: string, tried: readonly PublishedKey[] = []): Promise<SeekOutcome> {
    const others = (): readonly PublishedKey[] => this.find(kid, algorithm).filter((key) => !tried.includes(key));
    await this.#opened;
    const joined = this.#fetching;
    await joined;
    let keys = others();
    // A fetch that was under way may have been answered before the key was published. So another one is due, unless it failed.
    const worthAsking = joined === undefined || this.#lastFailure === undefined;
    if (keys.length === 0 && worthAsking && (this.#fetching !== undefined || this.#budget.take())) {
      await this.#fetch();
      keys = others();
    }
    if (keys.length > 0) return { kind: 'found', keys };
    return this.#lastFailure === undefined
      ? { kind: 'unknown' }
      : { kind: 'unavailable', retryAfterMs: this.#budget.nextInMs() };
  }

  state(): KeysState {
    if (!this.#areUsable()) return 'unknown';
    return this.#lastFailure === undefined ? 'current' : 'kept';
  }

  /** Resolves when there are usable keys. Rejects with the reason why not. */
  async probe(): Promise<void> {
    await this.#opened;
    if (!this.#areUsable()) await this.#fetching;
    if (!this.#areUsable() && this.#budget.take()) await this.#fetch();
    if (!this.#areUsable()) throw this.#lastFailure ?? new Error('the published set has no key');
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
      this.#requireKeys(keys);
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

  /** Throws for a set without keys, unless it has been so for an interval. */
  #requireKeys(published: readonly PublishedKey[]): void {
    const { clock, config, issuer, log } = this.#deps;
    if (published.length > 0) {
      this.#emptySinceMs = undefined;
      return;
    }
    const nowMs = clock.monotonicMs();
    this.#emptySinceMs ??= nowMs;
    if (nowMs - this.#emptySinceMs < config.refetchIntervalMs) {
      throw new Error('the JSON Web Key Set has no key that can check a signature');
    }
    if (this.#keys.length > 0)
      log.error({ issuer }, 'no public key is trusted any more: the published set stays empty');
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
