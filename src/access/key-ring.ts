/**
 * The public keys of one Authentication Service, as they are at present.
 *
 * Promises: keys are fetched again at a steady pace and, for a key that is not
 * known, at once but at a bounded rate; any number of callers share one fetch;
 * while the service cannot be reached the known keys go on to hold, for as long
 * as configured; a key that left the published set is marked withdrawn. With a
 * folder, the last set survives a restart.
 */
import { formatDuration } from '../bytes.js';
import type { Clock, EpochMs, Timer } from '../clock.js';
import { errorFields, type Log } from '../log.js';
import type { CounterOf } from '../metrics.js';
import type { AccessConfig } from './config.js';
import { fetchDocument } from './fetch-document.js';
import { chooseKey, type PublishedKey, readKeySet } from './jwks.js';
import { keepKeySet, recallKeySet } from './kept-keys.js';

export type SeekOutcome =
  | { readonly kind: 'found'; readonly key: PublishedKey }
  /** The service was asked, and has no such key. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'unavailable'; readonly retryAfterMs: number };

export interface KeyRingParts {
  readonly issuer: string;
  readonly jwksUrl: string | null;
  readonly config: AccessConfig['keys'];
  readonly clock: Clock;
  readonly log: Log;
  readonly fetches: CounterOf<'outcome'>;
}

export class KeyRing {
  readonly #parts: KeyRingParts;
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

  constructor(parts: KeyRingParts) {
    this.#parts = parts;
    this.#budget = new FetchBudget(parts.config, parts.clock);
    if (isOpenToTampering(parts.jwksUrl ?? parts.issuer)) {
      parts.log.warn(
        { issuer: parts.issuer },
        'public keys are fetched without TLS: whoever is on the way can swap them',
      );
    }
    this.#opened = this.#recall();
    void this.#fetch();
  }

  /** The key, where it is known already. */
  find(kid: string | undefined, algorithm: string): PublishedKey | undefined {
    return this.#holds() ? chooseKey(this.#keys, kid, algorithm) : undefined;
  }

  /** The key, also if the service has to be asked for it. */
  async seek(kid: string | undefined, algorithm: string): Promise<SeekOutcome> {
    await this.#opened;
    const joined = this.#fetching;
    await joined;
    let key = this.find(kid, algorithm);
    // A fetch that was under way may have left before the key was published: one more is due, unless it just failed.
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

  /** Resolves when there are keys to check with. Rejects with the reason. */
  async probe(): Promise<void> {
    await this.#opened;
    if (!this.#holds()) await this.#fetching;
    if (!this.#holds() && this.#budget.take()) await this.#fetch();
    if (!this.#holds()) throw this.#lastFailure ?? new Error('the keys are too old');
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the gate is closed'));
    this.#refresh?.cancel();
    await this.#opened;
    await this.#fetching;
  }

  #holds(): boolean {
    const { clock, config } = this.#parts;
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
    const { clock, config, fetches, issuer, log } = this.#parts;
    this.#refresh?.cancel();
    if (this.#closing.signal.aborted) return;
    try {
      const { document, keys } = await this.#read(this.#closing.signal);
      await this.#opened;
      this.#adopt(keys, clock.now());
      fetches.add(1, { outcome: 'fetched' });
      await this.#keep(document);
      this.#schedule(config.refreshMs);
    } catch (thrown) {
      if (this.#closing.signal.aborted) return;
      this.#lastFailure = thrown instanceof Error ? thrown : new Error(String(thrown));
      this.#failures += 1;
      fetches.add(1, { outcome: 'failed' });
      log.warn({ issuer, ...errorFields(thrown) }, 'the public keys of the Authentication Service cannot be fetched');
      if (!this.#holds()) this.#dropAll();
      this.#schedule(Math.min(config.refreshMs, config.refetchIntervalMs * 2 ** Math.min(this.#failures - 1, 10)));
    }
  }

  async #read(signal: AbortSignal): Promise<{ document: unknown; keys: readonly PublishedKey[] }> {
    const { clock, config, issuer, jwksUrl } = this.#parts;
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
    const { config, issuer, log } = this.#parts;
    for (const key of this.#keys) key.withdrawn = true;
    this.#keys = [];
    log.error({ issuer }, `no public key is trusted any more: none was confirmed for ${formatDuration(config.keepMs)}`);
  }

  #schedule(delayMs: number): void {
    if (this.#closing.signal.aborted) return;
    this.#refresh = this.#parts.clock.after(delayMs, () => void this.#fetch());
  }

  async #keep(document: unknown): Promise<void> {
    const { config, issuer, jwksUrl, log } = this.#parts;
    if (config.folder === null) return;
    try {
      await keepKeySet(config.folder, { issuer, jwksUrl, confirmedAt: this.#confirmedAt, document });
    } catch (thrown) {
      log.warn({ issuer, ...errorFields(thrown) }, 'the public keys cannot be kept for the next start');
    }
  }

  async #recall(): Promise<void> {
    const { clock, config, issuer, jwksUrl, log } = this.#parts;
    if (config.folder === null) return;
    try {
      const kept = await recallKeySet(config.folder, { issuer, jwksUrl });
      // A set from the future would outlive its bound.
      if (kept === undefined || kept.confirmedAt > clock.now()) return;
      this.#keys = readKeySet(kept.document, config.keysMax);
      this.#confirmedAt = kept.confirmedAt;
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
  // 4.3: the document must be of this very issuer, or its keys would open another's tokens.
  if (named !== issuer) throw new Error(`${url} speaks for another issuer`);
  if (typeof keysUrl !== 'string' || !URL.canParse(keysUrl)) throw new Error(`${url} names no jwks_uri`);
  const { protocol } = new URL(keysUrl);
  if (protocol !== 'https:' && !(protocol === 'http:' && issuer.startsWith('http:'))) {
    throw new Error(`${url} names a jwks_uri that is less protected than the issuer`);
  }
  return keysUrl;
}

/** How often an unknown key may make us fetch: a burst, then one each interval. */
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
